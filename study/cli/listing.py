"""`study list` and `study show`.  in: a store   out: its runs, one run, as tables or JSON"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.options import AsJson, Root


def list_runs(
    kind: Annotated[
        str, typer.Option(help="ensemble, shard, single, recorded, search, trial, sweep, report or reference")
    ] = "",
    root: Root = Path("mlruns"),
    as_json: AsJson = False,
) -> None:
    """List the runs of the store, newest first."""
    from study.cli.as_json import print_json, run_summary
    from study.cli.tables import listed_runs, runs_table
    from study.tracking import open_store

    store = open_store(root)
    if as_json:
        print_json([run_summary(run) for run in listed_runs(store, kind)])
    else:
        runs_table(store, kind)


def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="the run's id, or its first letters")],
    root: Root = Path("mlruns"),
    as_json: AsJson = False,
) -> None:
    """Show one run: what it was, what came out, its files."""
    from study.cli.as_json import print_json, run_details
    from study.cli.tables import one_run, run_table
    from study.tracking import open_store

    run = one_run(open_store(root), run_id)
    if as_json:
        print_json(run_details(run))
    else:
        run_table(run)
