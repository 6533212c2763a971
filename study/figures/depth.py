"""Prediction depth.  in: table `depth`, probe accuracies by layer   out: Figure

The table has a row per example: `split` ("train" or "test"), `depth` 0 to l (l is undefined, NaN is missing),
`cscore` in [0, 1] or NaN, `correct`, whether the network's prediction is the label.  `layers` are the names of the l
layers with probes, "input" first, "softmax" last.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    legible,
    new_figure,
    score_axis,
    sentence_figure,
    styled,
)

SPLITS = {"train": BLUE, "test": PURPLE}
CURVES = {  # the paper's colours: blue, orange, green, red
    "train": BLUE,
    "unchanged": BLUE,
    "mislabeled": ORANGE,
    "original labels": GREEN,
    "test": PURPLE,
}
NAMED = 20  # layers of deeper networks are named at intervals
EMPTY = "No example has a prediction depth in the runs read."


@styled
def depth_distribution(table: pd.DataFrame, layers: Sequence[str]) -> Figure:
    """Share of the examples of each split at each prediction depth, and without one (B-fig1 right).

    Args:
        table: columns `split` and `depth`.
        layers: names of the probes' layers.
    """
    title = "Distribution of the prediction depth"
    groups = dict(_groups(table))
    if not groups:
        return sentence_figure(title, EMPTY)
    figure = new_figure(8.2, 3.5, title)
    axes = figure.subplots()
    width = 0.84 / len(groups)
    for number, (split, part) in enumerate(groups.items()):
        shares = 100 * np.bincount(part["depth"].astype(int), minlength=len(layers) + 1) / len(part)
        place = np.arange(len(shares)) + (number - (len(groups) - 1) / 2) * width
        axes.bar(place, shares, 0.95 * width, color=SPLITS.get(split, GREY), label=split)
    axes.set(ylabel="% of the split", xlabel="prediction depth")
    _layer_axis(axes, (*layers, "undefined"))
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


@styled
def accuracy_by_depth(table: pd.DataFrame, layers: Sequence[str]) -> Figure:
    """Accuracy of the network among the examples of each prediction depth (B-fig4 right).

    Args:
        table: columns `split`, `depth`, `correct`.
        layers: names of the probes' layers; examples without a depth are left out, as in the paper.

    Markers grow with the number of examples: their area is in proportion to the share of the split.
    """
    title = "Accuracy against prediction depth"
    groups = {split: part[part["depth"] < len(layers)] for split, part in _groups(table)}
    if not any(len(part) for part in groups.values()):
        return sentence_figure(title, EMPTY)
    figure = new_figure(8.2, 3.5, title)
    axes = figure.subplots()
    for split, part in groups.items():
        groups_by_depth = part.groupby("depth")["correct"].agg(["mean", "size"])
        accuracy, size = 100 * groups_by_depth["mean"], groups_by_depth["size"]
        colour = SPLITS.get(split, GREY)
        axes.plot(accuracy.index, accuracy, color=colour, label=split)
        axes.scatter(accuracy.index, accuracy, s=8 + 160 * size / max(len(part), 1), color=colour)
    axes.set(ylabel="% classified correctly", xlabel="prediction depth", ylim=(-4, 104))
    _layer_axis(axes, layers)
    axes.legend()
    return figure


@styled
def cscore_by_depth(table: pd.DataFrame, layers: Sequence[str]) -> Figure:
    """C-scores of the examples of each prediction depth: mean, and the range of the middle 80 % (B-fig3, B-fig4).

    Args:
        table: columns `split`, `depth`, `cscore`; examples without score or depth are left out.
        layers: names of the probes' layers.

    The paper draws every example, at the mean depth over 250 networks; of one network the depths are whole numbers, so
    their distributions are drawn in place of points that would cover each other.
    """
    title = "C-score against prediction depth"
    groups = {split: part[(part["depth"] < len(layers)) & part["cscore"].notna()] for split, part in _groups(table)}
    if not any(len(part) for part in groups.values()):
        return sentence_figure(title, "No example has both a prediction depth and a C-score in the runs read.")
    figure = new_figure(8.2, 3.5, title)
    axes = figure.subplots()
    for split, part in groups.items():
        scores, colour = part.groupby("depth")["cscore"], SPLITS.get(split, GREY)
        axes.fill_between(
            scores.mean().index, scores.quantile(0.1), scores.quantile(0.9), color=colour, alpha=0.15, lw=0
        )
        axes.plot(scores.mean().index, scores.mean(), color=colour, marker="o", ms=4, label=f"{split}, mean")
    score_axis(axes.yaxis)
    axes.set(xlabel="prediction depth", ylim=(-0.03, 1.03))
    _layer_axis(axes, layers)
    axes.legend(title="shaded: 10th to 90th percentile", title_fontsize=8)
    return figure


@styled
def inference_learning_curve(curves: Mapping[str, np.ndarray], layers: Sequence[str]) -> Figure:
    """Accuracy of the k-NN probes as data pass from the input through the network (B-fig5 right).

    Args:
        curves: {split: (l,) accuracies}, of `study.proxies.depth.inference_curves`.
        layers: names of the probes' layers.
    """
    title = "Inference learning curve: accuracy of the k-NN probe after each layer"
    if not curves:
        return sentence_figure(title, "The runs read have no k-NN probes.")
    figure = new_figure(8.2, 3.5, title)
    axes = figure.subplots()
    for name, accuracy in curves.items():
        axes.plot(100 * np.asarray(accuracy), color=CURVES.get(name, GREY), marker="o", ms=3.5, label=name)
    lowest = min((100 * np.nanmin(accuracy) for accuracy in curves.values()), default=0)
    low = 10 * (lowest // 10) if lowest < 100 else 90.0
    axes.set(ylabel="% of the split correct", xlabel="layer", ylim=(1.02 * low - 2, 102 - 0.02 * low))
    _layer_axis(axes, layers)
    axes.legend()
    return figure


@styled
def probe_confidence(curves: pd.DataFrame, layers: Sequence[str]) -> Figure:
    """Confidence (solid) and accuracy (dotted) of the probes layer by layer, for groups of examples (B-fig8).

    Args:
        curves: columns `group`, `target`, `layer`, `confidence`, `accuracy`, of `study.analysis.probe_curves`; a panel
            per target.
        layers: names of the probes' layers.
    """
    title = "Confidence and accuracy of the k-NN probes after each layer"
    if not len(curves):
        return sentence_figure(title, "The runs read have no k-NN probes, or no example has a C-score.")
    targets, groups = list(dict.fromkeys(curves["target"])), list(dict.fromkeys(curves["group"]))
    figure = new_figure(8.2, 3.8, title)
    panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    colours = dict(zip(groups, (GREEN, PURPLE, BLUE, ORANGE), strict=False))
    for axes, target in zip(panels, targets, strict=True):
        for group, part in curves[curves["target"] == target].groupby("group", sort=False):
            axes.plot(part["layer"], 100 * part["confidence"], color=colours[group], marker="o", ms=3, label=group)
            axes.plot(part["layer"], 100 * part["accuracy"], color=colours[group], ls=":")
        axes.set(title=f"{target} class", ylim=(-4, 104), xlabel="layer")
        _layer_axis(axes, layers)
    panels[0].set_ylabel("% of the neighbours; dotted: % correct")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(groups))
    return figure


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each split that have a depth, train first."""
    defined = table[table["depth"].notna()]
    return ((split, defined[defined["split"] == split]) for split in SPLITS if (defined["split"] == split).any())


def _layer_axis(axes: Axes, names: Sequence[str]) -> None:
    """Name the layers below a horizontal axis, every so many where there are many, the last one always."""
    step = -(-len(names) // (NAMED - 1))
    shown = [*range(0, len(names) - step, step), len(names) - 1] if len(names) > 1 else [0]
    axes.set_xticks(shown, [legible(names[place], 18) for place in shown])
    axes.set_xlim(-0.6, len(names) - 0.4)
    if sum(len(legible(names[place], 18)) + 2 for place in shown) > 90:
        axes.tick_params(axis="x", labelrotation=60)
