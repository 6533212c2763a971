"""Label errors that a list of suspects finds.  in: inspection curves, counts of labels   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures.style import (
    FAINT,
    FAMILY_COLOURS,
    INK,
    class_names,
    family_colour,
    legible,
    new_figure,
    sequential,
    styled,
)

SHOWN = 6  # curves with a name
CLASSES = 20  # up to which the cells of a matrix have their numbers


@styled
def inspection_curves(curves: pd.DataFrame, table: pd.DataFrame, share: float) -> Figure:
    """Share of the label errors found against the share of the examples inspected, the most suspect first.

    Args:
        curves: `score` | `inspected` `recall`, see `analysis.LabelErrors`.
        table: one row per score, the best first: `score` `label` `family` `average_precision`.
        share: of the examples whose label is wrong.
    """
    figure = new_figure(8.2, 4.4, "Label errors found by inspecting the most suspect examples first")
    axes = figure.subplots()
    axes.plot([0, 100 * share, 100], [0, 100, 100], color=INK, lw=1, ls=":", label="all errors first")
    axes.plot([0, 100], [0, 100], color=FAINT, lw=1, ls="--", label="random order")
    for place, row in enumerate(table.to_dict("records")):
        curve = curves[curves["score"] == row["score"]]
        named = place < SHOWN
        axes.plot(
            100 * curve["inspected"],
            100 * curve["recall"],
            color=_colour(row["family"]) if named else "#d5d9e0",
            ls=("-", "--", "-.")[place % 3] if named else "-",
            lw=1.6 if named else 0.8,
            zorder=3 if named else 1,
            label=f"{legible(row['label'], 40)} ({row['average_precision']:.2f})" if named else None,
        )
    axes.set(xlim=(0, min(100, max(10, 400 * share))), ylim=(0, 101))
    axes.set(xlabel="% of the examples inspected", ylabel="% of the label errors found")
    legend = axes.legend(loc="lower right", title="the best (average precision)", title_fontsize=8, alignment="left")
    legend.set(frame_on=True, zorder=4)
    legend.get_frame().set(linewidth=0, alpha=0.9)
    return figure


@styled
def noise_matrices(joint: np.ndarray, true: np.ndarray, classes: Sequence[str]) -> Figure:
    """The confident joint beside the true counts: given labels in rows, the other class in columns.

    Args:
        joint, true: (c, c), see `analysis.LabelErrors`; the diagonals are left blank.
        classes: (c,) names.
    """
    c = len(classes)
    side = min(9.0, max(3.2, 0.34 * c + 1.4))
    figure = new_figure(2 * side, side + 0.5, "Wrong labels by class: what networks suspect, and what is true")
    titles = ("predicted by networks trained without the example", "class before the label was changed")
    panels = figure.subplots(1, 2)
    top = max(1, *(_off_diagonal(counts).max(initial=0) for counts in (joint, true)))
    for axes, counts, title in zip(panels, (joint, true), titles, strict=True):
        _matrix(axes, _off_diagonal(counts), top, class_names(classes))
        axes.set(xlabel=title, ylabel="given label")
    return figure


def _off_diagonal(counts: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(counts), dtype=bool), 0, counts)


def _matrix(axes: Axes, counts: np.ndarray, top: float, names: list[str]) -> None:
    c = len(names)
    axes.imshow(np.ma.masked_where(np.eye(c, dtype=bool), counts), cmap=sequential(), vmin=0, vmax=top)
    axes.grid(visible=False)
    every = -(-c // 40)
    shown = [legible(name, 14) for name in names[::every]]
    axes.set_xticks(range(0, c, every), shown, rotation=90)
    axes.set_yticks(range(0, c, every), shown)
    if c > CLASSES:
        return
    for row, column in zip(*np.nonzero(counts), strict=True):
        bright = counts[row, column] > 0.6 * top
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=INK if bright else "white")


def _colour(family: str) -> str:
    return family_colour(family) if family in FAMILY_COLOURS else INK
