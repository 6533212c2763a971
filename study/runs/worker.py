"""A worker: trains shards that nobody else trains.  in: a recipe, a Dataset, a folder   out: files of trained shards

Any number of workers on any number of machines share an ensemble by a folder that all see.  A worker claims a shard
when it has room for one, so that a faster machine trains more, and gives back what it has claimed when it is stopped.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from study.data import Dataset
from study.errors import RecipeError, Stopped
from study.progress import Bar, duration, quiet, say
from study.recipe import Recipe
from study.runs.jobs import EnsemblePlan, ensemble_plan, runtime_of
from study.runs.members import Shard, by_size, place_ensemble, plan_shards, train_shards
from study.runs.shard_runs import shard_result
from study.runs.work_folder import WorkFolder, unit_name
from study.training.placement import Placement, placed
from study.training.results import Hooks

POLL = 1.0  # seconds between two looks at the claims of others
Finished = Callable[[], tuple[set[tuple[float, int]], dict[str, str]]]


@dataclass
class Worker:
    """One process that trains shards of an ensemble.

    until: seconds since 1970 after which it begins no shard that would not end in time; None: no limit.
    stop: ends the training under way; its shards go back to all.
    stay: whether it waits for shards that others train, to take over those of a worker that dies.
    """

    folder: WorkFolder
    plan: EnsemblePlan
    dataset: Dataset
    shards: list[Shard]
    placement: Placement
    until: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    stay: bool = True
    begun: dict[str, float] = field(default_factory=dict)
    longest: float = 0.0  # seconds from the claim of a shard to its end
    count: int = 0  # shards that it has trained

    def work(self, advance: Callable[[int], None]) -> None:
        """Train until no shard is left, or no time.

        Raises:
            Stopped: `stop` was set; what was under way is given back.
        """
        try:
            while self.folder.planned and not self._late():
                if first := self._claim():
                    self._train(first, advance)
                elif not self._free() or not self.stay:
                    return
                elif self.stop.wait(POLL):
                    raise Stopped
        finally:
            self.folder.claims.close()

    def _train(self, first: Shard, advance: Callable[[int], None]) -> None:
        """Train this shard, and others as there is room for them."""
        host = socket.gethostname()
        for trained in train_shards(
            self.plan, self._claimed(first), self.dataset, self.placement, Hooks(advance, stop=self.stop)
        ):
            name = unit_name(trained.shard)
            began = self.begun.pop(name)
            if not self.folder.claims.holds(name):
                say(f"shard {name}: this worker was silent and another has taken it over")
                continue
            self.folder.keep(shard_result(trained, self.dataset, self.placement, began, host))
            self.folder.claims.end(name, "done")
            self.longest = max(self.longest, time.time() - began)
            self.count += 1

    def _claimed(self, first: Shard) -> Iterator[Shard]:
        yield first
        while self.folder.planned and not self.stop.is_set() and not self._late():
            shard = self._claim()
            if shard is None:
                return
            yield shard

    def _claim(self) -> Shard | None:
        """Claim a shard that nobody trains or has trained."""
        for shard in self._free():
            name = unit_name(shard)
            if name not in self.begun and self.folder.claims.take(name):
                self.begun[name] = time.time()
                return shard
        return None

    def _free(self) -> list[Shard]:
        """The shards that are not trained."""
        trained = self.folder.trained()
        return [shard for shard in self.shards if unit_name(shard) not in trained]

    def left(self) -> int:
        """How many shards nobody trains, for want of time."""
        if not self.folder.planned or not self._late():
            return 0
        holders = self.folder.claims.holders()
        return sum(unit_name(shard) not in holders for shard in self._free())

    def _late(self) -> bool:
        """Whether a shard that begins now would not end in time."""
        return self.until is not None and time.time() + 1.2 * self.longest > self.until


def run_worker(
    recipe: Recipe,
    dataset: Dataset,
    folder: WorkFolder,
    finished: Finished,
    *,
    until: float | None = None,
    stay: bool = True,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> tuple[int, int]:
    """Train shards of an ensemble that nobody else trains, until none is left.

    Args:
        recipe: its `ensemble` part is used.
        dataset: train rows are drawn from, test rows are always held out.
        folder: that the workers share.
        finished: called by the worker that comes first: the (ratio, member) that need no training, and the tags that
            say how they were trained.
        until: seconds since 1970 after which no shard is begun that would not end in time.
        stay: wait for shards that other workers train, to take over those of one that dies.
        stop: set to end after the step under way and give back what was claimed.
        bar: display of the progress of this worker.

    Returns:
        How many shards it has trained, and how many nobody trains because its time is nearly over.

    Raises:
        Stopped: `stop` was set.
        StoreError: the folder cannot be written.
        RecipeError: the ensemble's size depends on its scores.
    """
    recipe, stop = recipe.part("ensemble"), stop or threading.Event()
    require_fixed_size(recipe)
    plan = ensemble_plan(recipe)
    like: dict[str, str] = {}

    def planned() -> list[Shard]:
        done, tags = finished()
        like.update(tags)
        return plan_shards(plan, done, recipe.runtime.shard)

    shards = folder.shards(planned)
    ordered, placement = by_size(shards, _place(recipe, plan, dataset, folder, shards, like))
    worker = Worker(folder, plan, dataset, _from_own_start(ordered, folder), placement, until, stop, stay)
    examples = sum(plan.examples(shard.ratio, shard.members, dataset.n_train) for shard in worker._free())
    with bar(f"worker, {len(worker._free())} shards", examples, unit="examples") as advance:
        worker.work(advance)
    left = worker.left()
    if left:
        say(f"the time is nearly over and {left} shards are left; one takes {duration(worker.longest)}")
    return worker.count, left


def require_fixed_size(recipe: Recipe) -> None:
    """Refuse an ensemble that stops when its scores are good enough: workers see no scores.

    Raises:
        RecipeError: it is one.
    """
    if recipe.subset.until.active:
        raise RecipeError(
            "subset.until is for one launch, also with runtime.engine = 'ray'; workers take subset.members alone"
        )


def _place(
    recipe: Recipe,
    plan: EnsemblePlan,
    dataset: Dataset,
    folder: WorkFolder,
    shards: list[Shard],
    like: dict[str, str],
) -> Placement:
    """A placement here with the bits of the first worker's."""

    def here(tags: dict[str, str]) -> Placement:
        return place_ensemble(plan, dataset, runtime_of(recipe), shards, tags)

    agreed = folder.placement(lambda: here(like).tags())
    placement = here(agreed)
    if str(placed(agreed).get("device", "")).partition(":")[0] != placement.device.partition(":")[0]:
        say(f"the first worker trains on {placed(agreed)['device']}, this one on {placement.device}: last bits differ")
    return placement


def _from_own_start(shards: list[Shard], folder: WorkFolder) -> list[Shard]:
    """The same shards from a place that differs between workers, so that they seldom want the same one."""
    start = int(folder.claims.launch["id"], 16) % max(1, len(shards))
    return shards[start:] + shards[:start]
