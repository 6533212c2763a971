"""`study compare`.  in: a command line   out: tables on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study import plugins
from study.cli.interrupt import interruptible
from study.cli.options import AsJson, Overrides, Plugins, Root
from study.progress import print_line


def compare(
    recipes: Annotated[
        list[Path], typer.Argument(metavar="RECIPES", help="recipes that were run; of a sweep, all its cells")
    ] = [],
    condition: Annotated[
        str, typer.Option("--filter", metavar="CONDITION", help="runs by MLflow's syntax: params.model.name = 'mlp'")
    ] = "",
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    scores: Annotated[
        list[str], typer.Option("--score", metavar="NAME", help="a proxy or cscore; all of them unless given")
    ] = [],
    analyses: Annotated[
        list[str], typer.Option("--analysis", metavar="ID", help="a paper's figure or table too, such as Z-fig6")
    ] = [],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="where tables (CSV), figure (PNG) and page (HTML) go")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set finished runs side by side.  Accuracies, agreement of their scores, learning curves by C-score."""
    from study.recipe.load import find_recipe, load

    loaded = [load(find_recipe(path), overrides) for path in recipes]
    plugins.load(plugin)
    with interruptible() as stop:
        from study.cli.as_json import comparison_summary, print_json
        from study.cli.tables import comparison_tables
        from study.experiments.page import write_folder
        from study.tracking import open_store
        from study.workflows.compare import work_comparison

        comparison = work_comparison(loaded, condition, open_store(root), only=scores, analyses=analyses, stop=stop)
        files = write_folder(comparison, out) if out else []
        if as_json:
            print_json(comparison_summary(comparison))
            return
        comparison_tables(comparison, pairs=bool(scores))
        for file in files:
            print_line(str(file))
