"""Fit many networks side by side.  in: members, a Dataset, a recipe, a Placement   out: an Outcome per member, in order

`fit` is the one function that the rest of the house calls.  A member is named by words; its initial weights, batch
order and augmentation are drawn from the recipe's streams of these words, so they do not depend on how it was placed.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.networks import create, draws_random_numbers
from study.recipe import Recipe
from study.training.epochs import train_epoch
from study.training.examples import Examples
from study.training.looks import Learner, Look, look
from study.training.members import AnyOf, Hooks, Member, Outcome, Stopped, stackable
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.placement import Placement, float32_routing, operation_threads

__all__ = ["Hooks", "Look", "Member", "Outcome", "Stopped", "fit", "stackable"]

PREPARE_ROWS = 5000


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
    heard = replace(hooks, stop=AnyOf(hooks.stop, abandoned))
    random = draws_random_numbers(recipe.model, dataset.shape, dataset.n_classes)
    if random:  # dropout draws from torch's one generator: side by side the draws would mix
        placement = placement.alone(wide=not stackable(recipe))
    threads_before = torch.get_num_threads()
    dtype = placement.compute if stackable(recipe) else placement.master
    examples = Examples(dataset, recipe.train, placement.device, dtype)

    def work(group: Sequence[Member]) -> list[Outcome]:
        torch.set_num_threads(placement.cores)
        with own_randomness(recipe, group[0]) if random else nullcontext():
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
    learner = new_learner(group, examples, dataset, recipe, placement)
    losses: list[list[float]] = [[] for _ in group]
    passes, _ = recipe.train.length(len(group[0].subset))
    ended = _ended(learner, group, examples, placement, hooks, 0)
    for epoch in range(passes):
        if ended:
            break
        online = torch.zeros(examples.n, dtype=torch.bool, device=placement.device) if hooks.online else None
        mean_loss = train_epoch(learner, group, examples, recipe, epoch, hooks, online)
        for own, loss in zip(losses, mean_loss, strict=True):
            own.append(loss)
        ended = _ended(learner, group, examples, placement, hooks, epoch + 1, online)
    outcomes = look(learner, examples)
    for outcome, own in zip(outcomes, losses, strict=True):
        outcome.losses, outcome.epochs = own, len(own)
        outcome.seconds = (time.perf_counter() - start) / len(group)
    return outcomes


def _ended(
    learner: Learner,
    group: Sequence[Member],
    examples: Examples,
    placement: Placement,
    hooks: Hooks,
    epoch: int,
    online: Tensor | None = None,
) -> bool:
    """Let the caller look; whether it ends the training here."""
    if hooks.after_epoch is None:
        return False
    with operation_threads(placement.machine if placement.threads == 1 else placement.cores):
        return bool(hooks.after_epoch(group[0], epoch, Look(learner, examples, online)))


def new_learner(
    group: Sequence[Member], examples: Examples, dataset: Dataset, recipe: Recipe, placement: Placement
) -> Learner:
    """One learner for members that train as a stack, or for one that trains alone; initial weights are their own."""
    seeds = [int(recipe.stream("init", *member.words).integers(2**63)) for member in group]
    networks = [create(recipe.model, dataset.shape, dataset.n_classes, seed=seed) for seed in seeds]
    where = (placement.device, placement.master, placement.compute)
    if stackable(recipe):
        return MLPLearner(networks, recipe.optimizer, *where, loss=recipe.train.loss)
    network = networks[0].to(placement.device, placement.master)
    if hasattr(network, "prepare"):
        _prepare(network, group[0], examples)
    return ModuleLearner(network, recipe.optimizer, *where, loss=recipe.train.loss)


@torch.no_grad()
def _prepare(network: torch.nn.Module, member: Member, examples: Examples) -> None:
    """Let a network whose initial weights depend on the data see 5,000 of its own training examples, or all.

    Evenly spread, since some data sets lie sorted by class.
    """
    spread = np.linspace(0, len(member.subset) - 1, min(PREPARE_ROWS, len(member.subset))).astype(int)
    rows = torch.from_numpy(member.subset[spread]).to(examples.labels.device)
    network.prepare(examples.batch(rows))


@contextmanager
def own_randomness(recipe: Recipe, member: Member) -> Iterator[None]:
    """Torch's global generators, seeded for one member and put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(recipe.stream("dropout", *member.words).integers(2**63)))
        yield
