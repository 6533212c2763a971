"""Workers as tasks of a Slurm cluster; the only door to submitit.  in: a recipe, a root   out: tasks in a queue

A task is a worker: it claims shards until none is left.  It begins none that would not end within its hours, and is
then queued again, as it is when Slurm takes its machine away; what it had claimed goes back to the others.
"""

import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from study import plugins
from study.data import Dataset, open_data
from study.errors import StudyError
from study.progress import show_messages
from study.recipe import Recipe, dump
from study.recipe.load import load
from study.runs.jobs import ensemble_plan
from study.runs.members import Shard, plan_shards
from study.runs.work_folder import WorkFolder, unit_name
from study.runs.worker import Finished, require_fixed_size, run_worker

MARGIN = 120.0  # seconds of a task's hours in which no shard is trained
TIMEOUTS = 1000  # how often a task whose time was over in the middle of a shard is queued again


@dataclass
class WorkerTask:
    """A worker as submitit keeps it on disk until it runs, and again when it is queued again.

    recipe: a file with the whole recipe, so that later changes of the user's file change nothing.
    root: of the runs.
    plugin_files: to load.
    hours: that the task may take.
    """

    recipe: str
    root: str
    plugin_files: tuple[str, ...]
    hours: float
    folder: WorkFolder | None = field(default=None, init=False)

    def __call__(self) -> int:
        """Train shards; how many."""
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see `cli.main`
        show_messages()
        until = time.time() + 3600 * self.hours - MARGIN
        plugins.load([Path(file) for file in self.plugin_files])
        recipe = load(Path(self.recipe))
        dataset = open_data(recipe.data, recipe.noise, seed=recipe.seed)
        self.folder = WorkFolder(Path(self.root), recipe.part("ensemble"), dataset)
        count, left = run_worker(recipe, dataset, self.folder, lambda: (set(), {}), until=until, stay=False)
        if left:
            again()
        return count

    def checkpoint(self) -> Any:
        """What submitit queues again when the task's time is over or its machine is taken away."""
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]  optional

        if self.folder is not None:
            self.folder.claims.close()
        return DelayedSubmission(replace(self))


@dataclass(frozen=True)
class Resources:
    """What a task asks for.

    hours: after which Slurm ends it.
    gpus, cpus: of its node; 0 CPUs: what the cluster gives.
    slurm: more options of sbatch, such as {"partition": "gpu"}.
    local: run the tasks on this machine, without Slurm.
    """

    hours: float
    gpus: int = 0
    cpus: int = 0
    slurm: Mapping[str, str] = field(default_factory=dict)
    local: bool = False


@dataclass(frozen=True)
class Submitted:
    """Tasks that were queued: their numbers, the folder of their output, and how many shards they share."""

    jobs: tuple[str, ...]
    folder: Path
    shards: int


def submit_workers(
    recipe: Recipe,
    dataset: Dataset,
    root: Path,
    finished: Finished,
    *,
    jobs: int,
    resources: Resources,
    plugin_files: Sequence[Path] = (),
) -> Submitted:
    """Queue workers of one ensemble, no more than there are shards.

    Args:
        recipe: its `ensemble` part is used.
        dataset: its data, which the tasks read themselves.
        root: of the runs, on a disk that all nodes see.
        finished: see `run_worker`.
        jobs: workers.
        resources: of each.
        plugin_files: that the tasks load.

    Raises:
        StudyError: submitit is not installed, there is no Slurm here, or it refuses the tasks.
    """
    ensemble = recipe.part("ensemble")
    require_fixed_size(ensemble)
    work = WorkFolder(root, ensemble, dataset)
    shards = work.shards(lambda: _missing(ensemble, finished))
    left = [shard for shard in shards if unit_name(shard) not in work.trained()]
    folder = root / "submitted" / work.path.name
    if not left:
        return Submitted((), folder, 0)
    executor = _executor(folder, resources)
    file = folder / f"{work.plan_file.stem}.toml"
    file.write_text(dump(recipe), encoding="utf-8")
    task = WorkerTask(str(file), str(root), tuple(str(file.resolve()) for file in plugin_files), resources.hours)
    count = min(jobs, len(left))
    try:
        with executor.batch():
            queued = [executor.submit(task) for _ in range(count)]
    except Exception as error:  # submitit's own of many kinds, of Slurm's own words
        raise StudyError(f"the tasks were not queued: {' '.join(str(error).split())[:300]}") from error
    return Submitted(tuple(job.job_id for job in queued), folder, len(left))


def _missing(recipe: Recipe, finished: Finished) -> list[Shard]:
    return plan_shards(ensemble_plan(recipe), finished()[0], recipe.runtime.shard)


def _executor(folder: Path, resources: Resources) -> Any:
    """submitit's way to Slurm, or to processes of this machine.

    Raises:
        StudyError: it is not installed, or there is no Slurm here.
    """
    try:
        import submitit  # pyright: ignore[reportMissingImports]  optional
    except ImportError:
        raise StudyError("submitit is not installed; `pip install submitit`") from None
    if not resources.local and shutil.which("sbatch") is None:
        raise StudyError("there is no Slurm here (sbatch); run this on a login node, or with --local on this machine")
    cluster = "local" if resources.local else "slurm"
    executor = submitit.AutoExecutor(folder, cluster=cluster, **{f"{cluster}_max_num_timeout": TIMEOUTS})
    wanted: dict[str, Any] = {"timeout_min": max(1, round(60 * resources.hours)), "gpus_per_node": resources.gpus}
    if resources.cpus:
        wanted["cpus_per_task"] = resources.cpus
    more = {"slurm_signal_delay_s": 90, "slurm_additional_parameters": dict(resources.slurm)}
    executor.update_parameters(name="study", **wanted, **({} if resources.local else more))
    return executor


def again() -> None:
    """Have this task queued again, as if Slurm had sent its warning."""
    import submitit  # pyright: ignore[reportMissingImports]  optional

    signal.raise_signal(getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}"))
