"""What goes into a training and comes out.  in: a name, rows, a recipe of its own   out: what the network says"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from study.models import build
from study.recipe import Recipe

if TYPE_CHECKING:
    from study.training.evaluation import Snapshot


@dataclass(frozen=True)
class Member:
    """One network to be trained: its name in the random streams, the rows that it trains on."""

    words: tuple[object, ...]
    subset: np.ndarray  # row numbers, sorted


@dataclass
class Outcome:
    """What one trained network says of all n examples, train rows then test rows."""

    prediction: np.ndarray  # (n,) class
    confidence: np.ndarray  # (n,) softmax probability of the label, p_L
    top_confidence: np.ndarray  # (n,) largest softmax probability, p_max
    losses: list[float] = field(default_factory=list)  # mean loss of each epoch's batches
    seconds: float = 0.0
    epochs: int = 0  # passes that were made; fewer than the recipe's when `Hooks.after_epoch` ended the training

    @property
    def diverged(self) -> bool:
        """Whether the network has left the finite numbers; its answers then count for nothing."""
        return not bool(np.isfinite(self.confidence).all())


@dataclass(frozen=True)
class Hooks:
    """What the caller hears of a training: examples done, the ends of epochs; and its word to stop.

    after_epoch: called with the member, the epoch and a Snapshot, once before the first step (epoch 0) and after each
        pass; only for members that train alone.  When it returns True the training of this member ends there.
    online: whether the Snapshot after an epoch says what was right in passing.
    """

    progress: Callable[[int], None] = lambda examples: None
    after_epoch: "Callable[[Member, int, Snapshot], bool | None] | None" = None
    online: bool = False
    stop: "threading.Event | AnyOf" = field(default_factory=threading.Event)


class AnyOf:
    """Set when any of several events is."""

    def __init__(self, *events: "threading.Event | AnyOf") -> None:
        self.events = events

    def is_set(self) -> bool:
        """Whether one of them is set."""
        return any(event.is_set() for event in self.events)


def stackable(recipe: Recipe) -> bool:
    """Whether the recipe's network has a stacked form: an MLP without dropout."""
    return build.stackable(recipe.model.spec())
