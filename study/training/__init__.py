"""Fit many networks side by side.  in: members, a Dataset, a recipe, a Placement   out: an Outcome per member, in order

`fit` is the one function that the rest of the house calls.  A member is named by words; its initial weights, batch
order and augmentation are drawn from the recipe's streams of these words, so they do not depend on how it was placed.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.data.augment import draw_crop_flip
from study.networks import create, draws_random_numbers
from study.networks.mlp import MLP
from study.recipe import Recipe
from study.training.examples import Examples
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.placement import Placement, float32_routing, operation_threads
from study.training.schedules import rate_factor

EVALUATE_ROWS = 2048
Learner = MLPLearner | ModuleLearner


class Stopped(Exception):  # noqa: N818  an order from outside, not an error
    """Training was told to stop; nothing of the members under way is kept."""


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
    features: np.ndarray | None = None  # (n, d) float32, the penultimate layer, when asked for
    losses: list[float] = field(default_factory=list)  # mean cross-entropy of each epoch's batches
    seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        """Whether the network has left the finite numbers; its answers then count for nothing."""
        return not bool(np.isfinite(self.confidence).all())


@dataclass(frozen=True)
class Hooks:
    """What the caller hears of a training: examples done, the end of each epoch; and its word to stop."""

    progress: Callable[[int], None] = lambda examples: None
    after_epoch: Callable[[int, Callable[[bool], Outcome]], None] | None = None  # epoch (1-based), look(features)
    stop: "threading.Event | _AnyOf" = field(default_factory=threading.Event)


class _AnyOf:
    """Set when any of several events is."""

    def __init__(self, *events: "threading.Event | _AnyOf") -> None:
        self.events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self.events)


def stackable(recipe: Recipe) -> bool:
    """Whether the recipe's network has a stacked form."""
    return recipe.model.name == "mlp"


def fit(
    members: Iterable[Member], dataset: Dataset, recipe: Recipe, placement: Placement, hooks: Hooks | None = None
) -> Iterator[Outcome]:
    """Train every member and look at all examples with it.

    Args:
        members: consumed lazily, a few ahead of the training.
        dataset: n examples.
        recipe: model, optimizer, schedule, train and the random streams.
        placement: device, precision, how many at a time.
        hooks: progress, end of epochs (for members that train alone), stop.

    Yields:
        One Outcome per member, in the members' order.

    Raises:
        Stopped: `hooks.stop` was set.
    """
    hooks, abandoned = hooks or Hooks(), threading.Event()
    heard = replace(hooks, stop=_AnyOf(hooks.stop, abandoned))
    random = draws_random_numbers(recipe.model, dataset.shape, dataset.n_classes)
    if random:  # dropout draws from torch's one generator: side by side the draws would mix
        placement = placement.alone(wide=not stackable(recipe))
    threads_before = torch.get_num_threads()
    dtype = placement.compute if stackable(recipe) else placement.master
    examples = Examples(dataset, recipe.train, placement.device, dtype)

    def work(group: Sequence[Member]) -> list[Outcome]:
        torch.set_num_threads(placement.cores)
        with _own_randomness(recipe, group[0]) if random else nullcontext():
            return _fit_group(group, examples, dataset, recipe, placement, heard)

    with float32_routing(placement.matmul), ThreadPoolExecutor(placement.threads) as pool:
        waiting: deque[Future[list[Outcome]]] = deque()
        try:
            for group in _groups(members, placement.stack):
                waiting.append(pool.submit(work, group))
                if len(waiting) > 2 * placement.threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            abandoned.set()  # a caller that stops asking, or an error, ends what is under way
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads_before)


def _groups(members: Iterable[Member], stack: int) -> Iterator[list[Member]]:
    """Runs of members that take equally many steps, at most `stack` of them: what one stack can hold."""
    group: list[Member] = []
    for member in members:
        if group and (len(group) == stack or len(member.subset) != len(group[0].subset)):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _fit_group(
    group: Sequence[Member], examples: Examples, dataset: Dataset, recipe: Recipe, placement: Placement, hooks: Hooks
) -> list[Outcome]:
    start = time.perf_counter()
    learner = _learner(group, dataset, recipe, placement)
    losses: list[list[float]] = [[] for _ in group]
    for epoch in range(recipe.train.epochs):
        mean_loss = _epoch(learner, group, examples, recipe, epoch, hooks)
        for own, loss in zip(losses, mean_loss, strict=True):
            own.append(loss)
        if hooks.after_epoch:
            with operation_threads(placement.machine):
                hooks.after_epoch(epoch + 1, lambda features: _look(learner, examples, features)[0])
    outcomes = _look(learner, examples)
    for outcome, own in zip(outcomes, losses, strict=True):
        outcome.losses = own
        outcome.seconds = (time.perf_counter() - start) / len(group)
    return outcomes


