"""What happens from epoch to epoch.  in: curves table, trajectory   out: Figure"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.figures.distribution import EDGE, log_counts
from study.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    new_figure,
    one_reference,
    plain,
    score_axis,
    sentence_figure,
    shade,
    short_number,
    styled,
)

# the paper's colours for the three densities: grey, pink, blue
HIDDEN = {
    "kernel_density_hidden_relative": ("class-relative", GREY),
    "kernel_density_hidden_conditional": ("class-conditional", PURPLE),
    "kernel_density_hidden_independent": ("class-independent", BLUE),
}
CONFIDENCE = {
    "target_confidence": ("p_L: of the labelled class", ORANGE),
    "top_confidence": ("p_max: of the likeliest class", GREEN),
}


@styled
def hidden_density_by_epoch(curves: pd.DataFrame, *, reference: str = "cscore") -> Figure:
    """Rank correlation of the three hidden-space kernel densities with the C-score, epoch by epoch (J-fig8).

    Args:
        curves: columns `proxy` `epoch` `spearman` and, with several references, `reference`; values are oriented
            (positive: agrees with "high = consistent"). Read: the proxies of `HIDDEN`.
        reference: whose rows to draw.
    """
    title = "Density in the last hidden layer against the C-score, epoch by epoch"
    return _correlation_curves(one_reference(curves, reference), HIDDEN, title)


@styled
def confidence_by_epoch(curves: pd.DataFrame, *, reference: str = "cscore") -> Figure:
    """Rank correlation of softmax confidence, of the target and of the top class, with the C-score (J-fig9b).

    Args:
        curves: as for `hidden_density_by_epoch`. Read: `target_confidence` (p_L) and `top_confidence` (p_max).
        reference: whose rows to draw.
    """
    title = "Softmax confidence against the C-score, epoch by epoch"
    return _correlation_curves(one_reference(curves, reference), CONFIDENCE, title)


def _correlation_curves(curves: pd.DataFrame, names: dict[str, tuple[str, str]], title: str) -> Figure:
    drawn = curves[curves["proxy"].isin(list(names)) & curves["spearman"].notna()]
    if drawn.empty:
        return sentence_figure(title, "These proxies were not computed epoch by epoch in the runs read.")
    figure = new_figure(8.2, 3.7, title)
    axes = figure.subplots()
    axes.axhline(0, color="#b6bcc8", lw=0.9)
    ends, before = [], []
    for name, (label, colour) in names.items():
        # several repeats of one proxy: their mean
        line = drawn[drawn["proxy"] == name].groupby("epoch")["spearman"].mean()
        if len(line):
            covers = any(line.index.equals(other.index) and np.abs(line - other).mean() < 0.01 for other in before)
            dashes = (0, (3, 3)) if covers else "-"  # the line below shows through
            axes.plot(line.index, line, color=colour, ls=dashes, marker="o" if len(line) < 30 else None, ms=3.5)
            before.append(line)
            ends.append((line.index[-1], line.iloc[-1], label, colour))
    low, high = min(drawn["spearman"].min(), 0.0), max(drawn["spearman"].max(), 0.0)
    pad = 0.08 * max(high - low, 0.1)
    axes.set(xlabel="epoch", ylabel="Spearman with the C-score", ylim=(low - pad, high + pad))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_ends(axes, ends)
    return figure


def _label_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name and last value at its right end, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    step, below = 0.075 * (high - low), -np.inf
    last = max(end[0] for end in ends)
    for x, y, label, colour in sorted(ends, key=lambda end: end[1]):
        below = max(y, below + step)
        text = f"{label}  {short_number(y)}" + (f" at epoch {plain(x)}" if x < last else "")
        axes.annotate(
            text,
            (1.0, below),
            (6, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )


def grouped_accuracy(
    correct: np.ndarray, cscore: np.ndarray, *, width: float = 0.05
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proportion correct at each epoch of the examples in each bin of C-score (J-fig9a).

    Args:
        correct: (e, n) whether each example was classified correctly at the end of each epoch, or by what share of
            several runs.
        cscore: (n,) in [0, 1]; examples without a score (NaN) are left out.
        width: of a bin; a score of 1 belongs to the last one.

    Returns:
        edges (b + 1,), counts (b,), curves (b, e); the curve of an empty bin is NaN.

    >>> grouped_accuracy(np.array([[0, 1, 1], [1, 1, 0]], bool), np.array([0.1, 0.9, np.nan]), width=0.5)[2]
    array([[0., 1.],
           [1., 1.]])
    """
    if correct.ndim != 2 or correct.shape[1] != len(cscore):
        raise ValueError(f"correct {correct.shape} is not (e, n) with n = {len(cscore)} scores")
    bins = int(np.ceil(1 / width - EDGE))
    scored = np.isfinite(cscore)
    where = np.clip(((cscore[scored] + EDGE) / width).astype(int), 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    right = np.array([np.bincount(where, epoch[scored], bins) for epoch in correct.astype(float)])
    right = right.reshape(len(correct), bins)
    curves = np.divide(right, counts, out=np.full(right.shape, np.nan), where=counts > 0)
    return np.minimum(np.arange(bins + 1) * width, 1.0), counts, curves.T


@styled
def learning_curves_by_score(
    correct: np.ndarray, cscore: np.ndarray, epochs: Sequence[int] | None = None, *, width: float = 0.05
) -> Figure:
    """Learning curves of the training examples grouped by C-score (J-fig9a, J-fig17 to 19).

    Args:
        correct: (e, n) whether each example was classified correctly at the end of each epoch.
        cscore: (n,) in [0, 1], NaN where missing.
        epochs: (e,) which epochs these are; by default every one, from the first.
        width: of a bin of scores.

    The panel on the right is colour key and size of the groups in one; groups of fewer than ten are drawn thin. The
    paper says nothing about the sizes.
    """
    edges, counts, curves = grouped_accuracy(correct, cscore, width=width)
    title = "How fast examples are learned, grouped by their C-score"
    if not counts.any() or not len(correct):
        return sentence_figure(title, "No example has a C-score, or no epoch was recorded.")
    figure = new_figure(10.2, 4.2, title)
    left, right = figure.subplots(1, 2, width_ratios=(3.1, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    epochs = np.arange(1, len(correct) + 1) if epochs is None else epochs
    for middle, count, curve in zip(middles, counts, curves, strict=True):
        if count:
            thin = count < 10
            left.plot(
                epochs,
                100 * curve,
                color=shade(middle),
                lw=0.7 if thin else 1.5,
                alpha=0.55 if thin else 1,
                marker="o" if len(epochs) < 6 else None,
                ms=3.5,
            )
    left.set(xlabel="epoch", ylabel="% of the group classified right", ylim=(-2, 102))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title("a line per group")
    _group_sizes(right, edges, counts)
    return figure


def _group_sizes(axes: Axes, edges: np.ndarray, counts: np.ndarray) -> None:
    middles = (edges[:-1] + edges[1:]) / 2
    axes.barh(middles, counts, np.diff(edges) * 0.9, color=shade(middles))
    log_counts(axes, counts)
    for middle, count in zip(middles, counts, strict=True):
        if count and len(counts) <= 25:
            axes.annotate(
                plain(count),
                (count, middle),
                (3, 0),
                textcoords="offset points",
                fontsize=6.5,
                va="center",
                color=FAINT if count >= 10 else INK,
            )
    axes.set(ylim=(-0.02, 1.02), xlabel="examples, log axis")
    score_axis(axes.yaxis)
    axes.set_title("colours, and sizes of the groups")
    axes.grid(axis="y", visible=False)
