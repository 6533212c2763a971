"""The tables of a recipe.  in: TOML values   out: frozen sections, every default filled in"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from study.models.spec import NetworkSpec
from study.recipe.bounds import bounded, label, path

Scalar = bool | int | float | str
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
Label = Annotated[str, AfterValidator(label)]
Path = Annotated[str, AfterValidator(path)]
PLACED = ("folder", "csv", "npz", "parquet")
"""Formats, whose files lie where the recipe says."""
WITHOUT_COLUMNS = ("folder", "npz", "digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn")
MOST_SETTINGS = 256  # entries in a list of a network's settings, such as the widths of its layers


class Section(BaseModel):
    """A table of the recipe: frozen, keyword-only, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):  # a section looks at its own values
            bounded(value)
        return tuple(value) if isinstance(value, list) else value


class Columns(Section):
    """Names of a table's columns, for `csv`, `parquet`, `features` and `table`; missing: the usual names.

    image: of the images or their files: image, img, file, filename, path, ...; of features: features, embedding, x, ...
    label: of the classes: label, labels, fine_label, class, ...
    split: of the words train, test and validation: split, subset, partition.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None


class Foreign(Section):
    """Images of another data set among the training examples, under labels drawn at random.

    name: of its source, as in [data].
    root: the folder of its files.
    train: file or folder of its training split, where root does not say it.
    share: how many images, for each training example.
    """

    name: str
    root: Path | None = None
    train: Path | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.05


class Data(Section):
    """Which examples: the name of a source, where it lies, what is taken of it.

    name: digits, a published data set (mnist, cifar10, ...), or a format: folder, csv, npz, parquet, features
        (rows of numbers in npz or Parquet), table (CSV with numbers and categories).
    root: the folder of the data; of a published data set, where it is downloaded to.
    train, test: file or folder of one split, where root does not say it.
    size: side in pixels to which images are resized; missing: as they are.
    channels: 1 turns images grey, 3 repeats a grey channel; missing: as they are.
    limit: the first so many training examples of each class.
    limit_test: the first so many test examples of each class; missing: with a limit as many, but at least 100.
    classes: only examples of these classes, by name.
    download: whether a published data set may be downloaded.
    columns: of a table, where they have other names than the usual ones.
    decisions: suspects.csv of a report of these data, in which a person has decided what to keep, relabel and drop; a
        list of several is applied in its order.
    keep: a CSV file whose column `example` names the training examples that are trained on; test examples all stay.
    foreign: images of another data set that are mixed in, a table.
    """

    name: str
    label: Label | None = None  # the name under which MLflow files it; the source's name when missing
    root: Path | None = None
    train: Path | None = None
    test: Path | None = None
    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    channels: Literal[1, 3] | None = None
    limit: Annotated[int, Field(ge=1, le=10**9)] | None = None
    limit_test: Annotated[int, Field(ge=1, le=10**9)] | None = None
    classes: tuple[str, ...] | None = None
    download: bool = True
    columns: Columns = Columns()
    decisions: tuple[Path, ...] = ()
    keep: Path | None = None
    foreign: Foreign | None = None

    @field_validator("decisions", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _files_have_a_place(self) -> "Data":
        if self.name in PLACED and not (self.root or self.train):
            raise ValueError(f"name = '{self.name}' needs the place of its files: root = '...', or train = '...'")
        if self.name in WITHOUT_COLUMNS and self.columns != Columns():
            raise ValueError(f"columns are of csv and parquet tables; '{self.name}' has none, remove them")
        return self

    @property
    def title(self) -> str:
        """The data set's name in MLflow."""
        return self.label or self.name


class Noise(Section):
    """What is made wrong on purpose in the training examples, fixed by the seed; test examples stay as they are.

    labels: symmetric (uniform over all classes, the true one among them), asymmetric (the next class), instance (a
        class that the image decides), human (read from a file), unique (each training example is a class of its own;
        test examples are left out).
    share: of the training examples whose label is drawn anew; with instance the mean of the examples' own shares.
    inputs: gaussian (noise of the data's mean and deviation instead of the image), shuffled (its pixels in an order of
        its own).
    input_share: of the training examples whose image is replaced.
    """

    labels: Literal["none", "symmetric", "asymmetric", "instance", "human", "unique"] = "none"
    share: Share = 0.0
    file: Path | None = None  # of human labels: .npz
    column: str | None = None  # its array
    inputs: Literal["none", "gaussian", "shuffled"] = "none"
    input_share: Share = 1.0

    @model_validator(mode="after")
    def _labels_say_which(self) -> "Noise":
        drawn = self.labels in ("symmetric", "asymmetric", "instance")
        if drawn and not self.share:
            raise ValueError(f"labels = '{self.labels}' needs the share that it concerns, such as share = 0.4")
        if not drawn and self.share:
            raise ValueError(
                f"share = {self.share} goes with labels = 'symmetric', 'asymmetric' or 'instance', else it is 0"
            )
        if self.labels == "human" and not (self.file and self.column):
            raise ValueError(
                "labels = 'human' needs file = 'labels.npz' and column, the name of its array, "
                "such as column = 'worse_label'"
            )
        return self


