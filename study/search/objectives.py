"""What a trial trains and by what it is scored.  in: a recipe, a Dataset   out: Jobs; Reports of their results"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from study.data import Dataset
from study.errors import RecipeError
from study.recipe import Recipe
from study.runs.jobs import template_of
from study.scores import cscore
from study.scores.cscore import Profile
from study.scores.subsets import block_length, percent, subset_mask
from study.training.results import Evaluation, Failure, Outcome, Result, Validation
from study.training.types import Job

REPORTS = 100  # of one trial at most: a training of two thousand short epochs is not evaluated after each


def validation_rows(recipe: Recipe, dataset: Dataset) -> np.ndarray:
    """(v,) rows, sorted: the same share of the training rows of every class, fixed by the seed.

    No trial trains on them; test rows are never among them.

    Raises:
        RecipeError: a share that leaves nothing to evaluate on or to train on.
    """
    rng = recipe.stream("search", "validation")
    labels = dataset.labels[dataset.rows("train")]
    shuffled = rng.permutation(dataset.n_train)
    parts = []
    for label in range(dataset.n_classes):
        rows = shuffled[labels[shuffled] == label]
        parts.append(rows[: round(recipe.search.validation * len(rows))])
    rows = np.sort(np.concatenate(parts))
    if not 0 < len(rows) < dataset.n_train:
        raise RecipeError(
            f"search.validation = {recipe.search.validation}: of {dataset.n_train} examples "
            f"{len(rows)} are to evaluate on; at least one of a class and not all"
        )
    return rows


@dataclass(frozen=True)
class Report:
    """What a trial has come to.

    step: epochs, or whatever the objective counts.
    value: by which the trial is scored; NaN when a network has left the finite numbers.
    numbers: beside it, by the name under which they are logged.
    last: the trial is over.
    fault: why it cannot go on, such as too little memory; the value is then NaN.
    """

    step: int
    value: float
    numbers: Mapping[str, float] = field(default_factory=dict)
    last: bool = False
    fault: str | None = None


def with_clean_labels(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The data with the labels before the noise in some rows, (v,), where they are known; a score judged by noise would
    choose what fits the noise.
    """
    if dataset.labels_before_noise is None:
        return dataset
    labels = dataset.labels.copy()
    labels[rows] = dataset.clean_labels[rows]
    return replace(dataset, labels=labels)


class Accuracy:
    """One network on the training rows without the validation rows, scored by its accuracy on these after each epoch.

    With label noise the validation rows have the labels before the noise; the network trains on noisy ones.

    All trials draw their initial weights and batch orders from the same streams, those named ("search",): they differ
    in their hyper-parameters alone, and a trial that is repeated gives the same bits.
    """

    metric = "val/accuracy"

    def __init__(self, recipe: Recipe, dataset: Dataset, rows: np.ndarray) -> None:
        self.dataset = with_clean_labels(dataset, rows)
        self.rows = np.setdiff1d(np.arange(dataset.n_train), rows)
        self.test = np.arange(dataset.n_train, dataset.n)
        self.validation: Validation | None = Validation(rows, final=self.test if dataset.n_test else rows)
        self.at_end: dict[int, Report] = {}  # of trials whose Outcome is awaited

    def jobs(self, key: object, recipe: Recipe) -> list[Job]:
        """The network of one trial."""
        return [template_of(recipe).job(("search",), self.rows, key=key)]

    def length(self, recipe: Recipe) -> int:
        """The last step of a trial: its epochs."""
        return recipe.train.length(len(self.rows))[0]

    def seen(self, recipe: Recipe) -> int:
        """Examples that a trial takes in when nobody ends it."""
        return recipe.train.seen(len(self.rows))

    def report(self, job: Job, result: Result) -> Report | None:
        """A Report per epoch that is due, with val/accuracy, val/loss, train/loss.

        After the last one it waits for the Outcome and says test/accuracy too, where there are test rows.
        """
        if isinstance(result, Failure):
            return Report(0, float("nan"), fault=result.reason)
        if isinstance(result, Outcome):
            report = self.at_end.pop(id(job))
            test = {"test/accuracy": float((result.prediction == self.dataset.labels[self.test]).mean())}
            numbers = {**report.numbers, **(test if self.dataset.n_test else {})}
            return Report(report.step, report.value, numbers, last=True)
        numbers = {"val/accuracy": result.accuracy, "val/loss": result.loss, "train/loss": result.train_loss}
        report = Report(result.epoch, result.accuracy if result.finite else float("nan"), numbers)
        if not (result.last and result.finite):
            return report
        self.at_end[id(job)] = report
        return None


