"""What a data set is asked for, as plain data.  in: words and numbers   out: frozen specs; a recipe's tables have the
same attributes
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from study.errors import DataError

LABEL_NOISE = ("none", "symmetric", "asymmetric", "instance", "human", "unique")
INPUT_NOISE = ("none", "gaussian", "shuffled")
FOREIGN, REPLACED = "foreign", "random image"
"""What `Dataset.planted` says of an image that was put in on purpose."""


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; None: the usual names, see `readers.columns`.

    image: encoded images, or paths of image files; of features, their lists.
    label: the class.
    split: train, test, validation.

    >>> Columns(label="fine_label").image is None
    True
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class ForeignSpec:
    """Images of another data set that are mixed into the training examples, under labels drawn at random.

    name, root, train: of its reader, see `DataSpec`.
    share: how many, for each training example.

    >>> ForeignSpec("fashion-mnist").share
    0.05
    """

    name: str
    root: str | None = None
    train: str | None = None
    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise DataError(f"data.foreign.share is {self.share}; it lies above 0 and is at most 1")

    @classmethod
    def of(cls, section: Any) -> Self:
        """The same of any object with these attributes, such as a recipe's [data.foreign] table."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class DataSpec:
    """Which examples: the name of a reader, where the files lie, what is taken of them.

    name: "digits", "mnist", ..., "folder", "csv", "npz", "parquet", "features", ...; see `readers.registry.READERS`.
    label: the name under which tables and MLflow show the data set; None: `name`.
    root, train, test: folder, or files of the splits.
    size, channels: every image is brought to size x size pixels, 1 or 3 channels; None leaves them.
    limit: the first so many train examples of each class.
    limit_test: the first so many test examples of each class; None: with a limit as many, but at least 100.
    classes: names of the classes that are kept, in the order of their new labels.
    columns: of a CSV or Parquet table; a mapping becomes `Columns`.
    download: whether a published data set may be fetched.
    decisions: files of decisions, see `Dataset.with_decisions`, in their order.
    keep: a list of the training examples that are kept, see `Dataset.with_only`.
    foreign: images of another data set among the training examples; a mapping becomes a `ForeignSpec`.

    >>> DataSpec("mnist", limit=100).title
    'mnist'
    """

    name: str
    label: str | None = None
    root: str | None = None
    train: str | None = None
    test: str | None = None
    size: int | None = None
    channels: int | None = None
    limit: int | None = None
    limit_test: int | None = None
    classes: tuple[str, ...] | None = None
    columns: Columns = Columns()
    download: bool = True
    decisions: tuple[str, ...] = ()
    keep: str | None = None
    foreign: ForeignSpec | None = None

    def __post_init__(self) -> None:
        if isinstance(self.columns, Mapping):
            object.__setattr__(self, "columns", Columns(**self.columns))
        if isinstance(self.foreign, Mapping):
            object.__setattr__(self, "foreign", ForeignSpec(**self.foreign))

    @classmethod
    def of(cls, section: Any) -> Self:
        """The same of any object with these attributes, such as a recipe's [data] table."""
        values: dict[str, Any] = {field.name: getattr(section, field.name, field.default) for field in fields(cls)}
        values["columns"] = {field.name: getattr(section.columns, field.name) for field in fields(Columns)}
        if values["foreign"] is not None:
            values["foreign"] = ForeignSpec.of(values["foreign"])
        return cls(**values)

    @property
    def title(self) -> str:
        """The data set's name in tables and in MLflow."""
        return self.label or self.name


@dataclass(frozen=True)
class NoiseSpec:
    """What is made wrong on purpose in the training examples; test examples stay as they are.

    labels: "symmetric" (uniform over all classes, the true one among them), "asymmetric" (the next class), "instance"
        (a class that the image decides), "human" (read from a file), "unique" (each training example is a class of its
        own, and there are no test examples), "none".
    share: of the training examples whose label is drawn anew; with "instance" the mean of the examples' own shares.
    file, column: an .npz file of human labels and the name of its array.
    inputs: "gaussian" (noise of the data's mean and deviation instead of the image), "shuffled" (its pixels in an order
        of its own), "none".
    input_share: of the training examples whose image is replaced.

    Raises:
        DataError: a word that is none of these, or a share outside 0..1.

    >>> NoiseSpec(labels="symmetric", share=0.4).inputs
    'none'
    """

    labels: str = "none"
    share: float = 0.0
    file: str | None = None
    column: str | None = None
    inputs: str = "none"
    input_share: float = 1.0

    def __post_init__(self) -> None:
        for key, words in (("labels", LABEL_NOISE), ("inputs", INPUT_NOISE)):
            if getattr(self, key) not in words:
                raise DataError(f"noise.{key} is {getattr(self, key)!r}; take one of {', '.join(map(repr, words))}")
        for key in ("share", "input_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise DataError(f"noise.{key} is {getattr(self, key)}; a share lies between 0 and 1")
        if self.labels == "human" and not (self.file and self.column):
            raise DataError("noise.labels = 'human' needs file, an .npz file, and column, the name of its array")

    @classmethod
    def of(cls, section: Any) -> Self:
        """The same of any object with these attributes, such as a recipe's [noise] table."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})
