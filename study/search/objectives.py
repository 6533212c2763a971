"""What a trial trains and by what it is judged.  in: a recipe, a Dataset   out: members, marks"""

from collections.abc import Iterator

import numpy as np

from study.data import Dataset
from study.errors import RecipeError
from study.recipe import Recipe
from study.scores import cscore
from study.scores.cscore import Profile
from study.scores.subsets import block_length, percent, subset_mask
from study.training.engines.trial_threads import Entry, Mark, Trainings
from study.training.job import AnyOf, Member

REPORTS = 100  # of one trial at most: a training of two thousand short epochs is not judged after each


def validation_rows(recipe: Recipe, dataset: Dataset) -> np.ndarray:
    """(v,) rows, sorted: the same share of the training rows of every class, fixed by the seed.

    No trial trains on them; test rows are never among them.

    Raises:
        RecipeError: a share that leaves nothing to judge on or to train on.
    """
    rng = recipe.stream("search", "validation")
    labels = dataset.labels[dataset.rows("train")]
    shuffled = rng.permutation(dataset.n_train)
    kept = []
    for label in range(dataset.n_classes):
        rows = shuffled[labels[shuffled] == label]
        kept.append(rows[: round(recipe.search.validation * len(rows))])
    rows = np.sort(np.concatenate(kept))
    if not 0 < len(rows) < dataset.n_train:
        raise RecipeError(
            f"search.validation = {recipe.search.validation}: of {dataset.n_train} examples "
            f"{len(rows)} are to judge on; at least one of a class and not all"
        )
    return rows


class Accuracy:
    """One network on the training rows without the validation rows, judged by its accuracy on these after each epoch.

    All trials draw their initial weights and batch orders from the same streams, the words ("search",): they differ in
    their hyper-parameters alone, and a trial that is repeated gives the same bits.
    """

    metric = "val/accuracy"

    def __init__(self, recipe: Recipe, dataset: Dataset, trainings: Trainings) -> None:
        self.trainings = trainings
        rows = np.setdiff1d(np.arange(dataset.n_train), trainings.judged)
        self.member = Member(("search",), rows)

    def entry(self, key: object, recipe: Recipe) -> Entry:
        """The network of one trial."""
        return Entry(key, recipe, [self.member])

    def length(self, recipe: Recipe) -> int:
        """The last step of a trial: its epochs."""
        return recipe.train.length(len(self.member.subset))[0]

    def seen(self, recipe: Recipe) -> int:
        """Examples that a trial takes in when nobody ends it."""
        return recipe.train.seen(len(self.member.subset))

    def marks(self, entry: Entry, stop: AnyOf) -> Iterator[Mark]:
        """See `Trainings.epochs`."""
        return self.trainings.epochs(entry, stop)


class Reliability:
    """A small subset ensemble, judged by the split-half reliability of its C-scores: the ranking at a fixed budget.

    The soft score is taken: with so few members the hard one is tied at a handful of values.  Blocks of members are
    trained at all subset ratios in turn, and the reliability of those so far is reported after each block from the
    second on; reports of the same number of members compare with each other, not with the last.
    """

    metric = "reliability/half_soft"

    def __init__(self, recipe: Recipe, dataset: Dataset, trainings: Trainings) -> None:
        self.dataset, self.trainings = dataset, trainings
        subset, count = recipe.subset, recipe.search.members
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

    def entry(self, key: object, recipe: Recipe) -> Entry:
        """The members of one trial, block by block, all ratios in turn."""
        members = []
        for low in range(0, recipe.search.members, self.block):
            for ratio in recipe.subset.ratios:
                for number in range(low, min(low + self.block, recipe.search.members)):
                    mask = subset_mask(recipe.stream, ratio, number, self.dataset.n_train, recipe.subset.design)
                    members.append(Member(("search", str(ratio), number), np.flatnonzero(mask)))
        return Entry(key, recipe, members)

    def length(self, recipe: Recipe) -> int:
        """The last step of a trial: its members at each ratio."""
        return recipe.search.members

    def seen(self, recipe: Recipe) -> int:
        """Examples that a trial takes in when nobody ends it."""
        sizes = [round(ratio * self.dataset.n_train) for ratio in recipe.subset.ratios]
        return recipe.search.members * sum(recipe.train.seen(size) for size in sizes)

    def marks(self, entry: Entry, stop: AnyOf) -> Iterator[Mark]:
        """Train the members; a mark per block, step = members at each ratio so far."""
        recipe, profile = entry.recipe, None
        per_block = self.block * len(recipe.subset.ratios)
        for done, member in enumerate(entry.members, 1):
            part = self._fold(recipe, member, stop)
            profile = part if profile is None else profile + part
            step = min(done // per_block * self.block, recipe.search.members)
            last = done == len(entry.members)
            if last or (done % per_block == 0 and step > self.block):
                halves = cscore.reliability(profile, slice(0, self.dataset.n_train))
                numbers = {self.metric: halves.soft.value, "reliability/half": halves.hard.value}
                yield Mark(recipe.search.members if last else step, halves.soft.value, numbers, last)

    def _fold(self, recipe: Recipe, member: Member, stop: AnyOf) -> Profile:
        _, ratio, number = member.words
        outcome = self.trainings.outcome(recipe, member, stop)
        mask = np.zeros((1, self.dataset.n), dtype=bool)
        mask[0, member.subset] = True
        return cscore.shard_profile(
            mask,
            outcome.prediction[None].astype(np.int64),
            outcome.confidence[None],
            self.dataset.labels,
            float(ratio),
            [number],
            self.dataset.n_classes,
            design=recipe.subset.design,
        )


OBJECTIVES = {"accuracy": Accuracy, "reliability": Reliability}
