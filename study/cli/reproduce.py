"""The command `reproduce`.  in: a store   out: the papers' numbers beside those of its runs"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.options import Root
from study.progress import print_line, say


def reproduce(
    root: Root = Path("mlruns"),
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where reproduction.json and .md go")] = None,
) -> None:
    """Set the papers' numbers beside those of finished runs.  Value, interval, scale, and whether they agree."""
    from study.cli.tables import reproduction_table
    from study.experiments import reproduce as papers
    from study.experiments.reproduction_page import summary_of, write_reproduction
    from study.tracking import open_store

    table = papers.reproduce(open_store(root))
    reproduction_table(table)
    say(summary_of(table["verdict"].tolist()))
    for file in write_reproduction(table, out) if out else []:
        print_line(str(file))