class Model(Section):
    """A network by its registered name; settings go to its constructor.

    name: of this project's networks, of a plugin's, or of timm's.
    settings: keyword arguments of the constructor; they do not outlive the name that they were for.
    """

    name: str = "mlp"
    settings: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    _builder: Any = PrivateAttr(None)

    @classmethod
    def of(cls, network: NetworkSpec) -> "Model":
        """The section of a network from Python; its builder goes with it, but not into the recipe's text."""
        model = cls(name=network.name, settings=dict(network.settings))
        model._builder = network.builder
        return model

    @field_validator("settings", mode="before")
    @classmethod
    def _setting_lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        bounded(value, items=MOST_SETTINGS)
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}

    def spec(self) -> NetworkSpec:
        """The same network as plain data, as training takes it."""
        return NetworkSpec(self.name, self.settings, self._builder)


class Optimizer(Section):
    """The update rule.

    name: the algorithm.
    lr: learning rate, before the schedule's factor.
    momentum: SGD's, or beta1 of Adam and AdaMax; AdaGrad has none.
    nesterov: of SGD alone.
    weight_decay: L2, in the gradient.
    beta2: of Adam and AdaMax.
    eps: of Adam, AdaMax and AdaGrad.
    """

    name: Literal["sgd", "adam", "adamax", "adagrad"] = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 0.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Positive = 1e-8


