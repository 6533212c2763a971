"""Prediction depth in single runs.  in: tables of `study.experiments.baldock_single`   out: Figure"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.figures.depth import CURVES
from study.figures.depth_members import CELLS, CYCLE
from study.figures.images import rgb_image
from study.figures.style import (
    GREY,
    class_names,
    legible,
    new_figure,
    sentence_figure,
    sequential,
    short_number,
    styled,
)

ACROSS = 3  # panels in a row
LETTERS = 34  # in a line above a narrow panel


@styled
def depths_of_data_sets(
    tables: Mapping[str, pd.DataFrame], images: Mapping[str, Mapping[str, Sequence[tuple[np.ndarray, str]]]]
) -> Figure:
    """Distribution of the prediction depth of several data sets, and images of the lowest and highest depth (B-fig1).

    Args:
        tables: by group: `depth` in layers, `share` of the training examples; in rising order of their mean depth.
        images: by group and by "first layer", "last layer": (h, w, 3) images with the class's name.
    """
    title = "Prediction depth: early for easy examples, late for hard ones"
    if not tables:
        return sentence_figure(title, "No single run has k-NN probes.")
    most = max((len(row) for of_group in images.values() for row in of_group.values()), default=1)
    figure = new_figure(max(7.6, 0.75 * most * 2 + 2), 3.2 + 1.25 * len(images), title)
    parts: Any = figure.subfigures(1 + len(images), 1, height_ratios=(3.2, *(1.25 for _ in images)))
    axes = parts[0].subplots()
    for place, (group, table) in enumerate(tables.items()):
        mean = float(np.average(table["depth"], weights=table["share"]))
        label = f"{group}, mean {mean:.2f}"
        axes.plot(table["depth"], 100 * table["share"], color=CYCLE[place % len(CYCLE)], marker="o", ms=4, label=label)
    axes.set(xlabel="prediction depth (layers)", ylabel="% of the training examples")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    for part, (group, of_group) in zip(parts[1:], images.items(), strict=True):
        grid = part.subplots(1, 2 * most, squeeze=False)[0]
        for cell in grid:
            cell.set_axis_off()
        for start, (where, row) in zip((0, most), of_group.items(), strict=False):
            for cell, (image, name) in zip(grid[start:], row, strict=False):
                cell.imshow(image)
                cell.set_title(legible(name, 12), fontsize=6.5, loc="center")
            text = grid[start].text(0, -0.1, f"{group}: {where}", transform=grid[start].transAxes, fontsize=8, va="top")
            text.set_in_layout(False)  # it would move the images apart
    return figure


def titled_images(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str], maximum: float
) -> list[tuple[np.ndarray, str]]:
    """Images (k, channels, h, w) as (h, w, 3), each with the name of its class."""
    names = class_names(classes)
    return [(rgb_image(image, maximum), names[label]) for image, label in zip(images, labels, strict=True)]


@styled
def learned_by_depth(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean iteration learned of the examples at each prediction depth (B-fig5 left, C.23).

    Args:
        tables: by group: `split`, `depth`, `share` of the split, `learned`, scaled to the 95th percentile.

    The area of a marker is in proportion to the share.
    """
    title = "Examples with small prediction depths are learned first"
    if not tables:
        return sentence_figure(title, "No single run has k-NN probes and its predictions by epoch.")
    figure = new_figure(8.6, 3.5, title)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, split in zip(panels, ("train", "test"), strict=True):
        for place, (group, table) in enumerate(tables.items()):
            part, colour = table[table["split"] == split], CYCLE[place % len(CYCLE)]
            axes.plot(part["depth"], part["learned"], color=colour, label=group)
            axes.scatter(part["depth"], part["learned"], s=8 + 160 * part["share"], color=colour)
        axes.set(xlabel="prediction depth (layers)", title=f"{split} split")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("iteration learned (95th percentile = 1)")
    panels[0].legend()
    return figure


