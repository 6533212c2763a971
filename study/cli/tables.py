"""Tables for the terminal.  in: a Store, a Run, a Dataset   out: what is in it, printed"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from study.errors import StoreError
from study.progress import command, duration, number, print_line, printable, say
from study.tracking import Run, Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from study.analysis import LabelErrors
    from study.data import Dataset
    from study.experiments.compare import Comparison
    from study.models.catalog import Row
    from study.recipe.catalog import Header

KINDS = ("ensemble", "single", "recorded", "search", "sweep", "report", "reference")
PARTS = ("shard", "trial")  # children of a run; many of them
TELLING = {  # the metric that sums up a run of each kind
    "ensemble": ("reliability/full", "reliability"),
    "shard": ("holdout/accuracy", "held-out accuracy"),
    "single": ("test/accuracy", "test accuracy"),
    "recorded": ("train/accuracy", "train accuracy"),
    "search": ("search/value", "best"),
    "sweep": ("cells/done", "cells"),
    "trial": ("score", "score"),
    "reference": ("cscore/mean", "mean score"),
}
RANKS = (  # groups of a report's metrics, as its table shows them; the first that is there ranks the rows
    ("rank/spearman", "C-score"),
    ("unsaturated/spearman", "unsaturated"),
    ("soft/spearman", "soft"),
    ("published/spearman", "published"),
)
GROUPS = tuple(f"{group.partition('/')[0]}/{measure}/" for group, _ in RANKS for measure in ("spearman", "kendall"))
WIDE = 240  # columns where there is no terminal to ask
LEADERBOARD = {  # columns of the leaderboard, and how each is headed
    "proxy": "proxy",
    "on": "on",
    "spearman": "Spearman",
    "interval": "95 %",
    "kendall": "Kendall",
    "ceiling": "ceiling",
    "share": "share",
    "kendall_share": "of Kendall",
    "within_class": "in class",
    "within_class_share": "of in class",
    "seeds": "seeds",
    "architectures": "networks",
    "distinct": "distinct",
    "cost": "cost",
    "seconds": "seconds",
    "flops": "FLOPs",
}
LEAST = {  # columns that a narrow terminal does without, the first to go first
    "leaderboard": (
        "of Kendall",
        "of in class",
        "ceiling",
        "FLOPs",
        "95 %",
        "on",
        "distinct",
        "Kendall",
        "networks",
    ),
    "label-errors": ("95 %", "precision", "2 %", "5 %", "AUROC"),
    "runs": ("digest", "took", "started"),
    "proxies": ("source", "cost", "unit", "on"),
    "networks": ("source", "probes", "normalization"),
}


def listed_runs(store: Store, kind: str) -> list[Run]:
    """The runs of one kind, or all but parts of others, newest first."""
    kinds = (*KINDS, *PARTS)
    if kind and kind not in kinds:
        raise StoreError(f"no kind {kind!r}; there are {', '.join(kinds)}")
    return store.find(kind or KINDS)


def runs_table(store: Store, kind: str) -> None:
    """Print the runs, newest first: what, when, how it ended, its telling number."""
    runs = listed_runs(store, kind)
    if not runs:
        print_line(f"{store.where}: no runs yet; `{command('run')}` makes some")
        return
    table = _table("run", "experiment", "name", "status", "started", "took", "digest", "outcome")
    for run in runs:
        table.add_row(
            run.id[:8],
            run.experiment,
            run.name,
            run.status.lower(),
            _clock(run),
            _took(run),
            run.tags.get("study.digest", "")[:8],
            _outcome(run),
        )
    _print(table, LEAST["runs"])
    parts = "" if kind else f"; `{command('list --kind shard')}` lists an ensemble's parts, `--kind trial` a search's"
    say(f"`{command('show ' + runs[0].id[:8])}` tells more of a run{parts}; `{command('ui')}` shows them all")


def run_table(run: Run) -> None:
    """Print one run: parameters, metrics, files.  A report's correlations are a table of their own."""
    table = PlainTable(box=box.SIMPLE_HEAD, show_header=False)
    ended = f", {run.tags['study.end']}" if run.tags.get("study.end") else ""
    table.add_row("run", run.id)
    table.add_row("what", f"{run.experiment}: {run.name}")
    note = run.tags.get("mlflow.note.content", "").strip()
    if note.startswith("> "):
        table.add_row("why", note[2:].splitlines()[0])
    table.add_row("status", f"{run.status.lower()}{ended}")
    table.add_row("started", f"{_clock(run)}" + (f", took {_took(run)}" if run.ended else ""))
    if "report.html" in run.files:
        table.add_row("report", str(run.read("report.html")))
    table.add_row("where", run.store.link(run))
    metrics = [f"{key} = {run.metrics[key]:.6g}" for key in sorted(run.metrics) if not key.startswith(GROUPS)]
    parameters = [f"{key} = {run.params[key]}" for key in sorted(run.params)]
    for title, lines in (("parameters", parameters), ("metrics", metrics), ("files", run.files)):
        table.add_section()
        for index, line in enumerate(lines):
            table.add_row(title if index == 0 else "", line)
    _print(table)
    report_table(run)


