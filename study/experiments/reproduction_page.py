"""The reproduction table as files.  in: the table of `reproduce`   out: reproduction.json, reproduction.md"""

import json
from collections import Counter
from pathlib import Path

import pandas as pd

from study.experiments.folder import write_files

INTRODUCTION = """# The papers' numbers beside ours

Made by `study reproduce --out docs` from finished runs; nothing in it is written by hand. The papers' numbers are in
`study/experiments/paper_numbers.csv`, with the place where each stands. A number of ours **agrees** if it is of the
same data and network and the paper's value lies in our 95 % interval, or within .05 of a correlation, .01 of an
accuracy and .25 of an error in epochs, or between half and twice a mean margin. On other data, on a part of the data or
with another network it is shown as **other scale** and not judged.
"""
HEADINGS = ("number", "paper", "ours", "of ours", "verdict", "run")


def write_reproduction(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the table as JSON, and from that the page.

    Raises:
        StoreError: the folder cannot be written.
    """
    text = table.to_json(orient="records", indent=1, double_precision=6) or ""
    page = reproduction_markdown(json.loads(text))
    files = (("reproduction.json", f"{text}\n"), ("reproduction.md", page))
    return write_files([(name, content.encode()) for name, content in files], folder)


def summary_of(verdicts: list[str]) -> str:
    """How many numbers there are, how many of them have one of ours beside them, how many have each verdict.

    >>> summary_of(["other scale", "no run", "other scale"])
    '3 numbers, 2 with ours: 2 other scale, 1 no run'
    """
    counts = ", ".join(f"{count} {name}" for name, count in Counter(verdicts).most_common())
    return f"{len(verdicts)} numbers, {len(verdicts) - verdicts.count('no run')} with ours: {counts}"


def reproduction_markdown(rows: list[dict]) -> str:
    """The page: what it is, how many agree, a table per paper."""
    parts = [INTRODUCTION, f"{summary_of([row['verdict'] for row in rows])}.\n"]
    for paper in dict.fromkeys(row["place"].partition(",")[0] for row in rows):
        lines = [f"| {' | '.join(HEADINGS)} |", f"| {' | '.join(['---'] * len(HEADINGS))} |"]
        lines += [_row(row) for row in rows if row["place"].startswith(f"{paper},")]
        parts.append(f"## {paper}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _row(row: dict) -> str:
    what = f"{row['id']}: {row['statistic']}, {row['data']}, {row['network']}" + (
        f", {row['condition']}" if row["condition"] else ""
    )
    if row["verdict"] == "no run":
        ours = scale = run = ""
    else:
        interval = f" ({row['low']:.3g} to {row['high']:.3g})" if row["low"] is not None else ""
        ours, run = f"{row['value']:.4g}{interval}", f"`{row['run'][:8]}`"
        scale = f"{row['ours_data']}: {row['scale']}; {row['device']}, {row['date']}"
    cells = (what, f"{row['paper']:.4g} ({row['place'].partition(', ')[2]})", ours, scale, row["verdict"], run)
    return f"| {' | '.join(cells)} |"
