"""The page a person reads.  in: facts, correlation table, figures, tables, ids of the runs read   out: one HTML file

Everything is inside the file: the MLflow UI shows it in a sandboxed frame that loads nothing else.
"""

import base64
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from study.figures.style import INCH, png_bytes
from study.report.gallery import Suspect, review_data

ROWS = 100  # of a table that are shown; the artifact has all
REFERENCES = {"cscore": "C-score", "cscore_soft": "soft C-score", "published": "published C-score"}
PARTS = {"all": "all examples", "unsaturated": "unsaturated only"}
COLOUR = re.compile(r"#[0-9a-f]{6}")
NUMBERS = ["spearman", "low", "high", "kendall", "kendall_low", "kendall_high", "ceiling", "n", "distinct"]


@dataclass(frozen=True)
class FigureSection:
    """A figure of the page: the paper's id (`J-fig2`), a heading, one sentence on what it shows, the figure."""

    id: str
    title: str
    sentence: str
    figure: Figure


@dataclass(frozen=True)
class TableSection:
    """A table of the page: heading, frame, one sentence; its first 100 rows are shown."""

    title: str
    frame: pd.DataFrame
    sentence: str = ""


@dataclass(frozen=True)
class FileEntry:
    """An artifact: its name, its content, the run that holds it (None: the report's own run), a link to download it."""

    name: str
    content: str
    run: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class RunEntry:
    """A run that was read: its id, its title, and its address in the MLflow UI (http or https, else no link)."""

    run: str
    title: str = ""
    link: str | None = None


