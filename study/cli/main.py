"""The verbs.  in: a command line   out: one call, one table; 2 and one line for what the user can mend"""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study import plugins
from study.cli.benchmark import benchmark
from study.cli.check import check
from study.cli.compare import compare
from study.cli.curricula import curricula
from study.cli.export import export, publish
from study.cli.features import features
from study.cli.import_trace import import_trace
from study.cli.interrupt import Interrupted, interruptible
from study.cli.label_errors import label_errors
from study.cli.listing import list_runs, show
from study.cli.more_data import more_data
from study.cli.opening import load_recipe, open_checked, open_existing, open_finished, open_study, open_sweep, read_data
from study.cli.options import DEFAULT, AsJson, Overrides, Plugins, RecipePath, Root, again
from study.cli.plan import plan
from study.cli.reduce import reduce
from study.cli.reproduce import reproduce
from study.cli.score import score
from study.cli.test_set import small_test_set
from study.cli.workers import gather, submit, worker
from study.errors import AnalysisError, LostImagesError, StudyError
from study.progress import bar, command, print_line, say, show_messages

if TYPE_CHECKING:
    from study.tracking import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="C-scores of image data sets, their proxies, and how well the proxies stand in for them.",
    epilog=f"First: {command('plan')}, then {command('run')}; both take the digits when no recipe is named.",
)


def _work(kind: str | None, path: Path, overrides: list[str], root: Path, plugin_files: list[Path]) -> None:
    with interruptible() as stop:
        if load_recipe(path, overrides)[0].sweep.values:
            swept, store = open_sweep(path, overrides, root, plugin_files, kind)
            from study.cli.tables import comparison_tables
            from study.workflows.compare import work_comparison
            from study.workflows.sweep import work_sweep

            finished = work_sweep(swept, store, stop=stop, bar=bar)
            comparison_tables(work_comparison([swept], "", store, stop=stop))
            _where(store, [finished])
            return
        recipe, dataset = read_data(path, overrides, plugin_files, kind)
        from study.workflows.finished import finished_study

        store = open_existing(root)
        runs = finished_study(recipe, dataset, store) if store else None
        if store is None or runs is None:
            store = open_checked(recipe, dataset, root, store)
            from study.workflows import plan, study

            for line in plan.describe(plan.plan_study(recipe, dataset, store)):
                say(line)
            runs = study.run_study(recipe, dataset, store, stop=stop, bar=bar)
    _where(store, runs)


def _where(store: "Store", runs: list) -> None:
    """The end of a job: what came out, in which file, at which address."""
    from study.cli.tables import report_table

    for run in runs:
        report_table(run)
    for run in runs:
        print_line(f"{run.experiment}: {run.name}  {store.link(run)}")
    for run in runs:
        if "report.html" in run.files:
            print_line(f"report: {run.read('report.html')}")
            print_line(f"suspects: {run.read('suspects.csv')}")
    if store.database is not None:
        print_line(f"MLflow UI: {_ui(store.root)}  (then open the addresses above)")


def _ui(root: Path) -> str:
    """The command that shows the runs of a store, from where the user is."""
    usual = Path(os.environ.get("STUDY_ROOT") or "mlruns").resolve()
    return command("ui") if root == usual else f"{command('ui')} --root {shlex.quote(str(root))}"


@app.command()
def run(
    recipe: RecipePath = DEFAULT, overrides: Overrides = [], root: Root = Path("mlruns"), plugin: Plugins = []
) -> None:
    """Do a whole study: ensemble, single runs, report.  Resumes what an earlier launch has left."""
    _work(None, recipe, overrides, root, plugin)


