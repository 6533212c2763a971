"""Regularity over repeated trainings.  in: matrices, tables of repeats   out: Figure"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.figures.regularity_plane import AXES
from study.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    legible,
    log_axis,
    new_figure,
    plain,
    sentence_figure,
    sequential,
    short_number,
    styled,
)

HISTOGRAM_BINS = 40
ACROSS = 5  # planes in a row
COUNTS = ("right", "events")
WRITTEN = 10  # repeats up to which coefficients are written into the matrix


@styled
def correlation_matrices(matrices: Mapping[str, np.ndarray]) -> Figure:
    """Correlations between repeats, a matrix per split (Z-fig6).

    Args:
        matrices: {split: (r, r)}; NaN where a repeat does not vary.
    """
    title = "Density of the examples in the plane of regularity: Pearson between repeats"
    if not matrices:
        return sentence_figure(title, "All examples lie at one point in the runs read.")
    figure = new_figure(4.6 * len(matrices) + 0.6, 4.4, title)
    panels = np.atleast_1d(figure.subplots(1, len(matrices)))
    off = [matrix[~np.eye(len(matrix), dtype=bool)] for matrix in matrices.values()]
    low = min((float(np.nanmin(values)) for values in off if np.isfinite(values).any()), default=0.0)
    for axes, (split, matrix), values in zip(panels, matrices.items(), off, strict=True):
        image = axes.imshow(matrix, cmap=sequential(), vmin=min(low, 0.99), vmax=1, interpolation="nearest")
        mean = np.nanmean(values) if np.isfinite(values).any() else np.nan
        axes.set(title=f"{split}: mean {short_number(float(mean))}", xlabel="repeat", ylabel="repeat")
        axes.grid(visible=False)
        ticks = np.arange(len(matrix))
        axes.set_xticks(ticks, ticks + 1)
        axes.set_yticks(ticks, ticks + 1)
        if len(matrix) <= WRITTEN:
            for (row, column), value in np.ndenumerate(matrix):
                axes.text(column, row, short_number(value), ha="center", va="center", color="white", fontsize=7)
    figure.colorbar(image, ax=panels, shrink=0.8, label="Pearson", format=plain).outline.set_visible(False)
    return figure


@styled
def regularity_histograms(planes: Mapping[str, pd.DataFrame]) -> Figure:
    """Histograms of right epochs and of events, and the events of examples right equally often (Z-fig3, Z-fig4).

    Args:
        planes: by split, "train" and "test"; `right`, `events`, means over repeats, a row per example.
    """
    title = "Right epochs and events: how examples are distributed, and how far one tells the other"
    if not planes:
        return sentence_figure(title, "There are no examples.")
    figure = new_figure(10.2, 2.7 * len(planes) + 0.4, title)
    panels = figure.subplots(len(planes), 3, squeeze=False)
    for (right_axes, events_axes, both_axes), (split, points) in zip(panels, planes.items(), strict=True):
        for axes, name, label in zip((right_axes, events_axes), ("right", "events"), AXES[split], strict=True):
            values = points[name].to_numpy(dtype=float)
            axes.hist(values, bins=HISTOGRAM_BINS, color=BLUE, weights=np.full(len(values), 100 / len(values)))
            axes.set(xlabel=label, ylabel="% of examples", title=split)
            log_axis(axes.yaxis)
        spread = events_by_right(points["right"].to_numpy(dtype=float), points["events"].to_numpy(dtype=float))
        both_axes.fill_between(spread["right"], spread["lowest"], spread["highest"], color=BLUE, alpha=0.2, lw=0)
        both_axes.plot(spread["right"], spread["mean"], color=BLUE)
        both_axes.set(xlabel=AXES[split][0], ylabel=AXES[split][1], title=f"{split}: mean and range")
    return figure


def events_by_right(right: np.ndarray, events: np.ndarray) -> pd.DataFrame:
    """Events of the examples that are right in equally many epochs, rounded to whole ones (Z-fig4).

    Returns:
        right (ascending) | mean, lowest, highest number of events | n examples.

    >>> events_by_right(np.array([2.0, 2.4, 5.0]), np.array([1.0, 3.0, 0.0]))
       right  mean  lowest  highest  n
    0      2   2.0     1.0      3.0  2
    1      5   0.0     0.0      0.0  1
    """
    table = pd.DataFrame({"right": np.rint(right).astype(int), "events": events})
    grouped = table.groupby("right")["events"].agg(["mean", "min", "max", "size"]).reset_index()
    return grouped.set_axis(["right", "mean", "lowest", "highest", "n"], axis=1)


@styled
def events_by_repeat(table: pd.DataFrame, n_epochs: int) -> Figure:
    """When a few examples are forgotten in each repeat, how often, and how many epochs they are right (Z-fig5).

    Args:
        table: example | split | repeat (from 0) | epoch (list of those of its events) | events | right.
        n_epochs: of the training.
    """
    title = "When examples become wrong again, repeat by repeat"
    splits = dict(zip(table["example"], table["split"], strict=True))
    examples = list(splits)
    if not examples:
        return sentence_figure(title, "No example becomes wrong again in the runs read.")
    figure = new_figure(2.9 * len(examples), 5.6, title)
    panels = figure.subplots(3, len(examples), squeeze=False, gridspec_kw={"height_ratios": (2, 1, 1)})
    for column, example in zip(panels.T, examples, strict=True):
        rows = table[table["example"] == example]
        for repeat, epochs in zip(rows["repeat"] + 1, rows["epoch"], strict=True):
            column[0].plot(epochs, [repeat] * len(epochs), "o", ms=3.5, mfc="none", color=BLUE)
        column[0].set(xlim=(0, n_epochs + 1), ylim=(0.5, len(rows) + 0.5), title=f"{example}, {splits[example]}")
        column[0].set(xlabel="epoch", ylabel="repeat")
        column[1].bar(rows["repeat"] + 1, rows["events"], color=ORANGE)
        column[1].set(xlabel="repeat", ylabel=AXES[splits[example]][1])
        column[2].plot(rows["repeat"] + 1, rows["right"], "o-", ms=3, color=GREEN)
        column[2].set(xlabel="repeat", ylabel=AXES[splits[example]][0].partition(":")[0], ylim=(0, n_epochs + 1))
        for axes in column:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure


@styled
def event_histograms(shares: Sequence[Mapping[str, np.ndarray]], pearson: Sequence[float]) -> Figure:
    """Shares of the examples by number of events: forgetting beside mal-generalizing ones, a panel per repeat (Z-fig7).

    Args:
        shares: of each repeat {"train": (k,), "test": (k,)} share of the examples with 0, 1, ..., k - 1 events.
        pearson: (r,) correlation of the two.
    """
    figure = new_figure(3.6 * len(shares) + 0.4, 3.2, "Are training examples forgotten as test examples are?")
    panels = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
    for number, (axes, of_repeat, value) in enumerate(zip(panels, shares, pearson, strict=True), 1):
        for offset, (split, colour) in enumerate((("train", BLUE), ("test", ORANGE))):
            places = np.arange(len(of_repeat[split])) + 0.4 * offset - 0.2
            axes.bar(places, 100 * of_repeat[split], 0.4, color=colour, label=AXES[split][1])
        axes.set(xlabel="events", title=f"repeat {number}: Pearson {value:.4f}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        log_axis(axes.yaxis)
    panels[0].set_ylabel("% of examples, log axis")
    panels[0].legend()
    return figure


@styled
def online_scatter(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], pearson: Mapping[str, float]) -> Figure:
    """Counts at epoch ends against those taken online, for each statistic (Z-online).

    Args:
        pairs: {name: (n,) at epoch ends, (n,) online}.
        pearson: {name: their correlation, mean over the repeats}.
    """
    figure = new_figure(4.2 * len(pairs), 3.7, "Counted at epoch ends, or online: before each step on the example")
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for axes, (name, (ends, online)) in zip(panels, pairs.items(), strict=True):
        points, counts = np.unique(np.column_stack([ends, online]), axis=0, return_counts=True)
        axes.scatter(*points.T, s=4 + 8 * np.log2(counts), color=BLUE, alpha=0.6, lw=0)
        high = float(points.max())
        axes.plot([0, high], [0, high], color=FAINT, lw=0.8)
        axes.set(xlabel="at epoch ends", ylabel="online", title=f"{name}: Pearson {pearson[name]:.4f}")
    return figure


@styled
def agreement_matrices(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Pearson between trainings, a matrix per statistic (Z-tab2).

    Args:
        table: statistic | a | b | pearson.
        names: label of each training to what it is called here, in their order.
    """
    title = "Pearson of every statistic between trainings"
    statistics, labels = list(dict.fromkeys(table["statistic"])), list(names)
    if not statistics:
        return sentence_figure(title, "No two trainings on the same data were compared.")
    down = -(-len(statistics) // 3)
    side = max(1.6, 0.42 * len(labels) + 0.5)
    figure = new_figure(3 * side + 4.2, down * (side + 0.5) + 0.5, title)
    panels = figure.subplots(down, min(3, len(statistics)), squeeze=False, sharex=True, sharey=True)
    numbers = {label: place for place, label in enumerate(labels)}
    low = min(*table["pearson"].tolist(), 0.9)
    for axes, statistic in zip(panels.flat, statistics, strict=False):
        matrix = np.eye(len(labels))
        for row in (row for row in table.to_dict("records") if row["statistic"] == statistic):
            a, b = numbers[row["a"]], numbers[row["b"]]
            matrix[a, b] = matrix[b, a] = row["pearson"]
        image = axes.imshow(matrix, cmap=sequential(), vmin=low, vmax=1, interpolation="nearest")
        for (row, column), value in np.ndenumerate(matrix):
            if row != column and len(labels) <= WRITTEN:
                colour = INK if value > (1 + low) / 2 else "white"
                axes.text(column, row, short_number(value), ha="center", va="center", color=colour, fontsize=7)
        axes.set_title(statistic)
        axes.grid(visible=False)
        axes.set_xticks(range(len(labels)), [str(place + 1) for place in range(len(labels))])
        axes.set_yticks(
            range(len(labels)), [f"{legible(names[label], 44)}  {place + 1}" for label, place in numbers.items()]
        )
    for axes in list(panels.flat)[len(statistics) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=panels, shrink=0.8, label="Pearson", format=plain).outline.set_visible(False)
    return figure


@styled
def planes_by_training(planes: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """The plane of regularity, test examples above, training examples below, a column per training (Z-fig11).

    Args:
        planes: by name of the training and by split; `right`, `events`, `density` per example.

    Colours are logarithmic and their own in each panel: radii, and so densities, differ between trainings.  More than
    five trainings take further rows.
    """
    title = "Regularity in two dimensions under each training"
    splits = [split for split in ("test", "train") if any(split in of_one for of_one in planes.values())]
    if not splits:
        return sentence_figure(title, "All examples lie at one point in the runs read.")
    across = min(ACROSS, len(planes))
    down = len(splits) * -(-len(planes) // across)
    figure = new_figure(max(2.7 * across, 5.2) + 0.5, 2.5 * down + 0.5, title)
    panels = figure.subplots(down, across, squeeze=False)
    highest = {split: _highest([of_one[split] for of_one in planes.values() if split in of_one]) for split in splits}
    for place, (name, of_one) in enumerate(planes.items()):
        for number, split in enumerate(splits):
            axes = panels[len(splits) * (place // across) + number, place % across]
            _density_points(axes, of_one.get(split), AXES[split], *highest[split])
            axes.set_title("\n".join(textwrap.wrap(name, 34)) if number == 0 else "")
            if place % across:
                axes.set_ylabel("")
    for axes in panels.flat:
        if not axes.get_xlabel():
            axes.set_axis_off()
    return figure


def _highest(planes: Sequence[pd.DataFrame]) -> list[float]:
    """Upper limits of the axes of right epochs and of events."""
    return [1.04 * max(np.asarray(plane[name], dtype=float).max() for plane in planes) + 0.1 for name in COUNTS]


def _density_points(
    axes: Axes, points: pd.DataFrame | None, labels: tuple[str, str], right: float, events: float
) -> None:
    """One plane, coloured by the logarithm of the density; empty where a training has no such examples."""
    axes.set(
        xlabel=labels[0].partition(":")[0], ylabel=labels[1], xlim=(-0.04 * right, right), ylim=(-0.04 * events, events)
    )
    if points is not None:
        shown = points.drop_duplicates(["right", "events"]).sort_values("density")
        axes.scatter(shown["right"], shown["events"], c=np.log(shown["density"]), cmap=sequential(), s=7, lw=0)
