"""The verbs.  in: a command line   out: one call, one table; 2 and one line for what the user can mend"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.display import bar, say
from study.errors import StudyError

if TYPE_CHECKING:
    from study.data import Dataset
    from study.recipe import Recipe
    from study.tracking import Store

DEFAULT = Path("recipes/digits/study.toml")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="C-scores of image data sets, their proxies, and how well the proxies stand in for them.",
)

RecipePath = Annotated[Path, typer.Argument(help="a recipe file", show_default=True)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="NAME=VALUE", help="override a value: optimizer.lr=0.05")
]
Root = Annotated[Path, typer.Option("--root", help="folder of the local store, locks and downloads")]


class Interrupted(Exception):  # noqa: N818  an order from outside, not an error
    """A signal has asked for the end; `number` says which."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set an event: the step under way ends and the run is marked; a second one ends at once."""
    stop, heard = threading.Event(), []

    def on_signal(number: int, frame: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)
        stop.set()
        say("stopping; once more to stop at once")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except BaseException as error:
        if heard and type(error).__name__ in ("Stopped", "KeyboardInterrupt"):
            raise Interrupted(heard[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(path: Path, overrides: list[str], root: Path) -> "tuple[Recipe, Dataset, Store]":
    """Recipe, data and store, checked in the order of what each check costs."""
    from study import recipe as recipes

    recipe = recipes.load(path, overrides)
    from study import check, data, tracking

    check.check_names(recipe)
    dataset = data.load(recipe.data)
    for line in dataset.unusable[:5]:
        say(f"not usable: {line}")
    if len(dataset.unusable) > 5:
        say(f"and {len(dataset.unusable) - 5} more; `study data` lists them all")
    check.check_data(recipe, dataset)
    return recipe, dataset, tracking.open_store(root)


def _work(kind: str | None, path: Path, overrides: list[str], root: Path) -> None:
    from study import launch, plan

    with interruptible() as stop:
        recipe, dataset, store = _open(path, overrides, root)
        if kind:
            recipe = recipe.model_copy(update={"kind": kind})
        for line in plan.describe(plan.plan_study(recipe, dataset, store)):
            say(line)
        runs = launch.run_study(recipe, dataset, store, stop=stop, bar=bar)
    _where(store, runs)


def _where(store: "Store", runs: list) -> None:
    for run in runs:
        print(f"{run.experiment}: {run.name}  {store.link(run)}")
        if "report.html" in run.files:
            print(f"report: {run.read('report.html')}")
    if store.database is not None:
        print("MLflow UI: ./scripts/run ui  (then open the addresses above)")


@app.command()
def run(recipe: RecipePath = DEFAULT, overrides: Overrides = [], root: Root = Path("mlruns")) -> None:
    """Do the whole of a study: subset ensemble, single runs, report.  Resumes what an earlier launch has left."""
    _work(None, recipe, overrides, root)


@app.command()
def ensemble(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns")) -> None:
    """Train the subset ensemble alone and compute C-scores."""
    _work("ensemble", recipe, overrides, root)


@app.command()
def single(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns")) -> None:
    """Train the single runs alone and compute the proxies."""
    _work("single", recipe, overrides, root)


@app.command()
def report(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns")) -> None:
    """Analyse the finished runs of a recipe and write the report."""
    from study import launch

    opened, dataset, store = _open(recipe, overrides, root)
    _where(store, [launch.run_report(opened, dataset, store)])


@app.command()
def plan(recipe: RecipePath = DEFAULT, overrides: Overrides = [], root: Root = Path("mlruns")) -> None:
    """Say what a study will cost on this machine: networks, FLOPs, time, disk."""
    from study import plan as plans

    for line in plans.describe(plans.plan_study(*_open(recipe, overrides, root))):
        print(line)


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="recipes, or folders of them")] = [Path("recipes")],
    overrides: Overrides = [],
) -> None:
    """Check recipes without training: form, names, and whether the network takes the images."""
    from study.check import check_all

    faults = 0
    for file, fault in check_all(paths, overrides):
        print(f"{'ok   ' if fault is None else 'FAULT'} {file if fault is None else fault}")
        faults += fault is not None
    if faults:
        raise typer.Exit(2)


@app.command()
def data(recipe: RecipePath = DEFAULT, overrides: Overrides = []) -> None:
    """Read (or download) a recipe's data set; say what it holds and what in it cannot be used."""
    from study import data as sets
    from study import recipe as recipes

    dataset = sets.load(recipes.load(recipe, overrides).data)
    channels, height, width = dataset.shape
    print(
        f"{dataset.name}: {dataset.n_train} train, {dataset.n_test} test examples, {height} x {width} x {channels}, "
        f"digest {dataset.digest}"
    )
    for label, name in enumerate(dataset.classes):
        train, test = (int((dataset.labels[dataset.rows(split)] == label).sum()) for split in ("train", "test"))
        print(f"  {name}: {train} train, {test} test")
    for line in dataset.unusable:
        print(f"not usable: {line}")


@app.command()
def reference(
    file: Annotated[Path, typer.Argument(help="published scores: .npz, .csv or .parquet")],
    recipe: RecipePath = DEFAULT,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
) -> None:
    """Keep published C-scores beside ours: checks labels and order; the next report compares with them."""
    from study.reference import log_reference

    opened, dataset, store = _open(recipe, overrides, root)
    _where(store, [log_reference(file, opened.data.title, dataset, store)])


@app.command(name="list")
def list_runs(
    kind: Annotated[str, typer.Option(help="ensemble, shard, single, report, reference; all but shards")] = "",
    root: Root = Path("mlruns"),
) -> None:
    """List the runs of the store, newest first."""
    from study.tables import runs_table
    from study.tracking import open_store

    runs_table(open_store(root), kind)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="the run's id, or its first letters")], root: Root = Path("mlruns")
) -> None:
    """Show one run: what it was, what came out, its files."""
    from study.tables import run_table
    from study.tracking import open_store

    run_table(open_store(root), run_id)


@app.command()
def proxies(markdown: Annotated[bool, typer.Option(help="as the README's table")] = False) -> None:
    """List the registered proxies: family, direction, unit, source."""
    from study.proxies import proxies_markdown
    from study.tables import proxies_table

    if markdown:
        print(proxies_markdown())
    else:
        proxies_table()


@app.command()
def ui(port: Annotated[int, typer.Option(help="port on this machine")] = 5000, root: Root = Path("mlruns")) -> None:
    """Open the MLflow UI on the local store."""
    from study.ui import serve

    serve(root, port)


def main(command: Callable[..., None] = app) -> None:
    """Entry point: an error that the user can mend is one line and exit code 2; everything else is a traceback."""
    try:
        command()
    except StudyError as error:
        print(f"study: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as order:
        say("stopped; the same command goes on from here")
        sys.exit(128 + order.number)
