"""`study label-errors`.  in: a command line   out: a table on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.opening import open_finished
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import print_line


def label_errors(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where tables (CSV) and figures (PNG) go")] = None,
) -> None:
    """Say how well each score finds known errors.

    Labels that were changed, images of another data set (data.foreign), images that noise has replaced (noise.inputs).
    """
    opened, dataset, store = open_finished(recipe, overrides, root, plugin)
    from study import analysis
    from study.cli.tables import label_error_table
    from study.cli.use_tables import planted_table
    from study.report.label_errors import write_folder, write_planted

    if dataset.planted is None:
        analysis.known_errors(dataset)
    runs, files = analysis.load_runs(opened, dataset, store), []
    if (dataset.labels != dataset.clean_labels).any():
        errors = analysis.label_errors(runs, dataset)
        label_error_table(errors)
        files += write_folder(errors, dataset.classes, out) if out else []
    if dataset.planted is not None:
        planted = analysis.planted_images(runs, dataset)
        planted_table(planted, dataset)
        files += write_planted(planted, out) if out else []
    for file in files:
        print_line(str(file))
