"""Runs side by side.  in: learning curves of several groups of runs   out: Figure"""

import textwrap
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.figures.epochs import grouped_accuracy
from study.figures.style import new_figure, sentence_figure, sequential, shade, styled

ACROSS = 3  # panels in a row
WIDTH = 36  # letters in a line above a panel


class Curves(Protocol):
    """Curves of one group of single runs, see `study.experiments.compare.LearningCurves`."""

    label: str
    epochs: np.ndarray
    correct: np.ndarray
    cscore: np.ndarray
    ensemble: str


@styled
def learning_curves_side_by_side(groups: Sequence[Curves], *, width: float = 0.1) -> Figure:
    """Learning curves of the training examples grouped by C-score, a panel per group of runs (J-fig10, J-fig17 to 19).

    Args:
        groups: of each `correct` (e, n), the share of its runs that classify an example correctly after an epoch,
            `cscore` (n,), NaN where missing, `epochs` (e,), `label`.
        width: of a bin of scores; bins of fewer than ten examples are drawn thin.
    """
    title = "How fast examples are learned, grouped by their C-score; thin: fewer than 10 examples"
    if not groups:
        return sentence_figure(title, "No single runs on data with C-scores were compared.")
    across = min(ACROSS, len(groups))
    down = -(-len(groups) // across)
    figure = new_figure(3.4 * across + 1.2, 2.9 * down + 0.4, title)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes, group in zip(panels.flat, groups, strict=False):
        edges, counts, curves = grouped_accuracy(group.correct, group.cscore, width=width)
        for middle, count, curve in zip((edges[:-1] + edges[1:]) / 2, counts, curves, strict=True):
            if count:
                axes.plot(group.epochs, 100 * curve, color=shade(middle), lw=0.7 if count < 10 else 1.5)
        kept_together = group.label.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
        axes.set_title("\n".join(textwrap.wrap(kept_together, WIDTH)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(panels.flat)[len(groups) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set(ylabel="% of the group right", ylim=(-2, 102))
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    names = ", ".join(dict.fromkeys(group.ensemble for group in groups))
    scale = ScalarMappable(Normalize(0, 1), sequential())
    figure.colorbar(scale, ax=panels, label=f"C-score\n({names})", shrink=0.8)
    return figure