def _learner(group: Sequence[Member], dataset: Dataset, recipe: Recipe, placement: Placement) -> Learner:
    seeds = [int(recipe.stream("init", *member.words).integers(2**63)) for member in group]
    networks = [create(recipe.model, dataset.shape, dataset.n_classes, seed=seed) for seed in seeds]
    where = (placement.device, placement.master, placement.compute)
    if isinstance(networks[0], MLP):
        return MLPLearner(networks, recipe.optimizer, *where)
    return ModuleLearner(networks[0], recipe.optimizer, *where)


@contextmanager
def _own_randomness(recipe: Recipe, member: Member) -> Iterator[None]:
    """Torch's global generators, seeded for one member and put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(recipe.stream("dropout", *member.words).integers(2**63)))
        yield


def batch_edges(n: int, batch_size: int) -> list[int]:
    """Where batches begin and end; a last batch of one example joins the one before it (BatchNorm needs two)."""
    edges = [*range(0, n, batch_size), n]
    if len(edges) > 2 and edges[-1] - edges[-2] == 1:
        del edges[-2]
    return edges


def _epoch(
    learner: Learner, group: Sequence[Member], examples: Examples, recipe: Recipe, epoch: int, hooks: Hooks
) -> list[float]:
    rows, crops = _orders(group, examples, recipe, epoch)
    if learner.stack == 1:
        rows, crops = rows[0], crops and tuple(crop[0] for crop in crops)
    labels = examples.labels[rows]
    edges = batch_edges(rows.shape[-1], recipe.train.batch_size)
    per_epoch = len(edges) - 1
    total = torch.zeros(rows.shape[:-1], dtype=learner.weights.dtype, device=rows.device)
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        if hooks.stop.is_set():
            raise Stopped
        factor = rate_factor(
            recipe.schedule, epoch * per_epoch + index, recipe.train.epochs * per_epoch, recipe.train.epochs
        )
        crop = crops and tuple(each[..., low:high].reshape(-1) for each in crops)
        images = examples.batch(rows[..., low:high], crop or None)
        loss = learner.step(images, labels[..., low:high], recipe.optimizer.lr * factor)
        total.add_(loss, alpha=high - low)
        hooks.progress((high - low) * learner.stack)
    return np.atleast_1d((total / rows.shape[-1]).cpu().numpy()).tolist()


def _orders(
    group: Sequence[Member], examples: Examples, recipe: Recipe, epoch: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Each member's batch order of this epoch, (K, n_subset), and its crops and flips in that order."""
    device = examples.labels.device
    orders = [recipe.stream("order", *member.words, epoch).permutation(member.subset) for member in group]
    rows = torch.from_numpy(np.stack(orders)).to(device)
    if not examples.augmented:
        return rows, ()
    pad, flip = recipe.train.pad, recipe.train.flip
    streams = [recipe.stream("augment", *member.words, epoch) for member in group]
    drawn = [draw_crop_flip(rows.shape[-1], pad, flip, rng) for rng in streams]
    return rows, tuple(torch.from_numpy(np.stack(each)).to(device) for each in zip(*drawn, strict=True))


@torch.no_grad()
def _look(learner: Learner, examples: Examples, features: bool = False) -> list[Outcome]:
    """Every example through the network(s), without augmentation."""
    shape = (learner.stack, examples.n)
    prediction = torch.empty(shape, dtype=torch.int16)
    confidence, top = torch.empty(shape), torch.empty(shape)
    kept = []
    for low in range(0, examples.n, EVALUATE_ROWS):
        high = min(low + EVALUATE_ROWS, examples.n)
        logits, hidden = learner.evaluate(examples.block(low, high), features)
        p = torch.softmax(logits.to(learner.weights.dtype), dim=-1)
        best = p.max(dim=-1)
        own = p.gather(-1, examples.labels[low:high].expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        for kept_rows, block in ((prediction, best.indices), (confidence, own), (top, best.values)):
            kept_rows[:, low:high] = block
        if hidden is not None:
            kept.append(hidden.float().cpu())
    arrays = (prediction.numpy(), confidence.numpy(), top.numpy())
    outcomes = [Outcome(*(array[index] for array in arrays)) for index in range(learner.stack)]
    if kept:
        outcomes[0].features = torch.cat(kept).numpy()
    return outcomes
