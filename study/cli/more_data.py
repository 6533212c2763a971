"""`study more-data`.  in: a command line   out: a table on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.opening import open_finished
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import print_line


def more_data(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    times: Annotated[float, typer.Option(min=1.01, help="how much larger the training set would be")] = 2.0,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where tables (CSV) and figure (PNG) go")] = None,
) -> None:
    """Say which classes more training data would help."""
    opened, dataset, store = open_finished(recipe, overrides, root, plugin)
    from study import analysis
    from study.cli.use_tables import collection_table
    from study.uses import collection
    from study.uses.files import write_collection

    collected = collection.more_data(analysis.load_runs(opened, dataset, store), dataset, times=times, seed=opened.seed)
    collection_table(collected)
    for file in write_collection(collected, out) if out else []:
        print_line(str(file))