class Reliability:
    """A small subset ensemble, judged by the split-half reliability of its C-scores: the ranking at a fixed budget.

    The soft score is taken: with so few members the hard one is tied at a handful of values.  Blocks of members are
    trained at all subset ratios in turn, and the reliability of those so far is reported after each block from the
    second on; reports of the same number of members compare with each other, not with the last.
    """

    metric = "reliability/half_soft"

    validation: Validation | None = None

    def __init__(self, recipe: Recipe, dataset: Dataset, rows: np.ndarray) -> None:
        self.dataset = dataset
        self.profiles: dict[int, Profile] = {}  # by the id of a trial's key
        self.done: dict[int, int] = {}
        subset, count = recipe.subset, recipe.search.members
        self.ratios, self.design, self.members = subset.ratios, subset.design, count
        self.min_class = subset.min_class
        balanced = subset.design == "balanced"
        self.block = max(block_length(ratio) for ratio in subset.ratios) if balanced else 1
        halves = [2 * (block_length(ratio) if balanced else 1) for ratio in subset.ratios]
        wrong = [ratio for ratio, whole in zip(subset.ratios, halves, strict=True) if count % whole]
        if wrong:
            whole = halves[subset.ratios.index(wrong[0])]
            raise RecipeError(
                f"search.members = {count}: at {percent(wrong[0])} % a {subset.design} design has halves in steps of "
                f"{whole} members; take {-(-count // whole) * whole}, or subset.design = 'uniform'"
            )

    def jobs(self, key: object, recipe: Recipe) -> list[Job]:
        """The members of one trial, block by block, all ratios in turn."""
        template, jobs = template_of(recipe), []
        groups = self.dataset.train_duplicates if recipe.subset.group_duplicates else ()
        self.profiles.pop(id(key), None)
        self.done[id(key)] = 0
        for low in range(0, recipe.search.members, self.block):
            for ratio in recipe.subset.ratios:
                for number in range(low, min(low + self.block, recipe.search.members)):
                    design = recipe.subset.design
                    mask = subset_mask(recipe.stream, ratio, number, self.dataset.n_train, design, groups)
                    jobs.append(template.job(("search", str(ratio), number), np.flatnonzero(mask), key=key))
        return jobs

    def length(self, recipe: Recipe) -> int:
        """The last step of a trial: its members at each ratio."""
        return recipe.search.members

    def seen(self, recipe: Recipe) -> int:
        """Examples that a trial takes in when nobody ends it."""
        sizes = [round(ratio * self.dataset.n_train) for ratio in recipe.subset.ratios]
        return recipe.search.members * sum(recipe.train.seen(size) for size in sizes)

    def report(self, job: Job, result: Result) -> Report | None:
        """Fold a member; a Report per block, step = members at each ratio so far."""
        if isinstance(result, Failure):
            return Report(0, float("nan"), fault=result.reason)
        if isinstance(result, Evaluation):
            return None
        trial, (_, ratio, number) = id(job.key), map(str, job.name)
        part = self._fold(job, float(ratio), int(number), result)
        profile = self.profiles[trial] = self.profiles[trial] + part if trial in self.profiles else part
        self.done[trial] += 1
        done, per_block = self.done[trial], self.block * len(self.ratios)
        step = min(done // per_block * self.block, self.members)
        last = done == self.members * len(self.ratios)
        if not last and (done % per_block or step <= self.block):
            return None
        halves = cscore.reliability(profile, slice(0, self.dataset.n_train))
        numbers = {self.metric: halves.soft.value, "reliability/half": halves.hard.value}
        return Report(self.members if last else step, halves.soft.value, numbers, last)

    def _fold(self, job: Job, ratio: float, number: int, outcome: Outcome) -> Profile:
        mask = np.zeros((1, self.dataset.n), dtype=bool)
        mask[0, job.rows] = True
        return cscore.shard_profile(
            mask,
            outcome.prediction[None].astype(np.int64),
            outcome.confidence[None],
            self.dataset.labels,
            ratio,
            [number],
            self.dataset.n_classes,
            design=self.design,
            min_class=self.min_class,
        )


Objective = Accuracy | Reliability
OBJECTIVES = {"accuracy": Accuracy, "reliability": Reliability}
