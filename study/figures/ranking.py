"""How well one score ranks like another.  in: correlation tables   out: Figure"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from study.figures.style import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    family_colour,
    legible,
    new_figure,
    one_reference,
    plain,
    sentence_figure,
    short_number,
    styled,
)

NUMBERS = ["spearman", "low", "high", "kendall", "kendall_low", "kendall_high", "ceiling"]
DENSITIES = ("independent", "conditional", "relative")
# Jiang et al. 2020, Table 1 (J-tab1): Spearman, then Kendall, of the three densities on the input
PAPER_DENSITIES = {
    "MNIST": (0.094, 0.396, 0.302, 0.070, 0.298, 0.224),
    "CIFAR-10": (-0.064, -0.009, 0.083, -0.042, -0.006, 0.055),
    "CIFAR-100": (-0.098, 0.117, 0.105, -0.066, 0.078, 0.070),
}


@styled
def point_estimates(table: pd.DataFrame) -> Figure:
    """Rank correlation of each ratio's point estimate with the integral C-score; its peak is the best ratio (J-fig5).

    Args:
        table: one row per ratio: `ratio` in (0, 1), `spearman` with `low` `high`, `kendall`, optionally with
            `kendall_low` `kendall_high`.

    The paper has a panel for each measure and a curve for each data set; here both measures share a panel.
    """
    title = "How well a single subset ratio ranks the examples like all ratios together"
    table = table.sort_values("ratio")
    if not table["spearman"].notna().any() and not table["kendall"].notna().any():
        return sentence_figure(title, "No ratio's scores can be ranked against the integral C-score.")
    figure = new_figure(8.2, 3.7, title)
    axes = figure.subplots()
    lines = (
        ("Spearman", "spearman", "low", "high", BLUE),
        ("Kendall", "kendall", "kendall_low", "kendall_high", ORANGE),
    )
    for name, value, low, high, colour in lines:
        if table[value].notna().any():
            _estimate_line(axes, table, (name, value, low, high, colour))
    percent = 100 * table["ratio"]
    axes.set(xlabel="subset ratio: % of the data trained on", ylabel="rank correlation with the C-score")
    axes.set_xticks(percent, [plain(round(p, 6)) for p in percent])
    axes.margins(x=0.06, y=0.18)
    return figure


def _estimate_line(axes: Axes, table: pd.DataFrame, line: tuple[str, str, str, str, str]) -> None:
    name, value, low, high, colour = line
    x, y = 100 * table["ratio"], table[value]
    if low in table and high in table:
        axes.fill_between(x, table[low], table[high], color=colour, alpha=0.15, lw=0)
    axes.plot(x, y, color=colour, marker="o", ms=4)
    peak = y.idxmax()
    axes.plot(x[peak], y[peak], marker="o", ms=10, mfc="none", mec=colour, mew=1.4)
    text = f"{name} peaks at {plain(round(x[peak], 6))} %: {short_number(y[peak])}"
    # above the panel: next to a peak the text would lie on one of the lines
    axes.text(0.0 if name == "Spearman" else 0.4, 1.02, text, transform=axes.transAxes, color=colour, fontsize=8.5)


def mean_over_repeats(correlations: pd.DataFrame) -> pd.DataFrame:
    """Average the repeats of a proxy: one row per proxy, side (`on`), reference and part; `repeats` says how many.

    The ends of an interval are averaged too: the interval of one typical repeat, not that of the mean.
    """
    keys = [k for k in ("proxy", "label", "family", "easy", "on", "reference", "part") if k in correlations]
    numbers = [name for name in [*NUMBERS, "n", "distinct"] if name in correlations]
    groups = correlations.groupby(keys, sort=False, dropna=False)
    return groups[numbers].mean().assign(repeats=groups.size()).reset_index()


@styled
def proxy_ranking(correlations: pd.DataFrame, *, reference: str = "cscore") -> Figure:
    """All proxies, best first, by their rank correlation with the C-score: the first figure of the report.

    Args:
        correlations: the table `correlations.parquet`: `proxy` `label` `family` `on` `reference` `part` `repeat`
            `spearman` `low` `high` `ceiling`. Values are oriented; one below zero points the wrong way and stays
            below zero here.
        reference: whose rows to draw.

    Filled: all examples. Open: only those whose C-score is not saturated. Faint dots: single repeats, if any.
    The vertical line is the noise ceiling, the correlation that a perfect proxy would reach given how reliable the
    C-scores are. The paper gives these numbers in its text (Sec. 4).
    """
    title = "How well each proxy ranks the examples like the C-score"
    rows = one_reference(correlations, reference)
    rows = rows[rows["spearman"].notna()]
    if rows.empty:
        return sentence_figure(title, "No proxy could be ranked against the C-score.")
    means = mean_over_repeats(rows)
    means["part"] = means.get("part", "all")
    order = means.sort_values("part", kind="stable").groupby(["proxy", "on"], sort=False)["spearman"].first()
    places = {key: place for place, key in enumerate(order.sort_values().index)}
    figure = new_figure(9.4, 1.25 + 0.3 * len(places), title)
    axes = figure.subplots()
    axes.axvline(0, color="#b6bcc8", lw=0.9)
    offsets = {"all": 0.0, "unsaturated": -0.26} if (means["part"] == "unsaturated").any() else {"all": 0.0}
    for part, offset in offsets.items():
        _dots(axes, means[means["part"] == part], rows, places, part, offset)
    _ranking_axes(axes, means, places)
    _ranking_key(axes, means, offsets)
    return figure


def _dots(axes: Axes, means: pd.DataFrame, rows: pd.DataFrame, places: dict, part: str, offset: float) -> None:
    whole = part == "all"
    for row in means.itertuples():
        y, colour = places[row.proxy, row.on] + offset, family_colour(row.family)
        axes.hlines(y, row.low, row.high, color=colour, lw=2.2 if whole else 1.1, alpha=0.5 if whole else 0.8)
        axes.plot(row.spearman, y, "o", ms=6.5 if whole else 4.5, mec=colour, mfc=colour if whole else "white", mew=1.2)
        if np.isfinite(row.ceiling):
            axes.vlines(
                row.ceiling,
                y - (0.5 if whole else 0.16),
                y + (0.5 if whole else 0.16),
                color=INK,
                lw=1.1,
            )
        if row.repeats > 1:
            same = (rows["proxy"] == row.proxy) & (rows["on"] == row.on) & (rows.get("part", "all") == part)
            values = rows.loc[same, "spearman"]
            axes.plot(values, np.full(len(values), y), "|", ms=5, color=colour, alpha=0.6)


def _ranking_axes(axes: Axes, means: pd.DataFrame, places: dict) -> None:
    first = means.drop_duplicates(["proxy", "on"]).set_index(["proxy", "on"])
    tests = "test" in set(means["on"]) and "train" in set(means["on"])
    names = [
        legible(str(first.label[key]), 44) + (" · test examples" if tests and key[1] == "test" else "")
        for key in places
    ]
    axes.set_yticks(list(places.values()), names, color=INK)
    for key, place in places.items():
        row = means[(means["proxy"] == key[0]) & (means["on"] == key[1])].sort_values("part").iloc[0]
        axes.annotate(
            short_number(row["spearman"]),
            (1.0, place),
            (8, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )
    low = min(0.0, means["low"].min(skipna=True), means["spearman"].min())
    axes.set(ylim=(-0.7, len(places) - 0.3), xlim=((low - 0.05) if low < 0 else -0.02, 1.02))
    axes.set_xlabel("Spearman rank correlation; positive: agrees with the C-score")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _ranking_key(axes: Axes, means: pd.DataFrame, offsets: dict[str, float]) -> None:
    dot = {"ls": "", "marker": "o", "mec": FAINT}
    key = [Line2D([], [], mfc=FAINT, ms=6.5, label="all examples", **dot)]
    if "unsaturated" in offsets:
        key.append(Line2D([], [], mfc="white", ms=4.5, label="unsaturated only", **dot))
    if means["ceiling"].notna().any():
        short = ", short: of the unsaturated" if "unsaturated" in offsets else ""
        key.append(Line2D([], [], color=INK, lw=1.1, label=f"noise ceiling{short}"))
    if (means["repeats"] > 1).any():
        key.append(Line2D([], [], color=FAINT, ls="", marker="|", ms=6, label="single repeats"))
    families = dict.fromkeys(means["family"])
    lines = [Line2D([], [], color=family_colour(f), lw=4, alpha=0.8, label=legible(str(f))) for f in families]
    axes.legend(handles=key, loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=len(key), borderaxespad=0.2)
    axes.figure.legend(handles=lines, loc="outside lower right", ncols=min(len(lines), 8), handlelength=1.2)


@styled
def density_table(correlations: pd.DataFrame, *, name: str = "this study", reference: str = "cscore") -> Figure:
    """Rank correlations of the input-space densities, and the paper's numbers (J-tab1).

    Args:
        correlations: as for `proxy_ranking`, with `kendall`. Read: `kernel_density_input_{independent,conditional,
            relative}` on the training examples, part "all"; repeats are averaged.
        name: of this study's row.
        reference: whose rows to read.
    """
    rows = one_reference(correlations, reference)
    for column, value in (("part", "all"), ("on", "train")):
        rows = rows[rows[column] == value] if column in rows else rows
    means = mean_over_repeats(rows).drop_duplicates("proxy").set_index("proxy")
    wanted = [f"kernel_density_input_{d}" for d in DENSITIES]
    measured = means.reindex(index=wanted, columns=NUMBERS)
    figure = new_figure(
        8.2, 2.55, "Density of the raw pixels against the C-score, and the paper's numbers", layout=None
    )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 8.2), ylim=(2.55, 0))
    axes.set_axis_off()
    columns = [2.95 + 0.88 * i + (0.15 if i > 2 else 0) for i in range(6)]
    for at, text in ((columns[1], "Spearman"), (columns[4], "Kendall")):
        axes.text(at, 0.58, text, ha="center", fontweight="bold", fontsize=8.5)
    for at, text in zip(columns, DENSITIES * 2, strict=True):
        axes.text(at + 0.36, 0.8, text, ha="right", fontsize=7.5, color=FAINT)
    axes.hlines(0.88, 0.12, 8.08, color="#b6bcc8", lw=0.7)
    for place, (data, numbers) in enumerate(PAPER_DENSITIES.items()):
        axes.text(0.2, 1.12 + 0.27 * place, f"{data}, paper", fontsize=8.5, color=FAINT)
        for at, number in zip(columns, numbers, strict=True):
            axes.text(at + 0.36, 1.12 + 0.27 * place, _three(number), ha="right", fontsize=8.5, color=FAINT)
    _measured_row(axes, measured, legible(name, 34), columns)
    return figure


def _measured_row(axes: Axes, measured: pd.DataFrame, name: str, columns: list[float]) -> None:
    axes.add_patch(Rectangle((0.12, 1.8), 7.96, 0.56, fc="#e8f1f8", ec="none", zorder=0))
    axes.text(0.2, 2.04, name, fontweight="bold", fontsize=8.5, color=BLUE)
    axes.text(0.2, 2.25, "95 % interval", fontsize=6.5, color=FAINT)
    cells = [
        measured[names].to_numpy()
        for names in (["spearman", "low", "high"], ["kendall", "kendall_low", "kendall_high"])
    ]
    for at, (value, low, high) in zip(columns, np.concatenate(cells), strict=True):
        axes.text(at + 0.36, 2.04, _three(value), ha="right", fontweight="bold", fontsize=9, color=BLUE)
        if np.isfinite(low) and np.isfinite(high):
            axes.text(at + 0.36, 2.25, f"{_three(low)} … {_three(high)}", ha="right", fontsize=5.8, color=FAINT)


def _three(value: float) -> str:
    """Three decimals as in the paper's table."""
    return f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "–"
