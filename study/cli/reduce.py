"""`study reduce`.  in: a command line   out: a table on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.interrupt import interruptible
from study.cli.opening import open_study
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import bar, print_line


def reduce(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    by: Annotated[
        list[str], typer.Option(metavar="LIST", help="SCORE:easy, :hard, :middle, :strata; density; random; repeatable")
    ] = [],
    shares: Annotated[list[float], typer.Option("--share", help="of the examples that are kept; repeatable")] = [],
    repeats: Annotated[int, typer.Option(min=1, help="trainings on each list")] = 3,
    same_epochs: Annotated[bool, typer.Option(help="as many epochs as on all examples, not as many updates")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where table (CSV) and figure (PNG) go")] = None,
) -> None:
    """Train on parts of the data that scores choose."""
    with interruptible() as stop:
        opened, dataset, store = open_study(recipe, overrides, root, plugin)
        from study.cli.use_tables import reduction_table
        from study.uses.files import write_reduction
        from study.uses.reduction import SHARES, reduce_training_set

        reduction = reduce_training_set(
            opened,
            dataset,
            store,
            by=by,
            shares=shares or SHARES,
            repeats=repeats,
            same_steps=not same_epochs,
            stop=stop,
            bar=bar,
        )
        reduction_table(reduction)
        for file in write_reduction(reduction, out) if out else []:
            print_line(str(file))
        print_line(f"keep lists, for data.keep: {reduction.folder}")
