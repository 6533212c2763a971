"""Commands of an ensemble on many machines.  in: a recipe, a folder that all see   out: trained shards, an ensemble"""

import shlex
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.interrupt import interruptible
from study.cli.opening import open_existing, open_study, read_data
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.errors import RecipeError
from study.progress import bar, command, print_line, say

if TYPE_CHECKING:
    from study.data import Dataset
    from study.recipe import Recipe

Until = Annotated[
    str, typer.Option(metavar="TIME", help="begin no shard that would not end by then: 18:30, 2026-12-01T06:00, or 4h")
]


def worker(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    until: Until = "",
    plugin: Plugins = [],
) -> None:
    """Train shards of an ensemble that no other worker trains.

    Start as many as you like, on all machines that see the folder --root; then `study gather`.
    """
    deadline = parse_time(until) if until else None
    with interruptible(signal.SIGUSR1) as stop:
        opened, dataset = read_data(recipe, overrides, plugin, "ensemble")
        from study.runs.work_folder import WorkFolder
        from study.runs.worker import run_worker
        from study.workflows import preflight

        preflight.check_data(opened, dataset)
        folder = WorkFolder(root.resolve(), opened.part("ensemble"), dataset)
        count, _ = run_worker(
            opened, dataset, folder, lambda: finished(opened, dataset, root), until=deadline, stop=stop, bar=bar
        )
    print_line(f"trained {count} shards in {folder.path}")
    _next(recipe, overrides, root)


def submit(
    recipe: RecipePath,
    jobs: Annotated[int, typer.Option(min=1, help="workers, of an array of Slurm")],
    hours: Annotated[
        float, typer.Option(min=0.05, help="that each may take; it is queued again while shards are left")
    ],
    gpus: Annotated[int, typer.Option(min=0, max=16, help="of each worker")] = 0,
    cpus: Annotated[int, typer.Option(min=0, help="of each worker; 0: what the cluster gives")] = 0,
    slurm: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="an option of sbatch, such as partition=gpu; repeatable")
    ] = [],
    local: Annotated[bool, typer.Option("--local", help="run the workers on this machine, without Slurm")] = False,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
) -> None:
    """Queue workers of an ensemble on a Slurm cluster."""
    options = [pair.partition("=") for pair in slurm]
    if wrong := [name for name, sign, _ in options if not sign]:
        raise RecipeError(f"--slurm {wrong[0]}: write it as NAME=VALUE, such as partition=gpu")
    opened, dataset = read_data(recipe, overrides, plugin, "ensemble")
    from study.workflows import preflight
    from study.workflows.submit import Resources, submit_workers

    preflight.check_data(opened, dataset)
    resources = Resources(hours, gpus, cpus, {name: value for name, _, value in options}, local)
    queued = submit_workers(
        opened,
        dataset,
        root.resolve(),
        lambda: finished(opened, dataset, root),
        jobs=jobs,
        resources=resources,
        plugin_files=plugin,
    )
    if queued.jobs:
        print_line(f"queued {len(queued.jobs)} workers for {queued.shards} shards: {', '.join(queued.jobs)}")
        say(f"what they say is in {queued.folder}")
    else:
        print_line("every shard is trained")
    _next(recipe, overrides, root)


def _next(recipe: Path, overrides: list[str], root: Path) -> None:
    """Say how to fold what workers have trained."""
    words = ["gather", str(recipe), *(word for change in overrides for word in ("--set", change)), "--root", str(root)]
    say(f"when all workers are done: {command(shlex.join(words))}")


def finished(recipe: "Recipe", dataset: "Dataset", root: Path) -> "tuple[set[tuple[float, int]], dict[str, str]]":
    """The members whose shards are in the store, where there is one, and how they were trained."""
    store = open_existing(root)
    if store is None:
        return set(), {}
    from study.runs.ensemble import finished_members

    return finished_members(recipe.part("ensemble"), dataset, store)


def gather(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns"), plugin: Plugins = []) -> None:
    """Fold what workers have trained; say what is missing."""
    opened, dataset, store = open_study(recipe, overrides, root, plugin, "ensemble")
    from study.runs.ensemble import gather_ensemble
    from study.runs.work_folder import WorkFolder, unit_name
    from study.runs.worker import require_fixed_size

    require_fixed_size(opened)
    run, missing = gather_ensemble(opened, dataset, store)
    if missing:
        holders = WorkFolder(store.root, opened.part("ensemble"), dataset).claims.holders()
        for name, holder in holders.items():
            print_line(f"being trained: {name} by {holder}")
        free = [unit_name(shard) for shard in missing if unit_name(shard) not in holders]
        print_line(f"missing: {', '.join(free) or 'none but these'}")
    print_line(f"{run.experiment}: {run.name}, {run.status}  {store.link(run)}")


def parse_time(text: str) -> float:
    """Seconds since 1970 of a time of day, a date with a time, or a number of hours or minutes from now.

    Raises:
        RecipeError: it is none of these.
    """
    now = datetime.now().astimezone()
    try:
        if text[-1:] in ("h", "m"):
            return time.time() + float(text[:-1]) * (3600 if text[-1] == "h" else 60)
        if len(text) <= 5:
            clock = datetime.strptime(text, "%H:%M").time()
            today = datetime.combine(now.date(), clock).astimezone()
            return (today if today > now else today + timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise RecipeError(f"--until {text}: no time; write 18:30, 2026-12-01T06:00, 4h or 90m") from None