def write_report(
    path: Path | str,
    *,
    title: str,
    facts: Mapping[str, str],
    correlations: pd.DataFrame,
    figures: Sequence[FigureSection],
    tables: Sequence[TableSection] = (),
    files: Sequence[FileEntry] = (),
    runs: Sequence[RunEntry] = (),
    colours: Mapping[str, str] = MappingProxyType({}),
    suspects: Sequence[Suspect] = (),
    ranked_by: str = "",
    classes: Sequence[str] = (),
    data_digest: str = "",
    folded: bool = False,
) -> Path:
    """Write the report: correlation tables, facts, figures, tables, files, runs, in one HTML file.

    Args:
        path: of the file; an existing one is replaced atomically.
        title: heading of the page.
        facts: about the runs, name: value, in this order; "trust", "decisions", "data" and "ensemble" also
            open the page.
        correlations: the table `correlations.parquet`: `proxy` `label` `family` `easy` `on` `reference` `part` `repeat`
            `spearman` `low` `high` `kendall` `kendall_low` `kendall_high` `ceiling` `n` `distinct`;
            repeats are averaged.
        figures: in the order of the page.
        tables: further tables, below the figures.
        files: artifacts of the report and of the runs read.
        runs: the runs read.
        colours: of the proxies' families, as in the figures; a family without one is grey.
        suspects: the pictures at the top of the page.
        ranked_by: the name of their score.
        classes: that a suspect may be given.
        data_digest: by which a file of decisions says of which data it is.
        folded: whether everything below the suspects opens on a click.
    """
    pictures = [
        {"anchor": f"figure-{i}", "id": s.id, "title": s.title, "sentence": s.sentence, **render_figure(s.figure)}
        for i, s in enumerate(figures, 1)
    ]
    frames = [{"anchor": f"table-{i}", "table": t, **cells(t.frame)} for i, t in enumerate(tables, 1)]
    entries = [{"run": entry.run, "title": entry.title, "link": _safe(entry.link)} for entry in runs]
    page = _template().render(
        title=title,
        facts=facts,
        groups=groups(correlations),
        pictures=pictures,
        places={picture["id"]: picture["anchor"] for picture in pictures},
        frames=frames,
        files=[{**asdict(entry), "link": _safe(entry.link)} for entry in files],
        runs=entries,
        rows=ROWS,
        suspects=suspects,
        review=review_data(suspects, classes, data_digest),
        ranked_by=ranked_by,
        folded=folded,
        colours={family: colour for family, colour in colours.items() if COLOUR.fullmatch(colour)},
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    return path


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("study.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "coefficient": format_coefficient,
        "percent": bar_percent,
        "score": format_score,
        "breakable": breakable,
    }
    return environment.get_template("template.html")


def _safe(link: str | None) -> str | None:
    """Let only web addresses through; a `javascript:` link would run in the page."""
    return link if link and link.startswith(("http://", "https://")) else None


def render_figure(figure: Figure) -> dict[str, str | int]:
    """Render a figure as a data URI: the same PNG as the artifact, at two pixels per CSS pixel.

    Returns:
        `uri`, and `width` and `height` in CSS pixels.
    """
    width, height = (round(INCH * side) for side in figure.get_size_inches())
    uri = "data:image/png;base64," + base64.b64encode(png_bytes(figure)).decode()
    return {"uri": uri, "width": width, "height": height}


def groups(correlations: pd.DataFrame) -> list[dict[str, Any]]:
    """Split the correlations into one table per reference and part, best proxy first; repeats are averaged.

    Returns:
        [{name, ceilings, repeats, sides, rows}], the C-score on all examples first. `ceilings`: {on: noise ceiling}.
    """
    by_reference_and_part = []
    orders = [list(REFERENCES), list(PARTS)]
    for (reference, part), rows in correlations.groupby(["reference", "part"], sort=False):
        keys = ["proxy", "label", "family", "easy", "on"]
        means = rows.groupby(keys, sort=False, dropna=False)[NUMBERS].mean()
        means = means.reset_index().sort_values("spearman", ascending=False, kind="stable", na_position="last")
        names = zip(orders, (reference, part), strict=True)
        place = [order.index(name) if name in order else len(order) for order, name in names]
        by_reference_and_part.append(
            {
                "name": f"{REFERENCES.get(reference, reference)}, {PARTS.get(part, part)}",
                "place": place,
                "ceilings": means.dropna(subset=["ceiling"]).groupby("on")["ceiling"].max().to_dict(),
                "repeats": rows["repeat"].nunique(),
                "sides": means["on"].nunique() > 1,
                "rows": means.to_dict("records"),
            }
        )
    return sorted(by_reference_and_part, key=lambda group: group["place"])


def cells(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Turn the first rows of a table into text: `columns`, `body`, and `numeric`, which columns are numbers."""
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype != bool for name in frame]
    columns = [_column(frame[name].head(ROWS)) for name in frame]
    return {"columns": [str(name) for name in frame], "numeric": numeric, "body": list(zip(*columns, strict=True))}


def _column(values: pd.Series) -> list[str]:
    """Floats between -1 and 1, scores as a rule, share as many decimals as one needs, up to three; others four digits.

    Whole numbers of five digits and more come in groups of three.
    """
    if not pd.api.types.is_float_dtype(values):
        return [str(value) for value in values]
    present = values[values.notna()]
    small = bool(present.abs().max() <= 1)
    decimals = max((len(f"{value:.3f}".rstrip("0").partition(".")[2]) for value in present), default=0)
    return [_number(value, decimals if small else None) for value in values]


def _number(value: float, decimals: int | None) -> str:
    if math.isnan(value):
        return "–"
    if decimals is not None:
        text = f"{value:.{decimals}f}"
    else:
        text = f"{value:,.0f}".replace(",", " ") if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return text.replace("-", "−")


def format_coefficient(value: float) -> str:
    """Write a correlation with three decimals and a true minus; a missing one as a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}".replace("-", "−")


def format_score(value: float) -> str:
    """Write a score with three decimals, a small one with two digits, so that no two scores read 0.000."""
    if not math.isfinite(value):
        return "–"
    decimals = 3 if value == 0 or abs(value) >= 0.01 else min(1 - math.floor(math.log10(abs(value))), 12)
    return f"{value:.{decimals}f}".replace("-", "−")


def breakable(path: str) -> Markup:
    """A path that breaks after a folder rather than inside a file's ending."""
    return Markup("/<wbr>").join(escape(part) for part in path.split("/"))


def bar_percent(value: float) -> str:
    """Give the length of a bar in percent of its track, from the size of a correlation."""
    return f"{100 * min(abs(value), 1.0):.1f}" if value is not None and math.isfinite(value) else "0"
