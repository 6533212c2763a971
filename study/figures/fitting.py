"""Noise that is fitted.  in: curves of several groups of runs, a table of sizes   out: Figure"""

import textwrap
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from study.figures.style import new_figure, sentence_figure, sequential, styled

ACROSS = 3  # panels in a row
WIDTH = 36  # letters in a line above a panel
KINDS = (("unchanged", "-", 0.9), ("changed", "--", 0.5), ("test", ":", 0.25))


class Curves(Protocol):
    """Curves of one group of single runs, see `study.experiments.arpit.FittingCurves`."""

    label: str
    epochs: np.ndarray
    unchanged: np.ndarray
    changed: np.ndarray
    test: np.ndarray


@styled
def fitting_side_by_side(groups: Sequence[Curves]) -> Figure:
    """Accuracy on unchanged labels, changed labels and test examples by epoch, a panel per group (A-noise)."""
    title = "Real labels are fitted before changed ones"
    if not groups:
        return sentence_figure(title, "No single runs were compared.")
    across = min(ACROSS, len(groups))
    down = -(-len(groups) // across)
    figure = new_figure(3.4 * across, 3.0 * down + 0.4, title)
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, group in zip(panels.flat, groups, strict=False):
        for name, line, level in KINDS:
            values = getattr(group, name)
            if np.isfinite(values).any():
                axes.plot(group.epochs, 100 * values, line, color=sequential()(level))
        kept_together = group.label.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
        axes.set_title("\n".join(textwrap.wrap(kept_together, WIDTH)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
    for axes in list(panels.flat)[len(groups) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set(ylabel="% right", ylim=(-2, 102))
    lines = [Line2D([], [], linestyle=line, color=sequential()(level)) for _, line, level in KINDS]
    panels[0, 0].legend(
        lines, [f"{name} labels" if name != "test" else "test" for name, _, _ in KINDS], loc="center right"
    )
    return figure


@styled
def accuracy_by_size(table: pd.DataFrame, size: str, share: str) -> Figure:
    """Clean test accuracy, and epochs to fit all labels, over sizes, a line per share of noise (A-capacity, A-time).

    Args:
        table: `test/accuracy`, `epochs to fit`, and the columns `size` and `share`.
        size: the column along the axis, in the table's order.
        share: the column that makes the lines.
    """
    figure = new_figure(9.0, 3.4, "Capacity: clean test accuracy, and the time to fit every label")
    panels = figure.subplots(1, 2)
    sizes = list(dict.fromkeys(table[size]))
    shares = list(dict.fromkeys(table[share]))
    for place, value in enumerate(shares):
        rows = table[table[share] == value].set_index(size).reindex(sizes)
        colour = sequential()(0.2 + 0.7 * place / max(1, len(shares) - 1))
        for axes, name, scale in ((panels[0], "test/accuracy", 100), (panels[1], "epochs to fit", 1)):
            axes.plot(range(len(sizes)), scale * rows[name], "o-", color=colour, label=f"{share} = {value}")
    for axes, label in zip(panels, ("% of the test examples right", "epochs until every label is fitted"), strict=True):
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set(xlabel=size, ylabel=label)
    panels[0].legend()
    return figure
