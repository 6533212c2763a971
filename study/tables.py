"""Tables for the terminal.  in: a Store   out: what is in it, printed"""

from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from study.display import duration
from study.errors import StoreError
from study.proxies import PROXIES
from study.tracking import Run, Store

KINDS = ("ensemble", "single", "report", "reference")
TELLING = {  # the metric that sums up a run of each kind
    "ensemble": ("reliability/full", "reliability"),
    "shard": ("holdout/accuracy", "held-out accuracy"),
    "single": ("test/accuracy", "test accuracy"),
    "report": ("rank/spearman/cbtl", "Spearman of CBTL"),
    "reference": ("cscore/mean", "mean score"),
}


def runs_table(store: Store, kind: str) -> None:
    """Print the runs, newest first: what, when, how it ended, its telling number."""
    if kind and kind not in TELLING:
        raise StoreError(f"no kind {kind!r}; there are {', '.join(TELLING)}")
    runs = store.find(kind) if kind else [run for run in store.find() if run.tags.get("study.kind") in KINDS]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in ("run", "experiment", "name", "status", "started", "took", "digest", "outcome"):
        table.add_column(name, no_wrap=name in ("run", "digest", "started", "took"))
    for run in runs:
        table.add_row(
            run.id[:8],
            run.experiment,
            run.name,
            run.status,
            _clock(run),
            _took(run),
            run.tags.get("study.digest", "")[:8],
            _outcome(run),
        )
    _print(table if runs else f"{store.where}: no runs yet; `study run` makes some")


def run_table(store: Store, prefix: str) -> None:
    """Print one run: parameters, metrics, files."""
    found = [run for run in store.find() if run.id.startswith(prefix)]
    if len(found) != 1:
        how = "no run" if not found else f"{len(found)} runs"
        raise StoreError(f"{how} with an id that begins with {prefix!r}; `study list` shows the ids")
    run = found[0]
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_row("run", run.id)
    table.add_row("what", f"{run.experiment}: {run.name}")
    table.add_row("status", f"{run.status} {run.tags.get('study.end', '')}")
    table.add_row("started", f"{_clock(run)}, took {_took(run)}")
    table.add_row("where", store.link(run))
    for title, values in (
        ("parameters", run.params),
        ("metrics", {key: f"{run.metrics[key]:.6g}" for key in run.metrics}),
    ):
        table.add_section()
        for number, key in enumerate(sorted(values)):
            table.add_row(title if number == 0 else "", f"{key} = {values[key]}")
    table.add_section()
    for number, name in enumerate(run.files):
        table.add_row("files" if number == 0 else "", name)
    _print(table)


def proxies_table() -> None:
    """Print every registered proxy with what is declared about it."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in ("proxy", "family", "easy", "unit", "on", "cost", "source"):
        table.add_column(name)
    for spec in PROXIES.values():
        table.add_row(spec.name, spec.family, spec.easy, spec.unit, spec.on, spec.cost, spec.source)
    _print(table)


def _print(what: Table | str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(what)


def _clock(run: Run) -> str:
    return datetime.fromtimestamp(run.started / 1000).strftime("%Y-%m-%d %H:%M")


def _took(run: Run) -> str:
    return duration((run.ended - run.started) / 1000) if run.ended else ""


def _outcome(run: Run) -> str:
    metric, words = TELLING.get(run.tags.get("study.kind", ""), ("", ""))
    return f"{words} {run.metrics[metric]:.3f}" if metric in run.metrics else ""
