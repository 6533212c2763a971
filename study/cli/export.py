"""`study export` and `study publish`.  in: a recipe whose runs are finished   out: files for other programs"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.opening import open_finished
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import print_line, say


def export(
    recipe: RecipePath,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="csv, cleanlab, fiftyone or labelstudio")] = "csv",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="where the files go")] = Path("export"),
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
) -> None:
    """Write scores as files that other programs read."""
    opened, dataset, store = open_finished(recipe, overrides, root, plugin)
    from study.experiments.folder import write_files
    from study.workflows.export import export_files

    for file in write_files(export_files(opened, dataset, store, to), out):
        print_line(str(file))


def publish(
    recipe: RecipePath,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="of the data set; made if it is not there")],
    license: Annotated[
        str, typer.Option("--license", metavar="NAME", help="of the scores, as the hub names it: cc-by-4.0")
    ] = "unknown",
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
) -> None:
    """Write C-scores as a data set folder for the hub.

    A Parquet table, the recipe and a card.  Nothing is uploaded.  `study reference` reads such a folder.
    """
    opened, dataset, store = open_finished(recipe, overrides, root, plugin)
    from study.experiments.folder import write_files
    from study.workflows.publish import published_files

    for file in write_files(published_files(opened, dataset, store, license=license), folder):
        print_line(str(file))
    say(f"to upload: hf upload USER/NAME {folder} --repo-type dataset")
