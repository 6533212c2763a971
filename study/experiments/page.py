"""A comparison as files.  in: tables and curves   out: CSV, PNG and a page, in a folder or with the sweep's run"""

import base64
import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from study.experiments.arpit import NOISE, SIZES
from study.experiments.compare import Comparison
from study.experiments.findings import Finding
from study.experiments.folder import write_files
from study.figures.fitting import accuracy_by_size, fitting_side_by_side
from study.figures.side_by_side import learning_curves_side_by_side
from study.figures.style import png_bytes
from study.tracking import Run

FOLDER = "comparison"  # of the sweep's run
ROWS = 60  # of a finding's table that the page shows; longer ones are files
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1f2430;margin:2rem auto;max-width:80rem;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.2rem .6rem;text-align:left;"
    "border-bottom:1px solid #e5e7eb}div{overflow-x:auto}img{max-width:100%}"
)

FIGURES = {  # and what they show
    "learning_curves.png": "Learning curves of the examples grouped by C-score",
    "fitting.png": "Accuracy on unchanged labels, changed labels and test examples by epoch",
    "capacity.png": "Clean test accuracy and epochs to fit every label, over sizes and shares of noise",
}


def write_folder(comparison: Comparison, folder: Path) -> list[Path]:
    """Write the tables as CSV, the figures that there is something to draw in as PNG, and `comparison.html`.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_files(_files(comparison), folder)


def write_run(comparison: Comparison, run: Run) -> None:
    """Keep the same files with a run, below `comparison/`, and the findings' numbers as metrics.

    Files of an earlier comparison are replaced.
    """
    for name, content in _files(comparison):
        run.bytes(f"{FOLDER}/{name}", content)
    for finding in comparison.findings:
        run.log({name: value for name, value in finding.numbers.items() if np.isfinite(value)})


def _files(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    yield "accuracies.csv", comparison.accuracies.to_csv(index=False).encode()
    yield "agreement.csv", comparison.agreement.to_csv(index=False).encode()
    if len(comparison.capacity):
        yield "capacity.csv", comparison.capacity.to_csv(index=False).encode()
    drawn = dict(_figures(comparison))
    yield from drawn.items()
    for finding in comparison.findings:
        if finding.png:
            yield f"{finding.name}.png", finding.png
        if finding.table is not None:
            yield f"{finding.name}.csv", finding.table.to_csv(index=False).encode()
    yield "comparison.html", _page(comparison, drawn).encode()


def _figures(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    """Names and PNGs."""
    if comparison.learning_curves:
        yield "learning_curves.png", png_bytes(learning_curves_side_by_side(comparison.learning_curves))
    if comparison.fitting:
        yield "fitting.png", png_bytes(fitting_side_by_side(comparison.fitting))
    size = next((name for name in SIZES if name in comparison.capacity), None)
    share = next((name for name in NOISE if name in comparison.capacity and name.endswith("share")), None)
    if size and share and not comparison.capacity.duplicated([size, share]).any():  # nothing else differs
        yield "capacity.png", png_bytes(accuracy_by_size(comparison.capacity, size, share))


def _page(comparison: Comparison, drawn: dict[str, bytes]) -> str:
    tables = {
        "Accuracies, means over the repeats": comparison.accuracies,
        "Noise and capacity (A-noise, A-capacity, A-time)": comparison.capacity,
        "Agreement over all pairs": comparison.summary(),
        "Agreement pair by pair, with 95 % intervals": comparison.agreement,
    }
    parts = [f"<!doctype html><meta charset=utf-8><title>Runs side by side</title><style>{STYLE}</style>"]
    parts.append("<h1>Runs side by side</h1>")
    for finding in comparison.findings:
        parts += _section(finding)
    parts += [_image(FIGURES[name], png) for name, png in drawn.items()]
    for title, table in tables.items():
        if len(table):
            parts.append(f"<h2>{html.escape(title)}</h2>{_table(table)}")
    return "\n".join(parts) + "\n"


def _section(finding: Finding) -> list[str]:
    parts = [f"<h2>{html.escape(finding.title)}</h2>"]
    if finding.note:
        parts.append(f"<p>{html.escape(finding.note)}</p>")
    if finding.png:
        parts.append(_image(finding.title, finding.png))
    if finding.table is not None and len(finding.table) <= ROWS:
        parts.append(_table(finding.table))
    return parts


def _image(title: str, png: bytes) -> str:
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(table: pd.DataFrame) -> str:
    text = table.to_html(index=False, border=0, na_rep="", float_format="{:.4f}".format)
    return f"<div>{text}</div>"
