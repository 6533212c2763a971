"""Where the shards of an ensemble are trained: here, or as tasks on a Ray cluster.  in: shards   out: ShardResults

The launch that asks for them writes their runs; nobody else writes anything.
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from study.data import Dataset
from study.recipe import Recipe
from study.runs.jobs import EnsemblePlan, ensemble_plan, runtime_of
from study.runs.members import Shard, by_size, place_ensemble, train_shards
from study.runs.shard_runs import ShardResult, shard_result
from study.training.results import Hooks


class Engine(Protocol):
    """A way to train shards."""

    def place(self, shards: Sequence[Shard], like: Mapping[str, str]) -> dict[str, str]:
        """Choose how they are trained; the tags that say so."""
        ...

    def train(self, hooks: Hooks) -> Generator[ShardResult]:
        """Train the shards that were placed, each given as soon as it is trained.

        Raises:
            Stopped: `hooks.stop` was set.
        """
        ...


@dataclass
class Here:
    """This machine: threads, stacks, and a process for each of several devices."""

    recipe: Recipe
    plan: EnsemblePlan
    dataset: Dataset

    def place(self, shards: Sequence[Shard], like: Mapping[str, str]) -> dict[str, str]:
        """See `Engine`."""
        placement = place_ensemble(self.plan, self.dataset, runtime_of(self.recipe), shards, like)
        self.shards, self.placement = by_size(shards, placement)
        return self.placement.tags()

    def train(self, hooks: Hooks) -> Generator[ShardResult]:
        """See `Engine`; shards come in order."""
        started = time.time()
        with closing(train_shards(self.plan, self.shards, self.dataset, self.placement, hooks)) as trained:
            for part in trained:
                yield shard_result(part, self.dataset, self.placement, started)
                started = time.time()


@contextmanager
def engine_of(recipe: Recipe, dataset: Dataset) -> Iterator[Engine]:
    """The engine that a recipe asks for (`runtime.engine`)."""
    plan = ensemble_plan(recipe)
    if recipe.runtime.engine == "local":
        yield Here(recipe, plan, dataset)
        return
    from study.runs.ray_engine import cluster

    with cluster(recipe, plan, dataset) as engine:
        yield engine