def report_table(run: Run) -> None:
    """Print how well each proxy ranks the examples as the C-scores do, the best first; nothing for other runs."""
    groups, rows = _ranks(run.metrics)
    if not rows:
        return
    table = _table("Spearman correlation with", *(title for _, title in groups))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in rows:
        table.add_row(name, *("" if math.isnan(value) else f"{value:+.3f}" for value in values))
    ceilings = [run.metrics.get(f"ceiling/{group.partition('/')[0]}", math.nan) for group, _ in groups]
    if any(map(math.isfinite, ceilings)):
        table.add_section()
        table.add_row("a perfect proxy", *("" if math.isnan(value) else f"{value:+.3f}" for value in ceilings))
    _print(table)


def leaderboard_table(leaderboard: "DataFrame") -> None:
    """Print the leaderboard of proxies, best first; a blank is not known."""
    table = _table(*LEADERBOARD.values())
    for column in table.columns[2:]:
        column.justify = "right"
    for row in _leaderboard_rows(leaderboard):
        table.add_row(*row)
    _print(table, LEAST["leaderboard"])


def leaderboard_markdown(leaderboard: "DataFrame") -> str:
    """The leaderboard as a Markdown table."""
    rows = [
        list(LEADERBOARD.values()),
        ["---", "---", *["---:"] * (len(LEADERBOARD) - 2)],
        *_leaderboard_rows(leaderboard, "`"),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _leaderboard_rows(leaderboard: "DataFrame", quote: str = "") -> list[list[str]]:
    return [[_standing(name, row, quote) for name in LEADERBOARD] for row in leaderboard.to_dict("records")]


def _standing(name: str, row: "Mapping[Hashable, Any]", quote: str) -> str:
    if name == "interval":
        finite = math.isfinite(row["low"]) and math.isfinite(row["high"])
        return f"{row['low']:+.3f} {row['high']:+.3f}" if finite else ""
    value = row[name]
    if isinstance(value, str):
        return f"{quote}{value}{quote}" if name == "proxy" else value
    if math.isnan(value):
        return ""
    if name.endswith("share"):
        return f"{value:.0%}"
    return f"{value:.0f}" if name == "distinct" else f"{value:.3g}" if name in ("seconds", "flops") else f"{value:+.3f}"


def comparison_tables(comparison: "Comparison", *, pairs: bool = False) -> None:
    """Print accuracies, the agreement of scores over all pairs of groups or pair by pair, the numbers of findings."""
    frame_table(comparison.accuracies)
    if len(comparison.capacity):
        frame_table(comparison.capacity)
    if len(comparison.agreement):
        frame_table(comparison.agreement if pairs else comparison.summary())
    for finding in comparison.findings:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in finding.numbers.items())
        print_line(f"{finding.title}{': ' if numbers else ''}{numbers}")


