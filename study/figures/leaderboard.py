"""Quality, cost and agreement of the proxies.  in: leaderboard, matrix and curves tables   out: Figure"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from study.figures.labels import SIZE, place_labels
from study.figures.style import (
    FAINT,
    GRID,
    INK,
    family_colour,
    legible,
    log_axis,
    new_figure,
    one_reference,
    plain,
    sentence_figure,
    short_number,
    styled,
)

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))  # of one family's lines
NUMBERED = 18  # rows of a matrix up to which its cells hold numbers


@styled
def quality_by_cost(leaderboard: pd.DataFrame) -> Figure:
    """Spearman correlation with the C-score against what a proxy costs beyond the training, in seconds, all proxies.

    Args:
        leaderboard: `proxy` `label` `family` `on` `cost` `spearman` `low` `high` `ceiling` `seconds`.

    Up and to the left is better.  Proxies declared "free", computed from the training itself, are at the left edge;
    others whose cost was not recorded are not drawn, and a note counts them.  The grey line is the best that can be had
    at that cost or less.
    """
    title = "Quality of each proxy, and its cost beyond the training"
    seconds = leaderboard["seconds"].where(leaderboard["cost"] != "free").clip(lower=1e-4)
    free = seconds.min() / 5 if seconds.notna().any() else 1.0
    cost_seconds = seconds.where(leaderboard["cost"] != "free", free)
    drawn = (
        leaderboard.assign(cost_seconds=cost_seconds)
        .dropna(subset=["cost_seconds", "spearman"])
        .sort_values("spearman", ascending=False)
    )
    if drawn.empty:
        return sentence_figure(title, "No run has recorded what its proxies cost.")
    figure = new_figure(10.6, 6.4, title, layout=None)
    axes = figure.add_axes((0.07, 0.13, 0.905, 0.78))
    log_axis(axes.xaxis)
    highest = max(drawn["cost_seconds"].max(), 100 * free)
    axes.set_xlim(free / 1.6, highest * (highest / free) ** 0.25)  # the names are written right of their points
    low, high = min(drawn["spearman"].min(), 0.0), max(drawn["spearman"].max(), 0.1)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.1 * (high - low))
    ticks = [tick for tick in 10.0 ** np.arange(-4, 7) if 2 * free < tick < axes.get_xlim()[1]]
    axes.set_xticks([free, *ticks], ["free", *(f"{plain(tick)} s" for tick in ticks)])
    axes.set(xlabel="cost of the proxy and the signals that it reads", ylabel="Spearman with the C-score")
    axes.axhline(0, color="#b6bcc8", lw=0.9)
    _frontier(axes, drawn)
    for row in drawn.itertuples():
        face = family_colour(row.family) if row.on == "train" else "white"
        axes.plot(row.cost_seconds, row.spearman, "o", ms=6, mec=family_colour(row.family), mfc=face, mew=1.2, zorder=3)
    colours, column = drawn["family"].map(family_colour), (drawn["cost_seconds"] == free).to_numpy()
    place_labels(axes, drawn["cost_seconds"], drawn["spearman"], drawn["label"], colours, column)
    _cost_key(figure, drawn, int(leaderboard["spearman"].notna().sum() - len(drawn)))
    return figure


def _frontier(axes: Axes, drawn: pd.DataFrame) -> None:
    best = drawn.groupby("cost_seconds")["spearman"].max().cummax()
    axes.step([*best.index, axes.get_xlim()[1]], [*best, best.iloc[-1]], where="post", color=GRID, lw=2.2, zorder=1)


def _cost_key(figure: Figure, drawn: pd.DataFrame, missing: int) -> None:
    families = dict.fromkeys(drawn["family"])
    lines = [Line2D([], [], ls="", marker="o", color=family_colour(f), label=legible(str(f))) for f in families]
    if (drawn["on"] == "test").any():
        lines.append(Line2D([], [], ls="", marker="o", mec=FAINT, mfc="white", label="on test examples"))
    figure.legend(handles=lines, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=len(lines), handletextpad=0.2)
    if missing:
        note = f"{missing} more: cost not recorded"
        figure.text(0.975, 0.018, note, ha="right", fontsize=8, color=FAINT)


@styled
def correlation_matrix(table: pd.DataFrame) -> Figure:
    """Rank correlation of every proxy with every other, and with the C-score, clustered by similarity.

    Args:
        table: of `analysis.proxy_matrix`: `proxy` `label` `family`, then one column per proxy in the order of the rows.
    """
    title = "Rank correlation between proxies"
    if len(table) < 2:
        return sentence_figure(title, "There is only one proxy.")
    values, p = table[list(table["proxy"])].to_numpy(dtype=float), len(table)
    side = max(0.205 * p, 2.6)
    figure = new_figure(side + 4.2, side + 2.6, title, layout=None)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((2.75 / width, 2.05 / height, side / width, side / height))
    shown = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    names = [legible(str(label), 48) for label in table["label"]]
    axes.set_yticks(range(p), names, fontsize=SIZE)
    axes.set_xticks(range(p), names, fontsize=SIZE, rotation=60, ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        for label, family in zip(labels, table["family"], strict=True):
            label.set_color(family_colour(family) if family else INK)
            label.set_fontweight("normal" if family else "bold")
    if p <= NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            white = abs(value) > 0.6
            number = {"ha": "center", "va": "center", "fontsize": 5.5, "color": "white" if white else INK}
            axes.text(column, row, short_number(value), **number)
    bar = figure.add_axes(((2.75 + side + 0.15) / width, 2.05 / height, 0.11 / width, min(side, 2.5) / height))
    figure.colorbar(shown, cax=bar).outline.set_visible(False)
    bar.set_title("Spearman", fontsize=SIZE, loc="left")
    return figure


@styled
def proxies_by_epoch(curves: pd.DataFrame, names: pd.DataFrame, *, reference: str = "cscore", count: int = 8) -> Figure:
    """Every proxy of a single epoch against the C-score, epoch by epoch; the notable ones in colour.

    Args:
        curves: `proxy` `epoch` `spearman` and, with several references, `reference`.
        names: `proxy` `label` `family`, of every proxy whose line may be labelled.
        reference: whose rows to draw.
        count: of lines with a name: half of them those that end highest, then those that move most.
    """
    title = "Proxies against the C-score, epoch by epoch"
    rows = one_reference(curves, reference)
    rows = rows[rows["spearman"].notna()]
    lines = {name: part.groupby("epoch")["spearman"].mean() for name, part in rows.groupby("proxy")}
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        return sentence_figure(title, "No proxy was computed at more than one epoch in the runs read.")
    described = names.drop_duplicates("proxy").set_index("proxy")
    chosen = choose_lines(lines, count)
    figure = new_figure(10.2, 4.6, title, layout=None)
    axes = figure.add_axes((0.07, 0.12, 0.63, 0.78))
    axes.axhline(0, color="#b6bcc8", lw=0.9)
    ends = []
    for name, line in lines.items():
        family = described["family"].get(name, "")
        if name in chosen:
            relatives = [other for other in chosen if described["family"].get(other, "") == family]
            dash = DASHES[relatives.index(name) % len(DASHES)]
            axes.plot(line.index, line, color=family_colour(family), ls=dash, zorder=3)
            ends.append((line.iloc[-1], line.index[-1], name, family_colour(family)))
        else:
            axes.plot(line.index, line, color="#c9ced8", lw=0.8, zorder=2)
    axes.set(xlabel="epoch", ylabel="Spearman with the C-score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_ends(axes, ends, described["label"])
    return figure


def choose_lines(lines: dict[str, pd.Series], count: int) -> list[str]:
    """Choose the lines to label: those that end highest, then those with the largest range."""
    best = sorted(lines, key=lambda name: -lines[name].iloc[-1])[: -(-count // 2)]
    moving = sorted((n for n in lines if n not in best), key=lambda name: lines[name].min() - lines[name].max())
    return [*best, *moving[: count - len(best)]]


def _name_ends(axes: Axes, ends: list[tuple[float, float, str, str]], labels: pd.Series) -> None:
    """Write each line's name right of the panel, at its end or as near as the others allow."""
    low, high = axes.get_ylim()
    step, places = 0.052 * (high - low), []
    for value, *_ in sorted(ends, reverse=True):
        places.append(min(value, places[-1] - step) if places else value)
    shift = max(low - places[-1], 0.0) if places else 0.0
    for (value, epoch, name, colour), place in zip(sorted(ends, reverse=True), places, strict=True):
        text = f"{short_number(value)}  {legible(str(labels.get(name, name)), 44)}"
        to = {"xytext": (1.03, place + shift), "textcoords": axes.get_yaxis_transform(), "va": "center"}
        line = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(text, (epoch, value), **to, fontsize=8, color=colour, arrowprops=line, annotation_clip=False)