@styled
def training_and_inference(curves: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Accuracy over training, and of the k-NN probes over the layers, side by side (B-fig5 middle and right).

    Args:
        curves: by group two tables: `split`, `at` (epoch, or number of the layer), `mean`, `low`, `high` over the runs.
    """
    title = "Training learning curve and inference learning curve"
    if not curves:
        return sentence_figure(title, "No single run has k-NN probes and its predictions by epoch.")
    figure = new_figure(8.6, 3.1 * len(curves) + 0.4, title)
    grid = figure.subplots(len(curves), 2, sharey=True, squeeze=False)
    for panels, (group, tables) in zip(grid, curves.items(), strict=True):
        for axes, table, label in zip(panels, tables, ("epoch", "layer of the k-NN probe"), strict=True):
            for split, part in table.groupby("split", sort=False):
                colour = CURVES.get(str(split), GREY)
                axes.plot(part["at"], 100 * part["mean"], color=colour, label=split)
                axes.fill_between(part["at"], 100 * part["low"], 100 * part["high"], color=colour, alpha=0.2, lw=0)
            axes.set(xlabel=label, ylim=(-2, 102), title=group)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel("% correct; shaded: the runs' range")
        panels[1].legend()
    return figure


@styled
def margins_by_depth(clouds: Mapping[tuple[str, str, str], tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Mean margins against the mean prediction depth, histograms with a logarithmic axis (B-fig6, C.28 to 31).

    Args:
        clouds: by group, split and margin: mean depths (n,), mean margins (n,) above 0, Pearson's coefficient of the
            depths with the logarithms.
    """
    title = "Margins against prediction depth, means over the runs"
    if not clouds:
        return sentence_figure(title, "No single run has both a prediction depth and a margin.")
    across = min(4, len(clouds))
    down = -(-len(clouds) // across)
    figure = new_figure(max(2.9 * across, 5.2), 2.9 * down + 0.4, title)
    grid = figure.subplots(down, across, squeeze=False)
    for axes, ((group, split, margin), (depth, values, pearson)) in zip(grid.flat, clouds.items(), strict=False):
        logs = np.log10(values)
        counts, *edges = np.histogram2d(depth, logs, CELLS)
        shown = np.ma.masked_equal(counts.T, 0)
        axes.pcolormesh(*edges, shown, cmap=sequential(), norm=LogNorm(1, max(counts.max(), 2)), rasterized=True)
        axes.set(xlabel="mean depth (layers)", ylabel=f"log10 {margin}")
        lines = textwrap.wrap(f"{group}, {split}", LETTERS)
        axes.set_title("\n".join([*lines, f"Pearson {short_number(pearson)}"]), fontsize=8)
    for axes in list(grid.flat)[len(clouds) :]:
        axes.set_axis_off()
    return figure


@styled
def probe_accuracies(
    curves: Mapping[str, pd.DataFrame], title: str, *, control: tuple[str, pd.DataFrame] | None = None
) -> Figure:
    """Accuracy of probes layer by layer, training examples solid, test examples dotted (B-fig6 right, A.10, A.12).

    Args:
        curves: by name: `split`, `at`, `mean`, `low`, `high`; a panel each, where there is a control, else one for all.
        title: of the figure.
        control: name and curves that every panel shows in grey.
    """
    across = min(2 if len(curves) == 4 else ACROSS, len(curves)) if control else 1
    down = -(-len(curves) // across) if control else 1
    figure = new_figure(max(3.6 * across, 6.4), 3.0 * down + 0.5, title)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    panels = list(grid.flat) if control else [grid[0, 0]] * len(curves)
    drawn = [*curves.values(), *([control[1]] if control else [])]
    lowest = min((float(np.min(np.asarray(table["low"]))) for table in drawn), default=0.0)
    for place, (axes, (name, table)) in enumerate(zip(panels, curves.items(), strict=False)):
        _solid_and_dotted(axes, table, CYCLE[place % len(CYCLE)], name)
        if control:
            _solid_and_dotted(axes, control[1], GREY, control[0])
        floor = 5 * np.floor(20 * lowest)
        axes.set(xlabel="layer of the probe", ylim=(floor - 0.02 * (100 - floor), 100 + 0.04 * (100 - floor)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    for axes in list(grid.flat)[len(curves) if control else 1 :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("% correct; dotted: test")
    return figure


def _solid_and_dotted(axes: Axes, table: pd.DataFrame, colour: str, label: str) -> None:
    for split, part in table.groupby("split", sort=False):
        test = split == "test"
        axes.plot(part["at"], 100 * part["mean"], color=colour, ls=":" if test else "-", label=None if test else label)
        axes.fill_between(part["at"], 100 * part["low"], 100 * part["high"], color=colour, alpha=0.15, lw=0)
