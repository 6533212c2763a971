"""`study curricula`.  in: a command line   out: a table on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.interrupt import interruptible
from study.cli.opening import open_study
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import bar, print_line


def curricula(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    by: Annotated[str, typer.Option(metavar="SCORE", help="a C-score or proxy of the finished runs")] = "cscore_soft",
    budgets: Annotated[list[float], typer.Option("--budget", help="share of the recipe's updates; repeatable")] = [],
    repeats: Annotated[int, typer.Option(min=1, help="trainings of each")] = 5,
    pacing: Annotated[str, typer.Option(help="linear, root, quadratic or step")] = "linear",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where table (CSV) and figure (PNG) go")] = None,
) -> None:
    """Train easy or hard examples first, or more often."""
    with interruptible() as stop:
        opened, dataset, store = open_study(recipe, overrides, root, plugin)
        from study.cli.use_tables import curricula_table
        from study.uses.curricula import BUDGETS, compare_curricula
        from study.uses.files import write_curricula

        compared = compare_curricula(
            opened,
            dataset,
            store,
            by=by,
            budgets=budgets or BUDGETS,
            repeats=repeats,
            pacing=pacing,
            stop=stop,
            bar=bar,
        )
        curricula_table(compared)
        for file in write_curricula(compared, out) if out else []:
            print_line(str(file))
