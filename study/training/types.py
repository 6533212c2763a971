"""What a training is, as plain data.  in: numbers and names   out: frozen specs and Jobs; no torch, no recipe"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study.models.spec import NetworkSpec
from study.random_streams import random_stream


@dataclass(frozen=True)
class OptimizerSpec:
    """The update rule: "sgd", "adam", "adamax" or "adagrad"; `momentum` is beta1 of Adam and AdaMax."""

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class ScheduleSpec:
    """The learning rate over the training, as a factor on `OptimizerSpec.lr`; see `schedules.rate_factor`."""

    name: str = "constant"
    peak: float = 0.15
    unit: str = "epochs"
    milestones: tuple[float, ...] = ()
    factor: float = 0.1


@dataclass(frozen=True)
class TrainSpec:
    """Length, batches, loss, augmentation, scaling of the pixels, regularizers on the inputs.

    steps: instead of epochs, so many updates; the last epoch is cut short.
    batch_size: 0 is all training examples at once.
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 128
    loss: str = "cross_entropy"
    pad: int = 0
    flip: bool = False
    normalize: str = "unit"
    input_noise: float = 0.0
    input_dropout: float = 0.0
    adversarial: float = 0.0

    def edges(self, n: int) -> list[int]:
        """Where the batches of an epoch over n examples begin and end.

        A last batch of one example joins the one before it (BatchNorm needs two).
        """
        size = self.batch_size or n
        edges = [*range(0, n, size), n]
        if len(edges) > 2 and edges[-1] - edges[-2] == 1:
            del edges[-2]
        return edges

    def length(self, n: int) -> tuple[int, int]:
        """(epochs, updates) of a training on n examples; with `steps` the last epoch may be a part of one."""
        per_epoch = len(self.edges(n)) - 1
        if self.steps is None:
            return self.epochs, self.epochs * per_epoch
        return -(-self.steps // per_epoch), self.steps

    def seen(self, n: int) -> int:
        """How many examples a training on n of them takes in, over all updates."""
        edges = self.edges(n)
        epochs, steps = self.length(n)
        return (epochs - 1) * n + edges[steps - (epochs - 1) * (len(edges) - 1)]


@dataclass(frozen=True)
class RuntimeSpec:
    """Where and how jobs run; never changes which networks are trained.

    device: "auto", "cpu", "cuda" or "cuda:0".
    precision: "auto", "float32", "bfloat16" or "float64", of the matrix products.
    kernel: "auto", "native" or "torch", of an MLP's steps on a CPU.
    layout: "auto", "channels_last" or "contiguous", of a convolutional network's images.
    threads: networks at a time; 0: what the network gains from.
    stack: networks in one stack on a GPU; 0: what the device gains from.
    """

    device: str = "auto"
    precision: str = "auto"
    kernel: str = "auto"
    layout: str = "auto"
    threads: int = 0
    stack: int = 0


@dataclass(frozen=True, eq=False)
class Sampling:
    """Which examples each epoch of a job takes, see `sampling.sampled_rows`.

    order: "shuffled", "easy-first", "hard-first", or "random", which ranks them at random and is paced all the same.
    pacing: "linear", "root", "quadratic" or "step".
    start: share of the ranked examples at the beginning.
    end: share of the training after which all are taken.
    scores: (n_subset,) of the job's rows, high means easy.
    weights: (n_subset,) how often each is drawn, relative to the others; None: all alike, each once an epoch.
    """

    order: str = "shuffled"
    pacing: str = "linear"
    start: float = 0.3
    end: float = 0.6
    scores: np.ndarray | None = None
    weights: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One network to be trained: an ensemble member, a search trial, a single run.

    name: of the job in the random streams, such as ("member", "0.1", 3).
    rows: (n_subset,) sorted rows of the Dataset that it trains on.
    seed: of the random streams.
    key: the caller's own, handed back with what comes of the job.
    sampling: which examples an epoch takes; None: each once, in a new order.
    """

    name: tuple[object, ...]
    rows: np.ndarray
    network: NetworkSpec = field(default_factory=NetworkSpec)
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    training: TrainSpec = TrainSpec()
    seed: int = 0
    key: Any = None
    sampling: Sampling | None = None

    def stream(self, purpose: str, *more: object) -> np.random.Generator:
        """The generator of one purpose ("init", "order", "augment", "dropout", "regularize"), of this job alone."""
        return random_stream(self.seed, purpose, *self.name, *more)


@dataclass(frozen=True)
class JobTemplate:
    """What the jobs of one launch have in common."""

    network: NetworkSpec = field(default_factory=NetworkSpec)
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    training: TrainSpec = TrainSpec()
    seed: int = 0

    def job(self, name: tuple[object, ...], rows: np.ndarray, key: Any = None) -> Job:
        """The job of this name in the random streams, on these sorted rows."""
        return Job(name, rows, self.network, self.optimizer, self.schedule, self.training, self.seed, key)

    def stream(self, *name: object) -> np.random.Generator:
        """The generator of one purpose that is not a single job's, such as ("subset", "0.1", 3)."""
        return random_stream(self.seed, *name)
