"""What a training says while it runs and what comes out of it.  in: a Job in training   out: Evaluations, an Outcome"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from study.training.types import Job

if TYPE_CHECKING:
    from study.training.evaluation import Snapshot


@dataclass
class Outcome:
    """What one trained network says of all n examples, train rows then test rows; or of `Validation.final` alone.

    prediction: (n,) class.
    confidence: (n,) softmax probability of the label, p_L.
    top_confidence: (n,) largest softmax probability, p_max.
    losses: mean loss of each epoch's batches.
    epochs: that were made; fewer than the job's when `Hooks.after_epoch` ended the training.
    """

    prediction: np.ndarray
    confidence: np.ndarray
    top_confidence: np.ndarray
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    epochs: int = 0

    @property
    def diverged(self) -> bool:
        """Whether the network has left the finite numbers; its predictions then count for nothing."""
        return not bool(np.isfinite(self.confidence).all())


@dataclass
class Evaluation:
    """A network on the validation rows at the end of an epoch; the caller may end its training by `end()`.

    loss: mean cross-entropy on the validation rows.
    train_loss: mean loss of the epoch's batches.
    last: whether this was the last epoch; an Outcome follows unless the caller ends the training here.
    """

    epoch: int
    accuracy: float
    loss: float
    train_loss: float
    last: bool
    ended: bool = False

    @property
    def finite(self) -> bool:
        """Whether the network is still among the finite numbers."""
        return bool(np.isfinite([self.loss, self.train_loss]).all())

    def end(self) -> None:
        """Ask that the training ends here; no Outcome comes of it."""
        self.ended = True


@dataclass(frozen=True)
class Failure:
    """A training that cannot go on, such as for want of memory; the others can."""

    reason: str


Result = Evaluation | Outcome | Failure


@dataclass
class Validation:
    """Which rows are evaluated while networks train.

    rows: (v,) that no job trains on.
    every: epochs between two Evaluations; after the last epoch there always is one.
    final: rows of the Outcomes; None for all examples.
    """

    rows: np.ndarray
    every: int = 1
    final: np.ndarray | None = None


class AnyOf:
    """Set when any of several events is."""

    def __init__(self, *events: "threading.Event | AnyOf") -> None:
        self.events = events

    def is_set(self) -> bool:
        """Whether one of them is set."""
        return any(event.is_set() for event in self.events)


@dataclass(frozen=True)
class Hooks:
    """What the caller hears of a training in its thread: examples done, the ends of epochs; and its order to stop.

    after_epoch: called with the job, the epoch and a Snapshot, once before the first step (epoch 0) and after each
        epoch; only for jobs that train alone.  When it returns True the training of this job ends there.
    after_steps: called with the job, the number of steps taken and a Snapshot after every `steps` steps; only for jobs
        that train alone.
    steps: between two such calls; 0: none.
    online: whether the Snapshot after an epoch says what was right before the update on its batch.
    """

    progress: Callable[[int], None] = lambda examples: None
    after_epoch: "Callable[[Job, int, Snapshot], bool | None] | None" = None
    after_steps: "Callable[[Job, int, Snapshot], None] | None" = None
    steps: int = 0
    online: bool = False
    stop: threading.Event | AnyOf = field(default_factory=threading.Event)
