"""How long an ensemble takes on many devices, before it begins.  in: a Cost, its shards   out: seconds by devices"""

from dataclasses import dataclass

from study.data import Dataset
from study.progress import duration
from study.recipe import Recipe
from study.runs.jobs import ensemble_plan
from study.runs.members import plan_shards
from study.workflows.plan import Cost


@dataclass(frozen=True)
class Spread:
    """An ensemble on several devices that are alike.

    device: one of them, in words.
    devices: as many as there are.
    shards: that are left; a device trains one at a time.
    seconds: all of them on one device.
    """

    device: str
    devices: int
    shards: int
    seconds: float

    def on(self, devices: int) -> float:
        """Seconds on so many; in the last round some may be idle.

        >>> Spread("GPU", 4, shards=10, seconds=100.0).on(4)
        30.0
        """
        return -(-self.shards // devices) * self.seconds / max(1, self.shards)

    def describe(self) -> str:
        """One line: the time on 1, 2, 4, ... devices.

        >>> Spread("GPU", 3, shards=6, seconds=7200.0).describe()
        'ensemble by GPU: 1: 2 h 00 min, 2: 60 min, 3: 40 min; 6 shards'
        """
        counts = [1 << power for power in range(self.devices.bit_length()) if 1 << power < self.devices]
        times = ", ".join(f"{count}: {duration(self.on(count))}" for count in [*counts, self.devices])
        return f"ensemble by {self.device}: {times}; {self.shards} shards"


def spread(recipe: Recipe, dataset: Dataset, cost: Cost, jobs: int) -> Spread | None:
    """Estimate an ensemble on `jobs` workers such as this machine, or on the Ray cluster that the recipe asks for.

    Args:
        recipe: its `ensemble` part is used.
        dataset: its data.
        cost: of the ensemble here, see `plan_study`.
        jobs: workers; 0: on a Ray cluster as many as it has.

    Returns:
        None when nothing is left to train, or neither workers nor a cluster are asked for.

    Raises:
        StudyError: a cluster that does not answer, or has not what a task needs.
    """
    recipe = recipe.part("ensemble")
    left, size = cost.networks - cost.done, recipe.runtime.shard
    if not left or (recipe.runtime.engine == "local" and not jobs):
        return None
    ratios = len(recipe.subset.ratios)
    shards = ratios * -(-left // (ratios * size))
    if recipe.runtime.engine == "local":
        return Spread("workers such as this machine", jobs, shards, cost.seconds)
    from study.runs.ray_engine import cluster

    plan = ensemble_plan(recipe)
    with cluster(recipe, plan, dataset) as engine:
        speed = engine.speed(plan_shards(plan, size=size))
    seconds = speed.train * cost.examples + speed.evaluate * cost.evaluations
    return Spread(speed.device, jobs or speed.devices, shards, seconds)
