"""Consensus, memorization, influence and forms of difficulty.  in: cscore table, depths, influences   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from study.figures.images import rgb_image
from study.figures.style import (
    BLUE,
    FAINT,
    INK,
    legible,
    new_figure,
    percent_axis,
    plain,
    score_axis,
    sentence_figure,
    sequential,
    styled,
)
from study.scores.difficulty_types import TYPES

CELLS = 30  # of a two-dimensional histogram, on each side


@styled
def consensus_and_memorization(cscores: pd.DataFrame) -> Figure:
    """Consensus-consistency against the C-score, split by whether the consensus is the label, entropy, memorization.

    Args:
        cscores: training rows: `label` `cscore` `consensus` `consensus_consistency` `prediction_entropy`
            `memorization`.

    Left: where the consensus is the label both shares differ only in the weights of the ratios; below, networks agree
    on another class (B-consensus, Sec. 3.1).  Middle: the entropy of the same votes (B-entropy).  Right: the
    memorization score (Feldman and Zhang 2020), which is large only where the C-score is low.
    """
    title = "Consensus of the networks trained without an example, and memorization"
    voted = cscores.dropna(subset=["cscore", "consensus_consistency"])
    if voted.empty:
        return sentence_figure(title, "No example has a C-score and a consensus.")
    figure = new_figure(10.6, 3.7, title)
    left, middle, right = figure.subplots(1, 3)
    agrees = (voted["consensus"] == voted["label"]).to_numpy()
    _cloud(left, voted["cscore"], voted["consensus_consistency"], agrees)
    left.set_ylim(-0.03, 1.03)
    score_axis(left.yaxis, "consensus-consistency")
    left.set_title(f"orange: consensus is not the label, {100 * (~agrees).mean():.1f} %")
    entropy = voted["prediction_entropy"].to_numpy(dtype=float)
    top = max(entropy.max(), 1e-3)
    counts, edges = np.histogram(entropy, CELLS, (0, top))
    share = 100 * counts / len(entropy)
    middle.bar(edges[:-1], share, np.diff(edges), align="edge", color=BLUE, edgecolor="white", lw=0.4)
    middle.set(xlabel="prediction entropy (nats)", title="disagreement among the networks")
    percent_axis(middle, share)
    _memorized(right, voted)
    return figure


def _cloud(axes: Axes, x: pd.Series, y: pd.Series, agrees: np.ndarray) -> None:
    """Two-dimensional histogram as dots whose area grows with the number of examples in the cell."""
    for chosen, colour in ((agrees, BLUE), (~agrees, "#d55e00")):
        cell = np.column_stack([np.round(np.asarray(v, float)[chosen] * CELLS) / CELLS for v in (x, y)])
        if len(cell):
            places, counts = np.unique(cell, axis=0, return_counts=True)
            size = 3 + 42 * np.sqrt(counts / len(x))
            axes.scatter(*places.T, s=size, color=colour, alpha=0.75, lw=0)
    axes.set_xlim(-0.03, 1.03)
    score_axis(axes.xaxis)


def _memorized(axes: Axes, table: pd.DataFrame) -> None:
    both = table.dropna(subset=["memorization"])
    if both.empty:
        axes.text(0.5, 0.5, "no example was both\ntrained on and held out", ha="center", va="center", color=FAINT)
        axes.set_axis_off()
        return
    scores, memorized = both["cscore"].to_numpy(dtype=float), both["memorization"].to_numpy(dtype=float)
    low = min(memorized.min(), 0.0)
    counts, x, y = np.histogram2d(scores, memorized, CELLS, [(0, 1 + 1e-9), (low, 1 + 1e-9)])
    shown = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(x, y, shown, cmap=sequential(), norm=LogNorm(1, max(counts.max(), 2)), rasterized=True)
    axes.plot([0, 1], [1, 0], color=INK, lw=0.9, ls=(0, (4, 3)))
    axes.set(xlim=(-0.03, 1.03), ylim=(low - 0.03, 1.03), ylabel="memorization score")
    axes.set_title("dashed: always correct when trained on")
    score_axis(axes.xaxis)


@styled
def difficulty_plane(
    train_depth: np.ndarray, validation_depth: np.ndarray, agrees: np.ndarray, *, cells: int = CELLS
) -> Figure:
    """Mean prediction depth in the validation split against that in the training split (B-fig7).

    Args:
        train_depth, validation_depth: (n,) of `difficulty_types.split_depths`, in layers.
        agrees: (n,) whether the consensus class is the label.
        cells: of the histogram on each side.

    Left all examples, middle those whose consensus is another class, right those whose consensus is the label.
    """
    title = "Mean prediction depth in the training split and in the validation split"
    defined = np.isfinite(train_depth) & np.isfinite(validation_depth)
    if not defined.any():
        return sentence_figure(title, "No example has a defined depth in both splits.")
    train, validation, agrees = train_depth[defined], validation_depth[defined], np.asarray(agrees)[defined]
    figure = new_figure(10.6, 4.0, title)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    edges = [np.linspace(depth.min(), max(depth.max(), depth.min() + 1), cells + 1) for depth in (validation, train)]
    parts = (np.ones(len(train), bool), "all"), (~agrees, "consensus is not the label"), (agrees, "consensus = label")
    counts = [np.histogram2d(validation[mask], train[mask], edges)[0] for mask, _ in parts]
    norm = LogNorm(1, max(counts[0].max(), 2))
    for axes, count, (mask, name) in zip(panels, counts, parts, strict=True):
        cells_shown = np.ma.masked_equal(count.T, 0)
        axes.pcolormesh(*edges, cells_shown, cmap=sequential(), norm=norm, rasterized=True)
        axes.set(title=f"{name}: {mask.sum():,}".replace(",", " "), xlabel="depth in the validation split (layers)")
        axes.grid(visible=False)
    panels[0].set_ylabel("depth in the training split (layers)")
    for name, (high_train, high_validation) in TYPES.items():
        side = {"ha": "right" if high_validation else "left", "va": "top" if high_train else "bottom"}
        at = (0.97 if high_validation else 0.03, 0.97 if high_train else 0.03)
        text = name.replace(" a ", " a\n").replace(" unless ", "\nunless ")
        box = {"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1.5}
        panels[0].text(*at, text, transform=panels[0].transAxes, fontsize=7, color=INK, bbox=box, **side)
    colours = ScalarMappable(norm, sequential())
    bar = figure.colorbar(colours, ax=panels, label="examples", fraction=0.03, pad=0.01, format=FuncFormatter(plain))
    bar.outline.set_visible(False)
    bar.minorticks_off()
    return figure


@styled
def influence_grid(
    images: np.ndarray,
    ids: np.ndarray,
    table: pd.DataFrame,
    classes: Sequence[str],
    *,
    maximum: float = 255.0,
    rows: int = 6,
    top: int = 4,
) -> Figure:
    """Test examples and the training examples with the largest influence on them (Feldman and Zhang 2020, Fig. 3).

    Args:
        images: (n, channels, height, width) of all examples.
        ids: (n,) their ids.
        table: of `analysis.influences`: `target` `label` `cscore` `rank` `source` `source_label` `influence`.
        classes: names.
        maximum: brightest value of a pixel.
        rows, top: test examples (those with the largest influence), and training examples for each.
    """
    title = "Test examples and their most influential training examples"
    if table.empty:
        return sentence_figure(title, "With so few networks no influence can be distinguished from chance.")
    first = table[table["rank"] == 1].sort_values("influence", ascending=False, kind="stable").head(rows)
    places = pd.Series(np.arange(len(ids)), index=ids)
    figure = new_figure(1.25 * (top + 1) + 1.2, 0.55 + 1.45 * len(first), title)
    grid = figure.subplots(len(first), top + 1, squeeze=False)
    for axes, target in zip(grid, first.itertuples(), strict=True):
        sources = table[(table["target"] == target.target) & (table["rank"] <= top)].sort_values("rank")
        _image(axes[0], images[places[target.target]], maximum, f"test: {classes[target.label]}")
        for cell, source in zip(axes[1:], sources.itertuples(), strict=False):
            text = f"{classes[source.source_label]} {source.influence:+.2f}"
            _image(cell, images[places[source.source]], maximum, text)
        for cell in axes[len(sources) + 1 :]:
            cell.set_axis_off()
    return figure


def _image(axes: Axes, image: np.ndarray, maximum: float, text: str) -> None:
    axes.imshow(rgb_image(image, maximum))
    axes.set_title(legible(text, 20), fontsize=7.5)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
