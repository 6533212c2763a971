"""MLPs that differ in rate, momentum, decay, schedule, trained as one stack.  in: what to train next   out: marks

As `slots`, for a GPU: a place is a row of the stack.  All rows make their passes in step; a row whose training has
ended takes the next one at the end of a pass, with fresh weights and a count of its own, or stands still.
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from study.errors import Stopped
from study.models.build import create
from study.recipe import Recipe
from study.training.device_data import Examples
from study.training.engines.trial_threads import Ask, Entry, Mark, Tell, Trainings, judge
from study.training.job import Member, stackable
from study.training.loop import drawn
from study.training.mlp import MLPLearner
from study.training.schedules import rate_factor

NUMBERS = ("lr", "momentum", "weight_decay", "beta2", "eps")  # of an optimizer: each row may have its own


@dataclass
class Row:
    """A place of the stack: whose training it holds, and how many passes that has made."""

    entry: Entry
    epoch: int = 0

    @property
    def member(self) -> Member:
        """Its one network."""
        return self.entry.members[0]

    def order(self) -> np.ndarray:
        """(n_subset,) row numbers in the order of the next pass."""
        (order,) = drawn(self.member, self.entry.recipe, self.epoch)
        return order

    def rates(self, edges: Sequence[int]) -> list[float]:
        """The learning rate of each step of the next pass; 0 beyond the last step of the training."""
        recipe, per_pass = self.entry.recipe, len(edges) - 1
        _, steps = recipe.train.length(len(self.member.subset))
        numbers = range(self.epoch * per_pass, (self.epoch + 1) * per_pass)
        return [
            recipe.optimizer.lr * rate_factor(recipe.schedule, number, steps, per_pass) if number < steps else 0.0
            for number in numbers
        ]


def one_stack(recipes: Iterable[Recipe]) -> bool:
    """Whether these recipes can train as one stack: MLPs that differ in `NUMBERS` and schedule alone.

    Inputs that are drawn anew, cropped, flipped or perturbed have a training of their own.
    """
    plain, alike = [], set()
    for recipe in recipes:
        train = recipe.train
        drawn = train.pad or train.flip or train.input_noise or train.input_dropout or train.adversarial
        plain.append(stackable(recipe) and not drawn)
        told = recipe.part("ensemble").training()
        told["optimizer"] = {key: value for key, value in told["optimizer"].items() if key not in NUMBERS}
        told["schedule"] = None
        alike.add(repr(told))
    return all(plain) and len(alike) == 1


def train_stack(
    ask: Ask,
    tell: Tell,
    trainings: Trainings,
    size: int,
    *,
    stop: threading.Event,
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Keep up to `size` rows at work until there is nothing more to train.

    Args:
        ask: gives the next training, or None; its recipe may differ from the others' as `one_stack` says.
        tell: hears each mark; False ends that training.
        trainings: what all have in common; its `placement` says where.
        size: rows of the stack.
        stop: set to end.
        idle: called after each pass.

    Raises:
        Stopped: `stop` was set.
    """
    first = [Row(entry) for entry in itertools.islice(iter(ask, None), size)]
    if not first:
        return
    rows: list[Row | None] = list(first)
    learner, examples = _learner(first, trainings), trainings.examples(first[0].entry.recipe)
    judged = torch.from_numpy(trainings.judged).to(trainings.placement.device)
    while any(rows):
        losses = _train_pass(learner, rows, examples, trainings, stop)
        found = judge(learner, examples, judged)
        for place, row in enumerate(rows):
            if row is not None and _is_over(row, losses[place], found[place], place, learner, trainings, tell):
                entry = ask()
                rows[place] = entry and Row(entry)
                if entry:
                    learner.reset(place, _network(rows[place], trainings), entry.recipe.optimizer)
        idle()


def _is_over(
    row: Row,
    loss: float,
    found: tuple[float, float],
    place: int,
    learner: MLPLearner,
    trainings: Trainings,
    tell: Tell,
) -> bool:
    """Tell of the pass, when it is due; whether the training of this row ends here."""
    row.epoch += 1
    passes, _ = row.entry.recipe.train.length(len(row.member.subset))
    last, finite = row.epoch == passes, bool(np.isfinite([loss, found[1]]).all())
    if not last and finite and row.epoch % trainings.every:
        return False
    numbers = {"val/accuracy": found[0], "val/loss": found[1], "train/loss": loss}
    if last and finite and trainings.dataset.n_test:
        test = torch.arange(trainings.dataset.n_train, trainings.dataset.n, device=trainings.placement.device)
        numbers["test/accuracy"] = judge(learner, trainings.examples(row.entry.recipe), test)[place][0]
    goes_on = tell(row.entry, Mark(row.epoch, found[0] if finite else float("nan"), numbers, last and finite))
    return last or not goes_on


def _train_pass(
    learner: MLPLearner,
    rows: Sequence[Row | None],
    examples: Examples,
    trainings: Trainings,
    stop: threading.Event,
) -> list[float]:
    """One pass of every row over its subset, in its own order; (K,) mean losses before the steps."""
    some = next(row for row in rows if row)
    edges = some.entry.recipe.train.edges(len(some.member.subset))
    device = trainings.placement.device
    order = torch.from_numpy(np.stack([(row or some).order() for row in rows])).to(device)
    still = [0.0] * (len(edges) - 1)
    rates = torch.tensor([row.rates(edges) if row else still for row in rows], dtype=torch.float64, device=device)
    total = torch.zeros(learner.stack, dtype=learner.weights.dtype, device=device)
    seen = torch.zeros_like(total)
    labels = examples.labels[order]
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        if stop.is_set():
            raise Stopped
        rate = rates[:, number]
        shape = (slice(None), slice(low, high)) if learner.stack > 1 else (0, slice(low, high))
        loss = learner.step(examples.batch(order[shape]), labels[shape], rate if learner.stack > 1 else float(rate))
        counted = (rate > 0) * float(high - low)
        total += torch.where(rate > 0, loss, 0.0) * counted
        seen += counted
        trainings.progress((high - low) * sum(row is not None for row in rows))
    return (total / seen).tolist()


def _network(row: Row, trainings: Trainings) -> torch.nn.Module:
    recipe, dataset = row.entry.recipe, trainings.dataset
    seed = int(recipe.stream("init", *row.member.words).integers(2**63))
    return create(recipe.model.spec(), dataset.shape, dataset.n_classes, seed=seed)


def _learner(rows: Sequence[Row], trainings: Trainings) -> MLPLearner:
    placement, recipe = trainings.placement, rows[0].entry.recipe
    return MLPLearner(
        [_network(row, trainings) for row in rows],
        [row.entry.recipe.optimizer for row in rows],
        placement.device,
        placement.master,
        placement.compute,
        loss=recipe.train.loss,
    )