def reproduction_table(table: "DataFrame") -> None:
    """Print the papers' numbers and ours; the scale of ours is on the page that `--out` writes."""
    shown = _table("id", "statistic", "paper", "ours", "95 %", "verdict")
    for column in shown.columns[2:5]:
        column.justify = "right"
    shown.columns[1].no_wrap = False
    for row in table.to_dict("records"):
        what = ", ".join(
            text for name in ("statistic", "data", "condition") if (text := str(row[name])) not in ("", "nan")
        )
        ours, *interval = (f"{row[name]:.3f}" if row[name] == row[name] else "" for name in ("value", "low", "high"))
        shown.add_row(row["id"], what, f"{row['paper']:g}", ours, " ".join(interval), row["verdict"])
    _print(shown)


def label_error_table(errors: "LabelErrors") -> None:
    """Print what each score finds of the known label errors, the best first, and what the votes are worth."""
    print_line(f"{errors.errors:,} of {errors.n:,} training labels are known to be wrong")
    from study.analysis.label_errors import RECALLS

    first, *others = [f"{share:.0%}".replace("%", " %") for share in RECALLS.values()]
    table = _table("score", "AUROC", "average precision", "95 %", "precision", f"found in {first}", *others)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in errors.table.to_dict("records"):
        interval = f"{row['average_precision_low']:.3f} {row['average_precision_high']:.3f}"
        shown = [f"{row[name]:.3f}" for name in ("auroc", "average_precision", "precision", *RECALLS)]
        table.add_row(row["score"], *shown[:2], interval, *shown[2:])
    most = [min(1.0, share * errors.n / errors.errors) for share in RECALLS.values()]
    table.add_row("all errors first", "1.000", "1.000", "", "1.000", *(f"{share:.3f}" for share in most))
    _print(table, LEAST["label-errors"])
    for sentence in errors.sentences():
        print_line(sentence)


def frame_table(frame: "DataFrame") -> None:
    """Print a table as it is."""
    table = _table(*map(str, frame.columns))
    for column in table.columns:
        column.no_wrap = False
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    _print(table)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.4f}"


def dataset_table(dataset: "Dataset", *, near: bool = False) -> None:
    """Print what a data set holds, class by class, what in it cannot be used, which images repeat others or are odd."""
    from study.data.findings import sentences

    channels, height, width = dataset.shape
    size = f"{channels} features" if dataset.is_features else f"{height} x {width} x {channels}"
    print_line(
        f"{dataset.name}: {dataset.n_train} train, {dataset.n_test} test examples of {dataset.n_classes} classes, "
        f"{size}, digest {dataset.digest}"
    )
    table = _table("class", "train", "test")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, name in enumerate(dataset.classes):
        counts = ((dataset.labels[dataset.rows(split)] == label).sum() for split in ("train", "test"))
        table.add_row(" ".join(name.split()), *map(str, counts))
    _print(table)
    if dataset.labels_before_noise is not None:
        wrong = int((dataset.labels != dataset.clean_labels).sum())
        share = wrong / dataset.n_train
        print_line(f"label noise: {wrong} of {dataset.n_train} train labels ({share:.1%}) are not as found")
    if dataset.planted is not None:
        for kind, count in Counter(dataset.planted[dataset.planted != ""].tolist()).items():
            print_line(f"{kind}: {count} of {dataset.n_train} train images")
    for line in dataset.unusable:
        print_line(f"not usable: {line}")
    for sentence, images in sentences(dataset, near=near):
        print_line(sentence)
        for line in images:
            print_line(f"    {line}")


def proxies_table() -> None:
    """Print every registered proxy with what is declared about it."""
    from study.proxies import PROXIES

    table = _table("proxy", "family", "easy", "unit", "on", "cost", "source")
    for spec in PROXIES.values():
        table.add_row(spec.name, spec.family, spec.direction, spec.unit, spec.on, spec.cost, spec.source)
    _print(table, LEAST["proxies"])


