"""Shards as tasks on a Ray cluster, the only door to ray.  in: shards   out: ShardResults, as they come

The cluster is that of RAY_ADDRESS, or one that is started on this machine.  A task takes one GPU, or some CPUs, and
trains a shard, or as many shards of one subset ratio as fill a stack.  The data go into the object store once and are
read there by every host.  Tasks write nothing, so that one whose machine is lost is simply done again elsewhere.
"""

import os
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from study import plugins
from study.data import Dataset
from study.errors import RecipeError, Stopped, StudyError
from study.progress import say
from study.recipe import Recipe
from study.runs.jobs import EnsemblePlan, runtime_of
from study.runs.members import Shard, by_size, place_ensemble, train_shards
from study.runs.shard_runs import ShardResult, shard_result
from study.runs.speed import seconds_per_example
from study.training.engines.multi_device import check_portable
from study.training.placement import Placement, device_name, placed
from study.training.results import Hooks
from study.training.types import RuntimeSpec

RETRIES = 20  # how often a task is done again whose machine or process was lost
PAUSE = 0.5  # seconds between two looks at the order to stop
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Order:
    """What all tasks of a launch have in common, but for the data.

    cpus: of a task that has no GPU, each trains a network.
    like: tags on which the bits depend.
    """

    plan: EnsemblePlan
    runtime: RuntimeSpec
    cpus: int
    like: Mapping[str, str]
    plugin_files: Sequence[str] = ()


@dataclass(frozen=True)
class Speed:
    """How fast one task is: seconds per example of training and of evaluating; on what, and how many run at a time."""

    train: float
    evaluate: float
    device: str
    devices: int


@dataclass
class RayEngine:
    """See `engines.Engine`.

    gpus: of a task, 0 or 1.
    tasks: that run at a time.
    dataset: reference of the data in the object store.
    """

    order: Order
    gpus: int
    tasks: int
    dataset: Any
    n_train: int
    blocks: list[list[Shard]] = field(default_factory=list)

    def place(self, shards: Sequence[Shard], like: Mapping[str, str]) -> dict[str, str]:
        """Where a task runs, for the driver's machine may have no GPU."""
        import ray  # pyright: ignore[reportMissingImports]  optional

        self.order = replace(self.order, like=like)
        tags, ordered, stack = _waited(ray, self._task(_place).remote(self.order, self.dataset, shards))
        self.order = replace(self.order, like=tags)
        self.blocks = stacked(ordered, stack)
        return tags

    def speed(self, shards: Sequence[Shard]) -> Speed:
        """Measure a second of training in a task."""
        import ray  # pyright: ignore[reportMissingImports]  optional

        train, evaluate, device = _waited(ray, self._task(_speed).remote(self.order, self.dataset, shards))
        return Speed(train, evaluate, device, self.tasks)

    def train(self, hooks: Hooks) -> Generator[ShardResult]:
        """See `Engine`."""
        import ray  # pyright: ignore[reportMissingImports]  optional

        task = self._task(_train)
        waiting = [task.remote(self.order, self.dataset, block) for block in self.blocks]
        try:
            while waiting:
                if hooks.stop.is_set():
                    raise Stopped
                done, waiting = ray.wait(waiting, timeout=PAUSE)
                for reference in done:
                    for result in _waited(ray, reference):
                        shard = result.shard
                        hooks.progress(self.order.plan.examples(shard.ratio, shard.members, self.n_train))
                        yield result
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _task(self, function: Any) -> Any:
        import ray  # pyright: ignore[reportMissingImports]  optional

        wanted = {"num_gpus": 1, "num_cpus": 1} if self.gpus else {"num_cpus": self.order.cpus}
        return ray.remote(max_retries=RETRIES, **wanted)(function)