@app.command()
def ensemble(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns"), plugin: Plugins = []) -> None:
    """Train the subset ensemble alone and compute C-scores."""
    _work("ensemble", recipe, overrides, root, plugin)


@app.command()
def single(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns"), plugin: Plugins = []) -> None:
    """Train the single runs alone; rank suspects by their proxies."""
    _work("single", recipe, overrides, root, plugin)


@app.command()
def search(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    trials: Annotated[int, typer.Option(min=0, help="as many in all, instead of the recipe's; more may follow")] = 0,
    plugin: Plugins = [],
    storage: Annotated[
        str, typer.Option(metavar="URL", help="where Optuna keeps the trials; optuna.db beside the runs unless given")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the winner's recipe; RECIPE_best.toml unless given")
    ] = None,
) -> None:
    """Search for hyper-parameters; the winner becomes a recipe.

    The recipe's [search] says where.  Several processes may work on one search; a killed one goes on where it was.
    """
    changes = [*overrides, *([f"search.trials={trials}"] if trials else [])]
    with interruptible() as stop:
        opened, dataset, store = open_study(recipe, changes, root, plugin)
        from study.recipe.load import find_recipe
        from study.search.run import cost, run_search

        say(cost(opened, dataset))
        path = find_recipe(recipe)
        finished, winner = run_search(
            opened, dataset, store, path, out=out, storage=storage or None, stop=stop, bar=bar
        )
    _where(store, [finished])
    print_line(f"winner: {command(shlex.join(['run', str(winner), *again([], plugin)]))}")


@app.command()
def report(
    recipe: RecipePath = DEFAULT,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write the files there and nothing into the store")
    ] = None,
    recorded: Annotated[
        str, typer.Option(metavar="RUN", help="instead of a recipe's: of a run that a Recorder has logged")
    ] = "",
) -> None:
    """Analyse the finished runs of a recipe and write the report."""
    if recorded:
        from study.cli.tables import one_run
        from study.report.recorded import run_recorded_report
        from study.tracking import open_store

        store = open_store(root)
        _where(store, [run_recorded_report(one_run(store, recorded), store)])
        return
    with interruptible() as stop:
        opened, dataset, store = open_finished(recipe, overrides, root, plugin)
        from study.report.build import run_report
        from study.workflows.study import export_report

        if out is not None:
            print_line(f"report: {export_report(opened, dataset, store, out, stop=stop)}")
            return
        finished = run_report(opened, dataset, store, stop=stop)
    _where(store, [finished])


@app.command()
def leaderboard(
    recipe: RecipePath = DEFAULT,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    markdown: Annotated[bool, typer.Option("--markdown", help="as a Markdown table")] = False,
    as_json: AsJson = False,
) -> None:
    """Rank the proxies of finished runs by quality and cost."""
    opened, dataset, store = open_finished(recipe, overrides, root, plugin)
    from study import analysis
    from study.cli.as_json import print_json
    from study.cli.tables import leaderboard_markdown, leaderboard_table

    standings = analysis.leaderboard(analysis.load_runs(opened, dataset, store), dataset)
    if standings.empty:
        raise AnalysisError(
            f"there is no finished single run, and so no proxy to rank; run `{command('single')}` with it first"
        )
    if as_json:
        print_json(standings)
    elif markdown:
        print_line(leaderboard_markdown(standings).rstrip())
    else:
        leaderboard_table(standings)


app.command()(worker)
app.command()(submit)
app.command()(gather)
app.command()(compare)
app.command()(score)
app.command()(reproduce)
app.command()(benchmark)
app.command("label-errors")(label_errors)
app.command()(reduce)
app.command("test-set")(small_test_set)
app.command()(curricula)
app.command("more-data")(more_data)
app.command()(features)
app.command()(export)
app.command("import")(import_trace)
app.command()(publish)


app.command()(plan)
app.command()(check)


@app.command()
def data(
    recipe: RecipePath = DEFAULT,
    overrides: Overrides = [],
    near: Annotated[
        bool, typer.Option("--near", help="compare all pairs, for images that are nearly another one")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read a recipe's data set, say what it holds.  Downloads it when need be; lists what in it cannot be used."""
    from study import data as sets

    wanted = load_recipe(recipe, overrides)[0]
    try:
        loaded = sets.open_data(wanted.data, wanted.noise, seed=wanted.seed)
    except LostImagesError as error:
        for line in error.lines:
            print_line(line)
        raise
    from study.cli.as_json import dataset_summary, print_json
    from study.cli.tables import dataset_table

    if as_json:
        print_json(dataset_summary(loaded, near=near))
    else:
        dataset_table(loaded, near=near)


@app.command()
def reference(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="published scores: .npz, .csv, .parquet, a folder")],
    recipe: RecipePath = DEFAULT,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
) -> None:
    """Keep published C-scores beside ours.  Checks labels and order; the next report compares with them."""
    opened, dataset, store = open_study(recipe, overrides, root, plugin)
    from study.runs.reference import log_reference

    _where(store, [log_reference(file, opened.data.title, dataset, store)])


app.command("list")(list_runs)
app.command()(show)


@app.command()
def proxies(
    markdown: Annotated[bool, typer.Option(help="as the table of docs/proxies.md")] = False, plugin: Plugins = []
) -> None:
    """List the registered proxies: family, direction, source."""
    plugins.load(plugin)
    from study.cli.tables import proxies_table
    from study.proxies import proxies_markdown

    if markdown:
        print_line(proxies_markdown())
    else:
        proxies_table()


@app.command()
def recipes(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where recipes lie")] = Path("recipes"),
    markdown: Annotated[bool, typer.Option(help="as the table of recipes/README.md")] = False,
) -> None:
    """List the recipes: what each is for, what it costs."""
    from study.recipe.catalog import catalog, catalog_markdown
    from study.recipe.load import find_recipe

    folder = find_recipe(folder)
    if markdown:
        print_line(catalog_markdown(folder))
    else:
        from study.cli.tables import recipes_table

        recipes_table(catalog([folder]), folder)
        say(f"the files are in {folder}")


@app.command()
def networks(
    markdown: Annotated[bool, typer.Option(help="as the table of recipes/README.md")] = False, plugin: Plugins = []
) -> None:
    """List the registered networks.  Parameters, cost, normalization, probe placements, source."""
    plugins.load(plugin)
    from study.models.catalog import networks_markdown, table

    if markdown:
        print_line(networks_markdown())
    else:
        from study.cli.tables import networks_table

        networks_table(table())


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="on this machine")] = 5000, root: Root = Path("mlruns")
) -> None:
    """Open the MLflow UI on the local store."""
    from study.tracking.ui import serve

    serve(root, port)


def main(command: Callable[..., None] = app) -> None:
    """Entry point: an error that the user can mend is one line and exit code 2; everything else is a traceback."""
    # read when torch loads: its threads sleep while they wait for each other; spinning, the default, makes an operation
    # on two cores four times slower as soon as something else wants one of them
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    show_messages()
    try:
        command()
    except StudyError as error:
        say(f"study: {' '.join(str(error).split(chr(10)))}")
        sys.exit(2)
    except Interrupted as order:
        say("stopped; the same command goes on from here")
        sys.exit(128 + order.number)
