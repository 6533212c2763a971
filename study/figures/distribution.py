"""How C-scores are distributed, over examples and over subset ratios.  in: cscore table   out: Figure"""

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    log_axis,
    new_figure,
    percent_axis,
    plain,
    score_axis,
    sentence_figure,
    shade,
    styled,
)

WIDEST = 0.1  # bar of a histogram, as a share of the axis
FEW = 10  # examples in a bin below which its line is drawn thin: it is mostly noise
EDGE = 1e-9  # 3/10 and the third edge of ten differ in their last bit: edges sit a hair lower, so that .3 opens its bin


def ratio_columns(cscores: pd.DataFrame) -> dict[float, str]:
    """Find the per-ratio columns `cscore_10`, `cscore_20`, ...: {ratio in percent: column}, ascending."""
    matches = ((re.fullmatch(r"cscore_(\d+(?:\.\d+)?)", str(name)), name) for name in cscores.columns)
    return dict(sorted((float(match[1]), name) for match, name in matches if match))


def score_edges(cscores: pd.DataFrame, column: str, bins: int = 20) -> np.ndarray:
    """Choose edges that fit the possible values of a score of few held-out predictions.

    A score of k predictions is one of 0, 1/k, ..., 1. With k <= `bins` every value gets a separate bin, centred on it;
    with more, at least two values share a bin. Otherwise empty and double bins would alternate.

    Args:
        cscores: the median of the scores' `held_out...` column, where it is present, is k.
        column: of the scores, `cscore` or `cscore_<percent>`.
        bins: number of bins where k allows it.
    """
    counts = cscores.get(column.replace("cscore", "held_out"), pd.Series(dtype=float)).dropna()
    k = int(counts.median()) if len(counts) else 0
    k = k if k > 0 else 4 * bins
    if k <= bins:
        return (np.arange(k + 2) - 0.5) / k
    return np.linspace(0, 1, min(bins, k // 2) + 1) - EDGE


def percentages(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Percent of the scored examples per bin (missing scores left out); a score of 1 belongs to the last bin."""
    scores = np.asarray(scores, float)
    scores = np.minimum(scores[np.isfinite(scores)], edges[-1] - EDGE)
    counts, _ = np.histogram(scores, edges)
    return 100.0 * counts / max(len(scores), 1)


@styled
def histograms_by_ratio(cscores: pd.DataFrame, *, bins: int = 20) -> Figure:
    """Histogram of C-scores per subset ratio, and of the integral score as the last panel (J-fig2, J-fig11).

    Args:
        cscores: columns `cscore`, `cscore_<percent>`, optionally `held_out_<percent>`.
        bins: at most so many; fewer where scores are of few predictions (`score_edges`): large ratios hold out few.

    The number is the last bin's. Where a bin is saturated the percentages get a logarithmic axis; the paper's are
    linear throughout.
    """
    ratios = ratio_columns(cscores)
    panels = {f"trained on {plain(p)} %": (name, BLUE) for p, name in ratios.items()}
    panels["all: the C-score"] = ("cscore", ORANGE)
    edges = {title: score_edges(cscores, name, bins) for title, (name, _) in panels.items()}
    shares = {title: percentages(cscores[name], edges[title]) for title, (name, _) in panels.items()}
    columns = min(len(panels), 5)
    rows = -(-len(panels) // columns)
    title = "How often held-out examples are classified correctly, by the share of the data trained on"
    figure = new_figure(max(2.05 * columns, 6.4), 0.7 + 1.75 * rows, title)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    label = percent_axis(grid[0, 0], np.concatenate(list(shares.values())))
    for axes, (name, share) in zip(grid.flat, shares.items(), strict=False):
        _panel(axes, edges[name], share, name, panels[name][1])
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    for axes in grid.flat[max(len(panels) - columns, 0) : len(panels)]:
        score_axis(axes.xaxis, "share correct")
        axes.tick_params(labelbottom=True)
    return figure


def _panel(axes: Axes, edges: np.ndarray, share: np.ndarray, title: str, colour: str) -> None:
    # the bins of few predictions are wide, but each holds one possible score: its bar is drawn there
    width = min(edges[1] - edges[0], WIDEST)
    axes.bar((edges[:-1] + edges[1:]) / 2, share, width, color=colour, edgecolor="white", linewidth=0.4)
    axes.set_xlim(-0.07, 1.07)
    axes.set_title(title)
    axes.grid(axis="x", visible=False)
    above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "right", "fontsize": 7, "color": FAINT}
    right = (edges[-2] + edges[-1] + width) / 2
    axes.annotate(f"{share[-1]:.0f} %", (right, max(share[-1], axes.get_ylim()[0])), **above)


def bin_profile(cscores: pd.DataFrame, *, bins: int = 30) -> pd.DataFrame:
    """Group the examples by integral C-score and average each group's score at every subset ratio (J-fig3).

    Returns:
        one row per bin of equal width over [0, 1]: `low` `high` its edges, `count` examples in it, `share` in percent,
        and one column per ratio, named by the number of percent, with the group's mean (NaN for an empty bin).
    """
    scored = cscores[cscores["cscore"].notna()]
    edges = np.linspace(0, 1, bins + 1)
    where = np.clip(((scored["cscore"].to_numpy() + EDGE) * bins).astype(int), 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})
    table["share"] = 100.0 * counts / max(len(scored), 1)
    for percent, name in ratio_columns(cscores).items():
        table[percent] = scored[name].groupby(where).mean().reindex(range(bins)).to_numpy()
    return table


def integral_histogram(axes: Axes, profile: pd.DataFrame) -> None:
    """Draw the histogram of integral C-scores, every bar in its bin's colour (J-fig3 left, J-fig12)."""
    width = profile["high"] - profile["low"]
    colours = shade((profile["low"] + profile["high"]) / 2)
    axes.bar(profile["low"], profile["share"], width, align="edge", color=colours, edgecolor="white", linewidth=0.4)
    percent_axis(axes, profile["share"].to_numpy())
    score_axis(axes.xaxis, "C-score, averaged over the ratios")
    axes.set_title(f"{plain(profile['count'].sum())} examples in {len(profile)} bins")
    axes.grid(axis="x", visible=False)


def profile_by_bin(axes: Axes, profile: pd.DataFrame, n_classes: int) -> None:
    """Draw each bin's mean C-score against the subset ratio, opaque where many examples are (J-fig3 right, J-fig12)."""
    ratios = [name for name in profile.columns if isinstance(name, float)]
    opacity = 0.2 + 0.8 * np.cbrt(profile["count"] / max(profile["count"].max(), 1))
    for alpha, (_, row) in zip(opacity, profile.iterrows(), strict=True):
        if row["count"] > 0 and ratios:
            colour = shade((row["low"] + row["high"]) / 2)
            few = row["count"] < FEW
            axes.plot(
                ratios,
                row[ratios].astype(float),
                color=colour,
                alpha=alpha,
                lw=0.6 if few else 1.2,
                marker="o",
                ms=1.5 if few else 3,
            )
    axes.axhline(1 / n_classes, color=INK, lw=0.9, ls=(0, (4, 3)))
    at = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(f"chance\n1/{n_classes}", (1, 1 / n_classes), (4, 0), fontsize=7.5, va="center", **at)
    axes.set_ylim(-0.03, 1.03)
    score_axis(axes.yaxis, "mean C-score of the bin")
    if ratios:
        axes.set_xticks(ratios)
    axes.set_xlabel("subset ratio: % of the data trained on")
    thin = f"; thin: fewer than {FEW} examples" if profile["count"].between(1, FEW - 1).any() else ""
    axes.set_title(f"the same bins, ratio by ratio{thin}" if ratios else "no per-ratio scores in the table")


@styled
def consistency_profile(cscores: pd.DataFrame, n_classes: int, *, bins: int = 30) -> Figure:
    """Histogram of integral C-scores and the consistency profile of its bins (J-fig3, J-fig12).

    Args:
        cscores: columns `cscore` and `cscore_<percent>`.
        n_classes: chance level is one over this.
        bins: of equal width over [0, 1].

    The paper's opacity comes from circles that lie on each other; here it is set from the number of examples.
    """
    title = "The C-score, and its parts from small and large training sets"
    if not cscores["cscore"].notna().any():
        return sentence_figure(title, "No example has a C-score: some subset ratio never held it out.")
    figure = new_figure(10.2, 3.9, title)
    left, right = figure.subplots(1, 2)
    profile = bin_profile(cscores, bins=bins)
    integral_histogram(left, profile)
    profile_by_bin(right, profile, n_classes)
    return figure


def log_counts(axes: Axes, counts: np.ndarray) -> None:
    """Scale a horizontal axis of numbers of examples, logarithmic from half an example up."""
    log_axis(axes.xaxis)
    largest = max(counts.max(initial=1), 10)
    axes.set_xlim(0.5, largest * 12)
    axes.set_xticks(10.0 ** np.arange(0, np.log10(largest) + 1e-9, 1 if largest < 1e4 else 2))