def networks_table(rows: "Sequence[Row]") -> None:
    """Print this project's networks: what each is, what it costs, where it comes from."""
    table = _table("network", "what", "parameters", "FLOP", "normalization", "probes", "source")
    for row in rows:
        cost = number(row.flops, "FLOP")
        table.add_row(
            row.name, row.what, f"{row.parameters:,}", cost, row.normalization, str(row.placements), row.source
        )
    _print(table, LEAST["networks"])


def recipes_table(titles: "Sequence[Header]", folder: Path) -> None:
    """Print the recipes of a folder: file and cost, below them what each is for."""
    for title in titles:
        print_line(f"{title.file.relative_to(folder)}  ({title.cost})\n    {title.claim}")


def one_run(store: Store, prefix: str) -> Run:
    """The run whose id begins so.

    Raises:
        StoreError: none, or several.
    """
    matches = [run for run in store.find() if run.id.startswith(prefix)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise StoreError(f"no run with an id that begins with {prefix!r}; `{command('list')}` shows the ids")
    some = ", ".join(run.id[: max(8, len(prefix) + 2)] for run in matches[:4])
    more = ", ..." if len(matches) > 4 else ""
    raise StoreError(f"{len(matches)} runs have an id that begins with {prefix!r} ({some}{more}); type more of it")


def _ranks(metrics: Mapping[str, float]) -> tuple[list[tuple[str, str]], list[tuple[str, list[float]]]]:
    """The rank correlations among the metrics: (group, title) that are there, (proxy, value per group), best first."""
    groups = [(group, title) for group, title in RANKS if any(key.startswith(f"{group}/") for key in metrics)]
    names = {key.rpartition("/")[2] for key in metrics for group, _ in groups if key.startswith(f"{group}/")}
    rows = [(name, [metrics.get(f"{group}/{name}", math.nan) for group, _ in groups]) for name in names]
    return groups, sorted(rows, key=lambda row: (math.isnan(row[1][0]), -row[1][0], row[0]))


class PlainTable(Table):
    """A table whose cells are text as it is: brackets are no markup, control characters are written out."""

    def add_row(self, *cells: str, **style: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add one row."""
        super().add_row(*(Text(printable(cell)) for cell in cells), **style)


def _table(*names: str) -> Table:
    """A table in which names and sentences may wrap; numbers and ids are kept whole."""
    table = PlainTable(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name not in ("name", "outcome", "source", "class"), overflow="fold")
    return table


def _print(table: Table, least: Sequence[str] = ()) -> None:
    """At the width of the terminal, without the `least` columns where it is narrow; elsewhere all of it."""
    console = Console()
    if not console.is_terminal:
        _print_plain(table)
        return
    for name in least:
        if Measurement.get(console, console.options.update(max_width=WIDE), table).maximum > console.width:
            table.columns = [column for column in table.columns if column.header != name]
    console.print(table)


def _print_plain(table: Table) -> None:
    """Wide enough for every column, and without blanks at the ends of lines, for files and other programs."""
    plain = Console(width=WIDE, no_color=True, highlight=False)
    with plain.capture() as captured:
        plain.print(table)
    lines = (line.rstrip() for line in captured.get().splitlines())
    print_line("\n".join(line for line in lines if line))


def _clock(run: Run) -> str:
    return datetime.fromtimestamp(run.started / 1000).strftime("%Y-%m-%d %H:%M")


def _took(run: Run) -> str:
    return duration((run.ended - run.started) / 1000) if run.ended else ""


def _outcome(run: Run) -> str:
    if run.tags.get("study.kind") == "report":
        _, rows = _ranks(run.metrics)
        return f"best: {rows[0][0]} {rows[0][1][0]:.3f}" if rows else ""
    metric, title = TELLING.get(run.tags.get("study.kind", ""), ("", ""))
    return f"{title} {run.metrics[metric]:.3f}" if metric in run.metrics else ""
