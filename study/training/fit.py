"""Fit many networks side by side.  in: members, a Dataset, a recipe, a Placement   out: an Outcome per member, in order

`fit` is the one function that the rest of the house calls.  A member is named by words; its initial weights, batch
order and augmentation are drawn from the recipe's streams of these words, so they do not depend on how it was placed.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.errors import Stopped
from study.models.build import create, draws_random_numbers
from study.recipe import Recipe
from study.training.cuda_graphs import RECORDING
from study.training.device_data import Examples
from study.training.engines import mlp_native
from study.training.engines.multi_device import deal
from study.training.engines.stacked import convey, in_background
from study.training.engines.threads import Train, side_by_side
from study.training.evaluation import Learner, Snapshot, look
from study.training.job import AnyOf, Hooks, Member, Outcome, stackable
from study.training.loop import train_epoch
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.placement import Placement, float32_routing, operation_threads

__all__ = ["Hooks", "Member", "Outcome", "Snapshot", "Stopped", "fit", "stackable"]

PREPARE_ROWS = 5000
DEALT = 64  # outcomes of several devices that wait for the caller


def fit(
    members: Iterable[Member], dataset: Dataset, recipe: Recipe, placement: Placement, hooks: Hooks | None = None
) -> Iterator[Outcome]:
    """Train every member and look at all examples with it.

    Args:
        members: consumed lazily, a few ahead of the training.
        dataset: n examples.
        recipe: model, optimizer, schedule, train and the random streams.
        placement: device or devices, precision, how many at a time.
        hooks: progress, end of epochs (for members that train alone), stop.

    Yields:
        One Outcome per member, in the members' order.

    Raises:
        Stopped: `hooks.stop` was set.
        RecipeError: not even one network, or two rows of a stack, fit into the device's memory.
        StudyError: the process of one of several devices has died.
    """
    hooks, abandoned = hooks or Hooks(), threading.Event()
    heard = replace(hooks, stop=AnyOf(hooks.stop, abandoned))
    if placement.devices and hooks.after_epoch is None:
        dealt = deal(members, dataset, recipe, placement, heard)
        with closing(in_background(dealt, DEALT, abandoned)) as told:
            yield from told
        return
    random = draws_random_numbers(recipe.model.spec(), dataset.shape, dataset.n_classes)
    if random:  # dropout draws from torch's one generator: side by side the draws would mix
        placement = placement.alone(wide=not stackable(recipe))
    threads_before = torch.get_num_threads()
    dtype = placement.compute if stackable(recipe) else placement.master
    examples = Examples(dataset, recipe.train, placement.device, dtype)
    try:
        with float32_routing(placement.matmul):
            if placement.stack > 1 and stackable(recipe) and hooks.after_epoch is None:
                finished = convey(members, examples, dataset, recipe, placement, heard)
                with closing(in_background(finished, placement.stack, abandoned)) as told:
                    yield from (each.outcome() for each in told)
            else:
                train = _way(examples, dataset, recipe, placement, random)
                with closing(side_by_side(members, train, placement, heard)) as told:
                    yield from told
    finally:
        torch.set_num_threads(threads_before)


def _way(examples: Examples, dataset: Dataset, recipe: Recipe, placement: Placement, random: bool) -> Train:
    """How one member trains alone, in whatever thread."""
    own = threading.local()  # steps are captured in the stream of their thread, for all networks that it trains

    def train(member: Member, hooks: Hooks) -> Outcome:
        torch.set_num_threads(placement.cores)
        spare = own.__dict__.setdefault("spare", []) if captures(placement, hooks, random) else None
        with own_randomness(recipe, member) if random else nullcontext():
            return _fit_alone(member, examples, dataset, recipe, placement, hooks, spare)

    return train


def captures(placement: Placement, hooks: Hooks, random: bool) -> bool:
    """Whether steps are captured: on a GPU, unless somebody works with a network's gradients between two passes."""
    return placement.device != "cpu" and hooks.after_epoch is None and not random


def _fit_alone(
    member: Member,
    examples: Examples,
    dataset: Dataset,
    recipe: Recipe,
    placement: Placement,
    hooks: Hooks,
    spare: list[Learner] | None,
) -> Outcome:
    start = time.perf_counter()
    learner = new_learner([member], examples, dataset, recipe, placement, spare)
    losses: list[float] = []
    passes, _ = recipe.train.length(len(member.subset))
    ended = _ended(learner, member, examples, placement, hooks, 0)
    for epoch in range(passes):
        if ended:
            break
        online = torch.zeros(examples.n, dtype=torch.bool, device=placement.device) if hooks.online else None
        losses.append(train_epoch(learner, member, examples, recipe, epoch, hooks, online))
        ended = _ended(learner, member, examples, placement, hooks, epoch + 1, online)
    outcome = look(learner, examples)
    if spare is not None:
        spare.append(learner)
    outcome.losses, outcome.epochs, outcome.seconds = losses, len(losses), time.perf_counter() - start
    return outcome


def _ended(
    learner: Learner,
    member: Member,
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
        return bool(hooks.after_epoch(member, epoch, Snapshot(learner, examples, online)))


def new_learner(
    group: Sequence[Member],
    examples: Examples,
    dataset: Dataset,
    recipe: Recipe,
    placement: Placement,
    spare: list[Learner] | None = None,
) -> Learner:
    """One learner for members that train as a stack, or for one that trains alone; initial weights are their own.

    `spare` has learners that members of the same recipe need no more: a network takes the place of theirs.
    """
    seeds = [int(recipe.stream("init", *member.words).integers(2**63)) for member in group]
    networks = [create(recipe.model.spec(), dataset.shape, dataset.n_classes, seed=seed) for seed in seeds]
    where = (placement.device, placement.master, placement.compute)
    if stackable(recipe):
        if placement.kernel == "native" and len(group) == 1 and mlp_native.trains(recipe.optimizer, placement.compute):
            batch = max(np.diff(recipe.train.edges(len(group[0].subset))))
            return mlp_native.NativeLearner(
                networks[0], recipe.optimizer, *where[1:], int(batch), loss=recipe.train.loss
            )
        return MLPLearner(networks, recipe.optimizer, *where, loss=recipe.train.loss)
    network = networks[0].to(placement.device, placement.master)
    if hasattr(network, "prepare"):
        with RECORDING if placement.device != "cpu" else nullcontext():  # solvers may wait for the whole device
            _prepare(network, group[0], examples)
    if spare:
        learner = spare.pop()
        learner.load(network)
        return learner
    way = {"loss": recipe.train.loss, "layout": placement.layout, "captured": spare is not None}
    return ModuleLearner(network, recipe.optimizer, *where, **way)


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
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(recipe.stream("dropout", *member.words).integers(2**63)))
        yield
