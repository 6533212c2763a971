"""A recipe turned into what trains.  in: a Recipe   out: a JobTemplate, plans of ensembles and single runs

Everything below `runs` sees these plans and the Jobs that they make, never a Recipe; the Python API makes them without
one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from study.data import Dataset
from study.data.values import training_values
from study.errors import DataError
from study.models.spec import NetworkSpec
from study.recipe import Recipe
from study.recipe.schema import SAMPLING
from study.recipe.sections import Train
from study.scores.subsets import subset_mask, subset_size
from study.training.types import Job, JobTemplate, OptimizerSpec, RuntimeSpec, Sampling, ScheduleSpec, TrainSpec


@dataclass(frozen=True)
class EnsemblePlan:
    """A subset ensemble (J-alg1, J-integral): which members there are and what they train on.

    ratios: shares of the training rows, rising, each a whole percentage.
    members: at each ratio.
    design: "balanced" or "uniform", see `scores.subsets.subset_mask`.
    depth: whether members keep the prediction depths of all examples (B-fig7).
    min_class: see `scores.cscore.shard_profile`.
    group_duplicates: whether members hold out the copies of an image together.
    """

    template: JobTemplate = field(default_factory=JobTemplate)
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    members: int = 20
    design: str = "balanced"
    depth: bool = False
    min_class: int = 1
    group_duplicates: bool = False

    def mask(self, ratio: float, member: int, dataset: Dataset) -> np.ndarray:
        """(n,) bool: the rows that a member trains on; never a test row."""
        mask = np.zeros(dataset.n, dtype=bool)
        groups = dataset.train_duplicates if self.group_duplicates else ()
        mask[: dataset.n_train] = subset_mask(self.template.stream, ratio, member, dataset.n_train, self.design, groups)
        return mask

    def job(self, ratio: float, member: int, mask: np.ndarray) -> Job:
        """One member on the rows of its mask; its key is (ratio, member)."""
        return self.template.job(("member", str(ratio), member), np.flatnonzero(mask), key=(ratio, member))

    def examples(self, ratio: float, members: Sequence[int], n_train: int) -> int:
        """How many examples these members of one ratio take in while they train, over all epochs."""
        sizes = (subset_size(ratio, member, n_train, self.design) for member in members)
        return sum(self.template.training.seen(size) for size in sizes)


@dataclass(frozen=True)
class Evaluations:
    """When a single run is evaluated, in epochs: all examples, and the costly signals; the last epoch always is.

    evaluate_steps: steps between two records of the predicted classes; None: at the evaluated epochs.
    """

    evaluate_every: int = 1
    signals_every: int = 1
    evaluate_steps: int | None = None


@dataclass(frozen=True)
class SinglePlan:
    """A single run on all training rows: what it trains and which proxies are computed.

    single: when it is evaluated.
    proxies, signals: settings by name, as in a recipe's tables; no proxies: those that cost little.
    sampling: the table that says in which order or how often examples are taken; None: each once an epoch.
    """

    template: JobTemplate = field(default_factory=JobTemplate)
    single: Evaluations = Evaluations()
    proxies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    signals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sampling: Train | None = None

    @property
    def model(self) -> NetworkSpec:
        """The network."""
        return self.template.network

    @property
    def train(self) -> TrainSpec:
        """Length and batches."""
        return self.template.training

    def stream(self, *name: object) -> np.random.Generator:
        """See `JobTemplate.stream`."""
        return self.template.stream(*name)

    def job(self, repeat: int, dataset: Dataset) -> Job:
        """The network of one repeat; its key is the repeat."""
        job = self.template.job(("single", repeat), np.arange(dataset.n_train), key=repeat)
        return replace(job, sampling=sampling_of(self.sampling, dataset)) if self.sampling else job


def template_of(recipe: Recipe) -> JobTemplate:
    """What all jobs of one part of a recipe have in common."""
    return JobTemplate(
        network=recipe.model.spec(),
        optimizer=OptimizerSpec(**recipe.optimizer.model_dump()),
        schedule=ScheduleSpec(**recipe.schedule.model_dump()),
        training=TrainSpec(**recipe.train.model_dump(exclude=SAMPLING)),
        seed=recipe.seed,
    )


def ensemble_plan(recipe: Recipe) -> EnsemblePlan:
    """The ensemble of a recipe."""
    recipe = recipe.part("ensemble")
    subset = recipe.subset
    return EnsemblePlan(template_of(recipe), **subset.model_dump(exclude={"until"}))


def single_plan(recipe: Recipe) -> SinglePlan:
    """The single runs of a recipe."""
    recipe = recipe.part("single")
    single = Evaluations(recipe.single.evaluate_every, recipe.single.signals_every, recipe.single.evaluate_steps)
    sampling = recipe.train if recipe.train.samples else None
    return SinglePlan(template_of(recipe), single, recipe.proxies, recipe.signals, sampling)


def sampling_of(train: Train, dataset: Dataset) -> Sampling:
    """Order and weights of the training examples, with what their files hold.

    Raises:
        DataError: a file that does not fit the data, a weight below 0, no weight above 0.
    """
    scores = training_values(dataset, Path(train.scores), "score") if train.scores else None
    weights = training_values(dataset, Path(train.weights), "weight") if train.weights else None
    if weights is not None and (weights.min() < 0 or not weights.any()):
        raise DataError(f"{train.weights}: weights are 0 or more, and some are above 0")
    return Sampling(train.order, train.pacing, train.pacing_start, train.pacing_end, scores, weights)


def runtime_of(recipe: Recipe) -> RuntimeSpec:
    """Where its jobs run."""
    return RuntimeSpec(**recipe.runtime.model_dump(exclude={"shard", "engine"}))
