"""`study label-errors`.  in: a command line   out: a table on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.opening import open_study
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import print_line


def label_errors(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where tables (CSV) and figures (PNG) go")] = None,
) -> None:
    """Say how well each score finds label errors that are known."""
    opened, dataset, store = open_study(recipe, overrides, root, plugin)
    from study import analysis
    from study.cli.tables import label_error_table
    from study.report.label_errors import write_folder

    analysis.known_errors(dataset)
    errors = analysis.label_errors(analysis.load_runs(opened, dataset, store), dataset)
    label_error_table(errors)
    for file in write_folder(errors, dataset.classes, out) if out else []:
        print_line(str(file))
