"""The reproduction table as files.  in: the table of `reproduce`   out: reproduction.json, reproduction.md"""

import json
from pathlib import Path

import pandas as pd

from study.experiments.folder import write_files

INTRODUCTION = """# The papers' numbers beside ours

Made by `study reproduce --out docs` from finished runs; nothing in it is written by hand. The papers' numbers are in
`study/experiments/paper_numbers.csv`, with the place where each stands. A number of ours **agrees** if it is of the
same data and network and the paper's value lies in our 95 % interval, or within .05 of a correlation, .01 of an
accuracy and .25 of an error in epochs, or between half and twice a mean margin. On other data or another network it is
shown as **other scale** and not judged.
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


def reproduction_markdown(rows: list[dict]) -> str:
    """The page: what it is, how many agree, a table per paper."""
    counts = pd.Series([row["verdict"] for row in rows]).value_counts()
    parts = [INTRODUCTION, f"{len(rows)} numbers: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + ".\n"]
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
