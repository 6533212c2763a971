"""C-scores over data sets and classes (Jiang et al.).  in: tables, images   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.figures.depth_members import CYCLE
from study.figures.images import rgb_image
from study.figures.style import BLUE, FAINT, class_names, legible, new_figure, plain, score_axis, short_number, styled

BINS = 20  # of a class's histogram
CHOSEN = ("label", "percentile", "row", "cscore")
COLUMNS = ("ratio", "low", "high", "spearman", "kendall")


@styled
def point_estimates_of(table: pd.DataFrame) -> Figure:
    """Rank correlation of single ratios with the integral C-score, a colour per data set (J-fig5).

    Args:
        table: `group` | `equal` (at equal numbers of predictions) | `ratio` | `spearman` `low` `high` | `kendall`.

    Solid: Spearman with its interval; dashed: Kendall; a ring marks the highest value.
    """
    figure = new_figure(9.4, 3.9, "How well a single subset ratio ranks the examples like all ratios together")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, equal in zip(panels, (False, True), strict=True):
        for place, group in enumerate(dict.fromkeys(table["group"])):
            chosen = np.asarray((table["group"] == group) & (table["equal"] == equal))
            ratio, low, high, rho, tau = (np.asarray(table[name], dtype=float)[chosen] for name in COLUMNS)
            colour, percent = CYCLE[place % len(CYCLE)], 100 * ratio
            axes.fill_between(percent, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(percent, rho, color=colour, marker="o", ms=3.5, label=group)
            axes.plot(percent, tau, color=colour, ls=(0, (4, 2)))
            for values in (rho, tau):
                if np.isfinite(values).any():
                    best = np.nanargmax(values)
                    axes.plot(percent[best], values[best], marker="o", ms=9, mfc="none", mec=colour, mew=1.3)
        axes.set(xlabel="subset ratio: % of the data trained on")
        axes.set_title("at equal numbers of held-out predictions" if equal else "all held-out predictions")
        percent = sorted({100 * ratio for ratio in table["ratio"].to_list()})
        axes.set_xticks(percent, [plain(round(p, 6)) for p in percent])
    panels[0].set_ylabel("rank correlation with the C-score")
    handles, labels = panels[0].get_legend_handles_labels()
    kinds = [Line2D([], [], color=FAINT), Line2D([], [], color=FAINT, ls=(0, (4, 2)))]
    panels[0].legend([*handles, *kinds], [*labels, "Spearman", "Kendall"])
    return figure


@styled
def exemplar_grid(
    images: np.ndarray,
    cscores: pd.DataFrame,
    chosen: pd.DataFrame,
    classes: Sequence[str],
    *,
    maximum: float = 255.0,
) -> Figure:
    """A row per class: the histogram of its C-scores, and examples at percentiles of their ranking (J-fig7).

    Args:
        images: (n, channels, height, width).
        cscores: `label` `cscore`, a row per image from the first on.
        chosen: `label` `percentile` `row` `cscore`, class by class.
        classes: (c,) names.
        maximum: brightest value of a pixel.
    """
    labels, names = list(dict.fromkeys(chosen["label"].to_list())), class_names(classes)
    entries = [tuple(row) for row in zip(*(chosen[name].to_list() for name in CHOSEN), strict=True)]
    across = max(sum(entry[0] == label for entry in entries) for label in labels)
    figure = new_figure(2.6 + 0.95 * across, 0.9 + 1.15 * len(labels), "C-scores and examples of chosen classes")
    grid = figure.subplots(len(labels), 1 + across, squeeze=False, width_ratios=(2.4, *(1,) * across))
    every, of_rows = np.asarray(cscores["cscore"], dtype=float), np.asarray(cscores["label"])
    for number, (panels, label) in enumerate(zip(grid, labels, strict=True)):
        scores = every[(of_rows == label) & np.isfinite(every)]
        panels[0].hist(scores, BINS, range=(0, 1), color=BLUE, log=True)
        spread = f"{short_number(scores.mean())} ± {short_number(scores.std())}"
        panels[0].set_title(f"{legible(names[label], 18)}: {spread}", fontsize=8)
        for minor in (False, True):
            panels[0].set_yticks([], minor=minor)
        panels[0].set_ylim(bottom=0.5)
        score_axis(panels[0].xaxis, "C-score" if number == len(labels) - 1 else "")
        of_class = [entry for entry in entries if entry[0] == label]
        for axes, (_, percentile, row, score) in zip(panels[1:], of_class, strict=False):
            axes.imshow(rgb_image(images[row], maximum))
            above = f"top {percentile} %\n" if number == 0 else ""
            axes.set_title(f"{above}{short_number(score)}", fontsize=7, loc="center")
        for axes in panels[1:]:
            axes.set_axis_off()
    return figure
