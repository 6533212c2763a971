"""C-scores class by class.  in: cscore table   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.figures.distribution import percentages
from study.figures.labels import place_labels
from study.figures.style import (
    BLUE,
    FAINT,
    GRID,
    INK,
    ORANGE,
    class_names,
    legible,
    new_figure,
    saturated,
    score_axis,
    sentence_figure,
    shade,
    short_number,
    styled,
)

LABELLED = 40  # classes up to which every point of the scatter carries its name
SHOWN = 12  # histograms that fit next to it
BOX = 20  # bins per small histogram


def class_table(cscores: pd.DataFrame, n_classes: int) -> pd.DataFrame:
    """Mean and standard deviation of the C-scores of each class (J-fig6).

    Returns:
        one row per class, index 0..c-1: `count` scored examples, `mean`, `sd` (population; 0 for a single example);
        NaN for a class without a scored example.
    """
    groups = cscores.loc[cscores["cscore"].notna()].groupby("label")["cscore"]
    table = pd.DataFrame({"count": groups.size(), "mean": groups.mean(), "sd": groups.std(ddof=0)})
    table = table.reindex(range(n_classes))
    table["count"] = table["count"].fillna(0).astype(int)
    return table


@styled
def class_statistics(cscores: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Per-class mean and standard deviation of C-scores, and histograms of single classes (J-fig6, J-fig7).

    Args:
        cscores: columns `label`, `cscore`.
        classes: (c,) names.

    Up to 40 classes each point carries its name; above, classes are counted in a two-dimensional histogram as in the
    paper, and the stars are the classes whose histograms are shown: spread evenly over the ranking by mean,
    where the paper's five were chosen by eye. Histograms have logarithmic heights where a bin is saturated.
    """
    title = "Mean and spread of the C-scores, class by class"
    table = class_table(cscores, len(classes)).dropna()
    if table.empty:
        return sentence_figure(title, "No class has an example with a C-score.")
    ranked = table.sort_values(["mean", "sd"], ascending=[False, True], kind="stable").index
    at = np.unique(np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int))
    shown = ranked[at]
    names = class_names(classes)
    figure = new_figure(10.2, 4.9, title, layout=None)
    longest = max(len(legible(names[label], 18)) for label in shown)
    axes = figure.add_axes((0.065, 0.11, 0.555 - 0.0065 * longest, 0.755))  # what the names on the right leave
    if len(table) <= LABELLED:
        axes.scatter(table["mean"], table["sd"], color=shade(table["mean"]), s=26, zorder=3)
        _frame(axes, table)
        _place_names(axes, table, names)
    else:
        _joint_histogram(axes, table, shown, names)
    axes.set(xlabel="mean C-score of the class", ylabel="standard deviation within the class")
    axes.set_title(f"{len(table)} classes: mean against spread", y=1.01)
    _class_histograms(figure, cscores, table, shown, names)
    return figure


def _frame(axes: Axes, table: pd.DataFrame) -> None:
    for values, limit in ((table["mean"], axes.set_xlim), (table["sd"], axes.set_ylim)):
        middle, half = (values.min() + values.max()) / 2, (values.max() - values.min()) / 2
        half = max(half * 1.25, 0.02)
        limit(max(middle - half, -half / 10), min(middle + half, 1 + half / 10))
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _place_names(axes: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Write each class's name next to its point."""
    texts = pd.Series([legible(names[label], 18) for label in table.index], index=table.index)
    colours = pd.Series(INK, index=table.index)
    place_labels(axes, table["mean"], table["sd"], texts, colours, np.zeros(len(table), dtype=bool))


def _joint_histogram(axes: Axes, table: pd.DataFrame, shown: pd.Index, names: list[str]) -> None:
    _frame(axes, table)
    bins = int(np.clip(np.sqrt(len(table)) * 1.4, 10, 40))
    counts, xs, ys = np.histogram2d(table["mean"], table["sd"], bins, [axes.get_xlim(), axes.get_ylim()])
    mesh = axes.pcolormesh(xs, ys, np.ma.masked_equal(counts.T, 0), cmap="Blues", vmin=-0.4 * counts.max())
    mesh.set_rasterized(False)
    axes.scatter(table["mean"][shown], table["sd"][shown], marker="*", s=46, color=ORANGE, ec="white", lw=0.5, zorder=3)
    _place_names(axes, table.loc[shown], names)
    inset = axes.inset_axes((0.72, 1.03, 0.28, 0.022))
    bar = axes.figure.colorbar(mesh, cax=inset, orientation="horizontal")
    bar.ax.set_xlim(0, counts.max())
    bar.ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    bar.ax.xaxis.tick_top()
    bar.ax.tick_params(length=0, pad=1, labelsize=7)
    bar.outline.set_visible(False)
    axes.text(0.7, 1.025, "classes per cell", transform=axes.transAxes, fontsize=7.5, color=FAINT, ha="right")


def _class_histograms(
    figure: Figure, cscores: pd.DataFrame, table: pd.DataFrame, shown: pd.Index, names: list[str]
) -> None:
    edges = np.linspace(0, 1, BOX + 1) - 1e-9
    shares = {i: percentages(cscores.loc[cscores["label"] == i, "cscore"], edges) for i in shown}
    log = saturated(np.mean(list(shares.values()), axis=0))
    top, bottom = 0.865, 0.11
    step = (top - bottom) / max(len(shown), 4)
    for row, label in enumerate(shown):
        axes = figure.add_axes((0.655, top - (row + 1) * step, 0.265, step * 0.82))
        heights = np.log10(1 + 100 * shares[label]) if log else shares[label]
        axes.bar(edges[:-1], heights, 1 / BOX, align="edge", color=BLUE, linewidth=0)
        axes.axvline(table["mean"][label], color=ORANGE, lw=1.2)
        axes.set(xlim=(0, 1), ylim=(0, heights.max() * 1.03), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.spines["bottom"].set_color(GRID if row < len(shown) - 1 else "#b6bcc8")
        axes.text(-0.02, 0.3, legible(names[label], 18), transform=axes.transAxes, ha="right", fontsize=8, color=INK)
        spread = f"{short_number(table['mean'][label])} ± {short_number(table['sd'][label])}"
        axes.text(1.02, 0.3, spread, transform=axes.transAxes, fontsize=7.5, color=FAINT)
        score_axis(axes.xaxis, "C-score" if row == len(shown) - 1 else "")
        if row < len(shown) - 1:
            axes.tick_params(labelbottom=False, length=0)
    number = "all" if len(shown) == len(table) else len(shown)
    note = f"{number} classes, best first, each at a separate {'log ' if log else ''}scale; line: mean"
    figure.text(0.655, 0.885, note, fontsize=8, color=FAINT)
