"""Memorization under noise and regularizers.  in: tables, matrices of several groups of runs   out: Figure"""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from study.figures.style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    new_figure,
    plain,
    sentence_figure,
    sequential,
    styled,
)

ACROSS = 4  # matrices in a row
MOST = 1e4  # between the ends of their colours
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY)


@styled
def series_by_noise(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """A metric by epoch, a line per group of runs, a panel per metric (A-sensitivity, A-csr).

    Args:
        table: group | metric | epoch | value.
        titles: of the metrics; those that the table lacks are left out.
    """
    shown = {name: title for name, title in titles.items() if name in set(table["metric"])}
    if not shown:
        return sentence_figure("Real against random data, epoch by epoch", "Nothing was taken in the runs read.")
    figure = new_figure(5.4 * len(shown) + 1.5, 3.8, "Real against random data, epoch by epoch")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    groups = list(dict.fromkeys(table["group"]))
    for axes, (name, title) in zip(panels, shown.items(), strict=True):
        for place, group in enumerate(groups):
            rows = table[(table["metric"] == name) & (table["group"] == group)]
            colour = sequential()(0.95 * place / max(1, len(groups) - 1))
            axes.plot(rows["epoch"], rows["value"], "o-", ms=3, color=colour, label=group)
        axes.set(xlabel="epoch", ylabel=title, ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=min(3, len(groups)))
    return figure


@styled
def class_sensitivities(matrices: Mapping[str, np.ndarray], shares: Mapping[str, float]) -> Figure:
    """Loss sensitivity from class to class, a matrix per group, over its mean on the diagonal (A-class).

    Args:
        matrices: {group: (c, c)}, row: class whose loss, column: class of the inputs; NaN for a class without examples.
        shares: {group: mean off the diagonal over mean on it}.
    """
    across = min(ACROSS, len(matrices))
    down = -(-len(matrices) // across)
    figure = new_figure(
        2.7 * across + 1.2, 3.0 * down + 0.4, "Sensitivity of each class's loss to inputs of each class"
    )
    panels = figure.subplots(down, across, squeeze=False)
    scaled = {label: matrix / np.nanmean(np.diag(matrix)) for label, matrix in matrices.items()}
    low, high = (float(end([end(matrix) for matrix in scaled.values()])) for end in (np.nanmin, np.nanmax))
    norm = LogNorm(max(low, high / MOST), max(high, 1.01 * low))
    for axes, (label, matrix) in zip(panels.flat, scaled.items(), strict=False):
        image = axes.imshow(matrix, cmap=sequential(), norm=norm, interpolation="nearest")
        wrapped = "\n".join(textwrap.wrap(label.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), 30))
        axes.set_title(f"{wrapped}\noff the diagonal {shares[label]:.2f}")
        axes.set(xlabel="inputs of class", ylabel="loss towards class")
        axes.grid(visible=False)
    for axes in list(panels.flat)[len(scaled) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=panels, shrink=0.8, label="over the mean on the diagonal, log scale")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(plain))
    bar.outline.set_visible(False)
    return figure


@styled
def trade_off_curves(table: pd.DataFrame) -> Figure:
    """Clean test accuracy against accuracy on changed training labels, a curve per regularizer (A-reg).

    Args:
        table: regularizer | strength | changed | test/accuracy; the rows of one regularizer are joined by rising
            strength, from the point of "none" on.
    """
    figure = new_figure(6.8, 4.4, "Memorization of changed labels against accuracy on clean test examples")
    axes = figure.subplots()
    none = table[table["regularizer"] == "none"]
    others = [(name, rows) for name, rows in table.groupby("regularizer", sort=False) if name != "none"]
    for (name, rows), colour in zip(others, COLOURS, strict=False):
        line = pd.concat([none, rows.sort_values("strength")])
        axes.plot(100 * line["changed"], 100 * line["test/accuracy"], "o-", ms=4, color=colour, label=name)
        for row in rows.to_dict("records"):
            place, options = (100 * row["changed"], 100 * row["test/accuracy"]), {"fontsize": 6.5, "color": colour}
            axes.annotate(plain(row["strength"]), place, xytext=(4, 3), textcoords="offset points", **options)
    axes.plot(100 * none["changed"], 100 * none["test/accuracy"], "s", ms=7, color=INK, label="no regularizer")
    axes.set(xlabel="% of the changed training labels fitted", ylabel="% of the clean test examples right")
    axes.legend(loc="best")
    return figure