@contextmanager
def cluster(recipe: Recipe, plan: EnsemblePlan, dataset: Dataset) -> Iterator[RayEngine]:
    """Connect to the cluster, and leave it again.

    Raises:
        StudyError: ray is not installed, the cluster does not answer, or a network that no other process can build.
        RecipeError: the cluster lacks what a task needs, for which it would wait for ever.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]  optional
    except ImportError:
        raise StudyError("ray is not installed; `pip install ray`, or runtime.engine = 'local'") from None
    check_portable(plan.template.network)
    connected = ray.is_initialized()
    if not connected:
        _connect(ray)
    try:
        runtime, cpus = runtime_of(recipe), max(1, recipe.runtime.threads)
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, tasks = _tasks(alive, runtime.device, cpus)
        order = Order(plan, replace(runtime, device="cuda" if gpus else "cpu"), cpus, {}, plugins.loaded())
        yield RayEngine(order, gpus, tasks, ray.put(dataset), dataset.n_train)
    finally:
        if not connected:
            ray.shutdown()


def _connect(ray: Any) -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    started = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **started)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        address = os.environ.get("RAY_ADDRESS", "")
        reason = " ".join(str(error).split())[:200]
        cure = "start it (`ray start --head`), or unset RAY_ADDRESS to start one here"
        raise StudyError(f"the Ray cluster {address} does not answer: {reason}; {cure}") from error
    resources = ray.cluster_resources()
    say(f"Ray: {len(ray.nodes())} nodes, {resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs")


def _tasks(nodes: Sequence[Mapping[str, float]], device: str, cpus: int) -> tuple[int, int]:
    """GPUs of a task, 1 or 0, and how many tasks the nodes of a cluster hold at a time.

    Raises:
        RecipeError: no node has what a task needs, for which it would wait for ever.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes) if device != "cpu" else 0
    if gpus:
        return 1, gpus
    if device.startswith("cuda"):
        raise RecipeError("runtime.device: the Ray cluster has no GPU; --set runtime.device=cpu")
    tasks = sum(int(node.get("CPU", 0)) // cpus for node in nodes)
    if not tasks:
        raise RecipeError(f"runtime.threads: no node of the Ray cluster has {cpus} CPUs; --set runtime.threads=1")
    return 0, tasks


def _waited(ray: Any, reference: Any) -> Any:
    """What a task gives.

    Raises:
        StudyError: its own, or that it was lost too often.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, StudyError) else error from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"a task was lost {RETRIES} times ({reason}); the same command goes on from here") from error


def stacked(shards: Sequence[Shard], stack: int) -> list[list[Shard]]:
    """Shards that follow each other and together fill a stack, those of each task."""
    blocks: list[list[Shard]] = []
    for shard in shards:
        last = blocks[-1] if blocks else []
        members = sum(len(each.members) for each in last) + len(shard.members)
        if last and last[0].ratio == shard.ratio and members <= stack:
            last.append(shard)
        else:
            blocks.append([shard])
    return blocks


def _placement(order: Order, dataset: Dataset, shards: Sequence[Shard]) -> tuple[list[Shard], Placement]:
    """How a task trains: on its GPU as a launch does, on CPUs a network on each."""
    plugins.load(order.plugin_files)
    placement = place_ensemble(order.plan, dataset, order.runtime, shards, order.like)
    if placement.device == "cpu":
        cores = int(placed(order.like).get("cores", 1))
        threads = max(1, order.cpus // cores)
        placement = replace(placement, threads=min(placement.threads, threads), cores=cores, machine=order.cpus)
    return by_size(shards, placement)


def _place(order: Order, dataset: Dataset, shards: Sequence[Shard]) -> tuple[dict[str, str], list[Shard], int]:
    """A task: the tags of a placement there, the shards in the order of stacks, and how many members fill one."""
    ordered, placement = _placement(order, dataset, shards)
    return placement.tags(), ordered, placement.stack


def _speed(order: Order, dataset: Dataset, shards: Sequence[Shard]) -> tuple[float, float, str]:
    """A task: seconds per example of training and evaluating there, and the device."""
    _, placement = _placement(order, dataset, shards)
    train, evaluate = seconds_per_example(order.plan.template, dataset, placement)
    kind = "GPU" if order.runtime.device == "cuda" else f"Ray tasks of {order.cpus} CPUs"
    return train, evaluate, f"{kind} ({device_name(placement.device)})"


def _train(order: Order, dataset: Dataset, shards: Sequence[Shard]) -> list[ShardResult]:
    """A task: train these shards."""
    ordered, placement = _placement(order, dataset, shards)
    started, results = time.time(), []
    for trained in train_shards(order.plan, ordered, dataset, placement, Hooks()):
        results.append(shard_result(trained, dataset, placement, started, socket.gethostname()))
        started = time.time()
    return results