class Schedule(Section):
    """The learning rate over the training, as a factor on `optimizer.lr`.

    constant; step: times `factor` at each of `milestones`, in order; ramp: from 0 to 1 over the first `peak` of the
    steps, then as step (J-tab2's LinearRampupPiecewiseConstant); triangular: from 0 to 1 over the first `peak` of the
    steps, then to 0 (J-tab2's 15 %); cosine: half a cosine from 1 to 0.  `unit` says what milestones count: epochs,
    steps, or shares of the training.

    name: the shape, as above.
    peak: share of the steps in which a ramp or triangular schedule rises.
    unit: of the milestones.
    milestones: where a step or ramp schedule falls, rising.
    factor: by which it falls at each milestone.
    """

    name: Literal["constant", "step", "ramp", "triangular", "cosine"] = "constant"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.15
    unit: Literal["epochs", "steps", "share"] = "epochs"
    milestones: tuple[Positive | Steps, ...] = ()
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> "Schedule":
        if self.name in ("step", "ramp") and not self.milestones:
            raise ValueError(
                f"a {self.name} schedule needs milestones, the {self.unit} at which the rate falls: "
                f"milestones = {'[0.3, 0.6]' if self.unit == 'share' else '[60, 90]'}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("the milestones must rise and must not repeat")
        if self.unit == "share" and any(milestone >= 1 for milestone in self.milestones):
            raise ValueError("milestones in shares of the training lie between 0 and 1")
        if self.unit != "share" and any(type(milestone) is not int for milestone in self.milestones):
            raise ValueError(f"milestones in {self.unit} must be whole numbers; unit = 'share' takes fractions")
        return self


class Train(Section):
    """Epochs on the subset, batches, loss, augmentation, scaling of the pixels, regularizers on the inputs.

    epochs: passes over the subset.
    loss: cross_entropy, or zero_hinge (B-hinge).
    pad: pixels of zero padding before a random crop back to the image's size; 0: no crop.
    flip: mirror each image of a batch with probability one half.
    order: of the examples, in single runs: shuffled, each once an epoch; or a curriculum, in which an epoch takes
        a growing part of the examples, as many in all: easy-first or hard-first by `scores`, or random, the control.
    scores: a CSV file with the columns example and score, high means easy.
    pacing: how the part grows: linear, root, quadratic, or a step at its end.
    pacing_start: the part at the beginning.
    pacing_end: share of the training after which all examples are taken.
    weights: a CSV file with the columns example and weight, in single runs: how often each is drawn, relative to the
        others, with replacement.
    """

    epochs: Count = 10
    steps: Steps | None = None  # instead of epochs: so many updates; the last pass is cut short
    batch_size: Annotated[int, Field(ge=0, le=1_000_000)] = 128  # 0: all training examples at once, gradient descent
    loss: Literal["cross_entropy", "zero_hinge"] = "cross_entropy"
    pad: Annotated[int, Field(ge=0, le=64)] = 0
    flip: bool = False
    normalize: Literal["unit", "standard"] = "unit"  # 0..1, or mean 0 and SD 1 per channel over the training split
    input_noise: NotNegative = 0.0  # SD of Gaussian noise on normalized inputs
    input_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the inputs that is set to 0
    adversarial: NotNegative = 0.0  # step along the sign of the input's gradient
    order: Literal["shuffled", "easy-first", "hard-first", "random"] = "shuffled"
    scores: Path | None = None
    pacing: Literal["linear", "root", "quadratic", "step"] = "linear"
    pacing_start: Annotated[float, Field(gt=0, le=1)] = 0.3
    pacing_end: Annotated[float, Field(gt=0, le=1)] = 0.6
    weights: Path | None = None

    @model_validator(mode="after")
    def _rankings_have_scores(self) -> "Train":
        if self.order in ("easy-first", "hard-first") and self.scores is None:
            raise ValueError(f"order = '{self.order}' needs scores, a CSV file with the columns example and score")
        return self

    @property
    def samples(self) -> bool:
        """Whether epochs take other examples than each once."""
        return self.order != "shuffled" or self.weights is not None

    def edges(self, n: int) -> list[int]:
        """Where the batches of a pass over n examples begin and end.

        A last batch of one example joins the one before it (BatchNorm needs two).
        """
        size = self.batch_size or n
        edges = [*range(0, n, size), n]
        if len(edges) > 2 and edges[-1] - edges[-2] == 1:
            del edges[-2]
        return edges

    def length(self, n: int) -> tuple[int, int]:
        """(passes, updates) of a training on n examples; with `steps` the last pass may be a part of one."""
        per_pass = len(self.edges(n)) - 1
        if self.steps is None:
            return self.epochs, self.epochs * per_pass
        return -(-self.steps // per_pass), self.steps

    def seen(self, n: int) -> int:
        """How many examples a training on n of them takes in, over all updates."""
        edges = self.edges(n)
        passes, steps = self.length(n)
        return (passes - 1) * n + edges[steps - (passes - 1) * (len(edges) - 1)]


class Single(Section):
    """The single runs on all examples: how many, and what in them differs from the ensemble's members.

    repeats: single runs, which differ in their random streams.
    density_radius: of the circles in which densities in Zhang's plane are counted, in epochs and events; missing: the
        paper's, a thirtieth of each axis, which on short runs is below 1, so that only coinciding points count.
    keep: networks that a run keeps as safetensors, for proxies that are computed later: nothing, the final one, or
        checkpoints after every epoch at which signals are collected.
    model, optimizer, schedule, train: keys of these sections that differ in single runs.
    """

    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    evaluate_every: Count = 1  # epochs between two evaluations of all examples; the last epoch is always evaluated
    evaluate_steps: Count | None = (
        None  # steps between two records of all predicted classes (B-learned); missing: epochs
    )
    signals_every: Count = 1  # epochs between two collections of costly signals, at evaluated epochs
    density_radius: Positive | None = None
    keep: Literal["nothing", "final", "checkpoints"] = "nothing"
    model: dict[str, Any] = Field(default_factory=dict)
    optimizer: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)


class Runtime(Section):
    """Where and how it runs; never changes which networks are trained, so it is no part of the digest.

    engine: of ensembles: local, this machine; or ray, the cluster of RAY_ADDRESS, where a task takes one GPU, or as
        many CPUs as `threads` says, else one.
    device: auto (all GPUs, else the CPU), cpu, cuda, or one GPU such as cuda:0.
    precision: of products; weights are kept in float32, or float64.
    """

    engine: Literal["local", "ray"] = "local"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    kernel: Literal["auto", "native", "torch"] = "auto"  # of an MLP's steps on a CPU; native: compiled on this machine
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"  # of a convolutional network's images
    threads: Annotated[int, Field(ge=0, le=1024)] = (
        0  # networks at a time, but for GPU stacks; 0: what the network gains from
    )
    stack: Annotated[int, Field(ge=0, le=4096)] = 0  # networks in one stack on a GPU; 0: what the device gains from
    shard: Annotated[int, Field(ge=1, le=500)] = 10  # members in one shard, the unit of resume
