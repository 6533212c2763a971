"""What members take from the host, drawn ahead in threads.  in: members, a recipe   out: Loads in order, passes

A GPU that trains a stack of MLPs ends a pass every few steps, and each needs an order that takes half a millisecond to
draw; initial weights take some more.  All comes from the streams that a member alone draws from.
"""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.models.build import create
from study.models.mlp import MLP
from study.recipe import Recipe
from study.training.job import Member
from study.training.loop import drawn
from study.training.mlp import flat
from study.training.placement import Placement
from study.training.regularizers import generators
from study.training.schedules import rate_factor


@dataclass(frozen=True)
class Course:
    """How a training on a subset of one size goes.

    lows, counts: (s,) int64, where the batches of a pass begin and how many examples they have.
    rates: (steps,) float64.
    """

    lows: Tensor
    counts: Tensor
    rates: Tensor
    passes: int

    def steps(self, epoch: int) -> int:
        """Of this pass; the last one may be cut short."""
        return min(len(self.lows), len(self.rates) - epoch * len(self.lows))


@dataclass(frozen=True)
class Draw:
    """What a pass takes from the streams: the order (n_subset,), crops and flips in that order, generators of noise."""

    order: Tensor
    crop: tuple[Tensor, ...]
    noise: list[torch.Generator]


@dataclass
class Load:
    """A member that a row can take."""

    number: int
    member: Member
    course: Course
    network: MLP
    start: Tensor
    first: Draw


class Streams:
    """Draws for members, in threads, from the streams that a member alone draws from."""

    def __init__(self, dataset: Dataset, recipe: Recipe, placement: Placement, pool: ThreadPoolExecutor) -> None:
        self.dataset, self.recipe, self.pool = dataset, recipe, pool
        self.device = torch.device(placement.device)
        self.course = cache(self._course)

    def load(self, number: int, member: Member) -> Future[Load]:
        """The member's initial weights and first pass."""
        return self.pool.submit(self._load, number, member)

    def draw(self, member: Member, epoch: int) -> Future[Draw]:
        """The member's pass (0-based `epoch`)."""
        return self.pool.submit(self._draw, member, epoch)

    def _load(self, number: int, member: Member) -> Load:
        seed = int(self.recipe.stream("init", *member.words).integers(2**63))
        network = create(self.recipe.model.spec(), self.dataset.shape, self.dataset.n_classes, seed=seed)
        course = self.course(len(member.subset))
        return Load(number, member, course, network, self._pinned(flat(network)), self._draw(member, 0))

    def _draw(self, member: Member, epoch: int) -> Draw:
        order, *crop = drawn(member, self.recipe, epoch)
        noise = generators([member], self.recipe, epoch, self.device)
        kept = self._pinned(torch.from_numpy(order.astype(np.int32)))
        return Draw(kept, tuple(self._pinned(torch.from_numpy(each.astype(np.uint8))) for each in crop), noise)

    def _course(self, n: int) -> Course:
        edges = np.array(self.recipe.train.edges(n))
        passes, steps = self.recipe.train.length(n)
        factors = [rate_factor(self.recipe.schedule, step, steps, len(edges) - 1) for step in range(steps)]
        rates = self.recipe.optimizer.lr * np.array(factors)
        sent = (self._pinned(torch.from_numpy(each)) for each in (edges[:-1], np.diff(edges), rates))
        return Course(*sent, passes)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """In memory from which a GPU reads while the host goes on."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


class Supply:
    """Members in order, drawn ahead."""

    def __init__(self, members: Iterable[Member], streams: Streams, ahead: int) -> None:
        self.members = iter(enumerate(members))
        self.streams, self.ahead = streams, ahead
        self.coming: deque[Future[Load]] = deque()

    def take(self) -> Load | None:
        """The next one, or None."""
        self.coming.extend(
            self.streams.load(*each) for each in islice(self.members, max(0, self.ahead - len(self.coming)))
        )
        return self.coming.popleft().result() if self.coming else None

    def give_back(self, loads: Iterable[Load]) -> None:
        """Put members in front of the others, to be trained from their start."""
        for load in sorted(loads, key=lambda load: load.number, reverse=True):
            self.coming.appendleft(self.streams.load(load.number, load.member))
