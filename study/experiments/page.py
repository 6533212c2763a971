"""A comparison as files.  in: tables and a figure   out: CSV, PNG and a page, in a folder or with the sweep's run"""

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from study.errors import StoreError
from study.tracking import Run

FOLDER = "comparison"  # of the sweep's run
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1f2430;margin:2rem auto;max-width:80rem;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.2rem .6rem;text-align:left;"
    "border-bottom:1px solid #e5e7eb}div{overflow-x:auto}img{max-width:100%}"
)


@dataclass(frozen=True)
class Comparison:
    """What several runs say beside each other.

    accuracies: see `study.experiments.compare.accuracy_table`.
    agreement: see `study.experiments.compare.agreement`.
    learning_curves: by C-score, a panel per group of runs; None where no data have C-scores.
    """

    accuracies: pd.DataFrame
    agreement: pd.DataFrame
    learning_curves: Figure | None

    def summary(self) -> pd.DataFrame:
        """The agreement over all pairs: score | split | pairs | pearson, spearman, kendall, mean and lowest of each."""
        grouped = self.agreement.groupby(["score", "split"], sort=False)
        columns = {"pairs": grouped.size()}
        for name in ("pearson", "spearman", "kendall"):
            columns |= {name: grouped[name].mean(), f"lowest {name}": grouped[name].min()}
        return pd.DataFrame(columns).reset_index()


def write_folder(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `accuracies.csv`, `agreement.csv`, `learning_curves.png` and `comparison.html`.

    Raises:
        StoreError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in _files(comparison):
            (folder / name).write_bytes(content)
            written.append(folder / name)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}; name another folder with --out") from None
    return written


def write_run(comparison: Comparison, run: Run) -> None:
    """Keep the same files with a run, below `comparison/`; those of an earlier comparison are replaced."""
    for name, content in _files(comparison):
        run.bytes(f"{FOLDER}/{name}", content)


def _files(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    yield "accuracies.csv", comparison.accuracies.to_csv(index=False).encode()
    yield "agreement.csv", comparison.agreement.to_csv(index=False).encode()
    png = b""
    if comparison.learning_curves is not None:
        with io.BytesIO() as drawing:
            comparison.learning_curves.savefig(drawing, format="png")
            png = drawing.getvalue()
        yield "learning_curves.png", png
    yield "comparison.html", _page(comparison, png).encode()


def _page(comparison: Comparison, png: bytes) -> str:
    tables = {
        "Accuracies, means over the repeats": comparison.accuracies,
        "Agreement over all pairs": comparison.summary(),
        "Agreement pair by pair, with 95 % intervals": comparison.agreement,
    }
    parts = [f"<!doctype html><meta charset=utf-8><title>Runs side by side</title><style>{STYLE}</style>"]
    parts.append("<h1>Runs side by side</h1>")
    if png:
        alternative = html.escape("Learning curves of the examples grouped by C-score", quote=True)
        parts.append(f'<img alt="{alternative}" src="data:image/png;base64,{base64.b64encode(png).decode()}">')
    for title, table in tables.items():
        if len(table):
            text = table.to_html(index=False, border=0, na_rep="", float_format="{:.4f}".format)
            parts.append(f"<h2>{html.escape(title)}</h2><div>{text}</div>")
    return "\n".join(parts) + "\n"
