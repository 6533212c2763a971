"""Prediction depths over many networks.  in: tables of `study.scores.depth_statistics`   out: Figure"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from study.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    legible,
    new_figure,
    plain,
    score_axis,
    sentence_figure,
    sequential,
    short_number,
    styled,
)
from study.scores.depth_statistics import LinearBound

CELLS = 30  # of a two-dimensional histogram, on each side
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, GREY, INK)
DASHED = (0, (4, 3))


@styled
def consistency_by_depth(tables: Mapping[str, pd.DataFrame], bounds: Mapping[str, LinearBound]) -> Figure:
    """C-score against mean validation depth, split by whether the consensus is the label (B-fig3, C.17, C.18).

    Args:
        tables: by group of ensembles, of `consensus_table`.
        bounds: the linear lower bound of the consensus-consistency, by group.

    A row of panels per group: all examples; the consensus class is the label, with the bound; it is another class,
    with the bound reflected at one half.
    """
    title = "C-score against the mean prediction depth in the validation split"
    if not any(len(table) for table in tables.values()):
        return sentence_figure(title, "No example has a defined depth in a validation split.")
    figure = new_figure(10.6, 3.1 * len(tables) + 0.3, title)
    grid = figure.subplots(len(tables), 3, squeeze=False, sharey=True)
    for panels, (group, table) in zip(grid, tables.items(), strict=True):
        parts = (("all", table), ("consensus = label", table[table["agrees"]]), ("consensus is another", None))
        for axes, (name, part) in zip(panels, parts, strict=True):
            part = table[~table["agrees"]] if part is None else part
            _histogram(axes, part["depth"], part["cscore"], table["depth"], (0, 1), _levels(table["cscore"]))
            axes.set_title(f"{group}: {name} ({plain(len(part))})")
        _line(panels[0], bounds[group], table["depth"])
        _line(panels[1], bounds[group], table["depth"])
        for axes in (panels[0], panels[2]):
            _line(axes, LinearBound(1 - bounds[group].intercept, -bounds[group].gradient), table["depth"])
        score_axis(panels[0].yaxis)
    for axes in grid[-1]:
        axes.set_xlabel("mean depth in the validation split (layers)")
    return figure


@styled
def bounds_by_depth(
    tables: Mapping[str, pd.DataFrame], bounds: Mapping[str, LinearBound], column: str, label: str, title: str
) -> Figure:
    """A statistic of the predictions against the mean validation depth, with its linear bound (B-fig4 left, C.22).

    Args:
        tables: by group of ensembles, of `consensus_table`.
        bounds: by group, dashed.
        column: `consistency` or `entropy`.
        label: of the vertical axis.
        title: of the figure.
    """
    if not any(len(table) for table in tables.values()):
        return sentence_figure(title, "No example has a defined depth in a validation split.")
    across = min(3, len(tables))
    down = -(-len(tables) // across)
    figure = new_figure(max(3.5 * across, 5.2), 3.1 * down + 0.3, title)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    top = max(1.0, *(float(np.max(np.asarray(table[column]), initial=0.0)) for table in tables.values()))
    for axes, (group, table) in zip(grid.flat, tables.items(), strict=False):
        _histogram(axes, table["depth"], table[column], table["depth"], (0, top), _levels(table[column]))
        _line(axes, bounds[group], table["depth"])
        axes.set(title=group, xlabel="mean depth in the validation split (layers)", ylim=(-0.03 * top, 1.03 * top))
    for axes in list(grid.flat)[len(tables) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    return figure


@styled
def by_depth_of_one(
    others: Mapping[str, pd.DataFrame], accuracies: Mapping[str, pd.DataFrame], column: str, label: str
) -> Figure:
    """A statistic of the other networks against the depth in one, and accuracy against depth (B-fig4, C.19 to 21).

    Args:
        others: by group, of `depth_of_one_network`.
        accuracies: by group, of `MemberPredictions.by_depth_table`: the validation split is drawn; one panel
            without any.
        column: of `others`.
        label: what it is.

    The area of a marker is in proportion to the share of the examples at that depth.
    """
    figure = new_figure(9.4 if accuracies else 5.2, 3.6, "What the prediction depth in one network says")
    left, *right = figure.subplots(1, 2 if accuracies else 1, squeeze=False)[0]
    for place, (group, table) in enumerate(others.items()):
        _marked(left, table["depth"], table[column], table["share"], CYCLE[place % len(CYCLE)], group)
    left.set(xlabel="depth in one network (layers)", ylabel=label, title="test examples, other networks")
    if not others:
        left.text(0.5, 0.5, "no three single runs with k-NN probes", ha="center", va="center", transform=left.transAxes)
    for axes in right:
        for place, (group, table) in enumerate(accuracies.items()):
            part = table[table["split"] == "validation"]
            _marked(axes, part["depth"], 100 * part["accuracy"], part["share"], CYCLE[place % len(CYCLE)], group)
        axes.set(xlabel="depth (layers)", ylabel="% classified correctly", title="validation split", ylim=(-4, 104))
    for axes in (left, *right):
        if axes.lines:
            axes.legend()
    return figure


@styled
def depth_agreement(
    matrices: Mapping[tuple[str, str], pd.DataFrame], clouds: Mapping[tuple[str, str, str], tuple[np.ndarray, ...]]
) -> Figure:
    """Correlations of mean depths between architectures and seeds, and histograms of pairs (B-fig2, C.13 to 16).

    Args:
        matrices: by data set and split, a square table of Spearman coefficients; on the diagonal the same architecture
            trained with other seeds.
        clouds: by split and the two architectures, the mean depths (n,) of each, rescaled to [0, 1].
    """
    across = max(len(matrices), min(len(clouds), 4), 1)
    down = 1 + -(-len(clouds) // across)
    figure = new_figure(max(3.2 * across, 5.2), 3.1 * down + 0.3, "Prediction depth between architectures and seeds")
    grid = figure.subplots(down, across, squeeze=False)
    for axes, ((data, split), table) in zip(grid[0], matrices.items(), strict=False):
        axes.imshow(table, vmin=0, vmax=1, cmap=sequential())
        names = [legible(name, 26) for name in table.columns]
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{data}, {split} split")
        axes.grid(visible=False)
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            colour = "white" if value < 0.75 else INK
            axes.text(column, row, short_number(value), ha="center", va="center", color=colour)
    for axes, ((split, a, b), (x, y, rho)) in zip(grid[1:].flat, clouds.items(), strict=False):
        _histogram(axes, x, y, np.array([0.0, 1.0]), (0, 1))
        axes.set(xlabel=legible(a, 30), ylabel=legible(b, 30), title=f"{split}: Spearman {short_number(float(rho))}")
    used = [*grid[0][: len(matrices)], *list(grid[1:].flat)[: len(clouds)]]
    for axes in grid.flat:
        if axes not in used:
            axes.set_axis_off()
    return figure


@styled
def probes_of_members(curves: Mapping[str, pd.DataFrame], layers: Mapping[str, Sequence[str]]) -> Figure:
    """Confidence (solid) and accuracy (dotted) of the members' probes in the validation split, by corner (B-fig8).

    Args:
        curves: by group of ensembles: type | target | layer | confidence | accuracy.
        layers: names of the probes' layers, by group.
    """
    title = "Confidence and accuracy of the members' k-NN probes, examples in the validation split"
    if not any(len(table) for table in curves.values()):
        return sentence_figure(title, "No example was in both splits with a defined depth.")
    figure = new_figure(9.4, 3.4 * len(curves) + 0.5, title)
    grid = figure.subplots(len(curves), 2, sharey=True, squeeze=False)
    for panels, (group, table) in zip(grid, curves.items(), strict=True):
        for axes, target in zip(panels, ("ground truth", "consensus"), strict=True):
            of_target = table[table["target"] == target]
            for place, (name, part) in enumerate(of_target.groupby("type", sort=False)):
                colour = (GREEN, ORANGE, BLUE, PURPLE)[place % 4]
                axes.plot(part["layer"], 100 * part["confidence"], color=colour, marker="o", ms=3, label=name)
                axes.plot(part["layer"], 100 * part["accuracy"], color=colour, ls=":")
            axes.set(title=f"{group}: {target} class", ylim=(-4, 104))
            names = [legible(name, 14) for name in layers[group]]
            axes.set_xticks(range(len(names)), names, rotation=60 if len(names) > 6 else 0)
        panels[0].set_ylabel("% of the neighbours; dotted: % correct")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _levels(values: Any) -> int:
    """Cells on the vertical side: no more than there are values, so that no empty row stands between two."""
    return int(np.clip(len(np.unique(np.asarray(values, dtype=float).round(6))), 2, CELLS))


def _histogram(axes: Axes, x: Any, y: Any, whole: Any, vertical: tuple[float, float], levels: int = CELLS) -> None:
    """Two-dimensional histogram over the range of all x."""
    low, high = float(whole.min()), float(whole.max())
    horizontal = (low, high) if high > low else (low - 0.5, low + 0.5)
    reach = (vertical[0], vertical[1] + 1e-9)
    counts, *edges = np.histogram2d(np.asarray(x, float), np.asarray(y, float), (CELLS, levels), (horizontal, reach))
    shown = np.ma.masked_equal(counts.T, 0)
    norm = LogNorm(1, max(counts.max(), 2))
    axes.pcolormesh(*edges, shown, cmap=sequential(), norm=norm, rasterized=True)
    axes.set_ylim(vertical[0] - 0.03, vertical[1] + 0.03)


def _line(axes: Axes, bound: LinearBound, depth: Any) -> None:
    if np.isfinite(bound.gradient):
        ends = np.array([depth.min(), depth.max()], dtype=float)
        axes.plot(ends, bound.at(ends), color=INK, lw=1.2, ls=DASHED)


def _marked(axes: Axes, x: Any, y: Any, share: Any, colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, label=label)
    axes.scatter(x, y, s=8 + 160 * share, color=colour)
