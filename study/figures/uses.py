"""What scores are for.  in: tables of trainings   out: Figures"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from study.figures.style import AMBER, BLUE, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, SKY, legible, new_figure, styled

COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, AMBER, GREY)
MARKERS = "osD^vPX"


@styled
def accuracy_by_share(table: pd.DataFrame) -> Figure:
    """Test accuracy against the share of the training set that is kept, a line per way of choosing (Z-reduce).

    Args:
        table: `by` `share` `accuracy` `low` `high`; `by` is "all" for all examples, "random" for random lists.
    """
    figure = new_figure(8.2, 4.6, "Accuracy after training on a part of the training set")
    axes = figure.subplots()
    by, share = table["by"].to_numpy(dtype=str), table["share"].to_numpy(dtype=float)
    accuracy = 100 * table["accuracy"].to_numpy(dtype=float)
    ends = [100 * table[name].to_numpy(dtype=float) for name in ("low", "high")]
    margins = np.nan_to_num(np.abs(np.array(ends) - accuracy))
    for value in accuracy[by == "all"]:
        axes.axhline(value, color=FAINT, lw=1, ls=":", label="all examples")
    names = [name for name in dict.fromkeys(by.tolist()) if name not in ("all", "random")]
    for place, name in enumerate((["random"] if "random" in by else []) + names):
        rows = np.flatnonzero(by == name)
        rows = rows[np.argsort(share[rows])]
        shift = 1 + 0.012 * (place - len(names) / 2)  # intervals of several lines are told apart
        axes.errorbar(
            100 * share[rows] * shift,
            accuracy[rows],
            yerr=margins[:, rows],
            color=INK if name == "random" else COLOURS[(place - 1) % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            ms=4,
            lw=2.2 if name == "random" else 1.2,
            ls=("-", "--", "-.")[place // len(COLOURS) % 3],
            elinewidth=0.7,
            label=legible(name.replace(":", ", keep ").replace("_", " "), 40),
        )
    axes.set_xscale("log")
    axes.set_xticks(sorted(set((100 * share[by != "all"]).tolist())), minor=False)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="% of the training examples that are kept", ylabel="% of the test examples right")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@styled
def small_test_sets(table: pd.DataFrame) -> Figure:
    """How well small test sets rank classifiers as the whole one does, against their size (Z-testset, Z-fig13).

    Args:
        table: `drawn` (balanced or random) `n` `spearman` `precision`, each with `_low` and `_high`.
    """
    figure = new_figure(8.2, 3.6, "Small test sets: do they rank classifiers as all test examples do?")
    named = {"spearman": "Spearman", "precision": "mean average precision"}
    for axes, (measure, label) in zip(figure.subplots(1, 2), named.items(), strict=True):
        for drawn, colour, shift in (("balanced", ORANGE, 0.985), ("random", INK, 1.015)):
            rows = np.flatnonzero(table["drawn"].to_numpy(dtype=str) == drawn)
            sizes, value, low, high = (
                table[name].to_numpy(dtype=float)[rows] for name in ("n", measure, f"{measure}_low", f"{measure}_high")
            )
            margins = [np.clip(value - low, 0, None), np.clip(high - value, 0, None)]
            axes.errorbar(
                sizes * shift, value, yerr=margins, color=colour, marker="o", ms=4, elinewidth=0.8, label=drawn
            )
        axes.set_xscale("log")
        axes.set_xticks(sorted(set(table["n"].tolist())), minor=False)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(xlabel="test examples", ylabel=label)
        axes.legend(loc="lower right")
    return figure


@styled
def accuracy_by_class(curves: pd.DataFrame, table: pd.DataFrame, times: float) -> Figure:
    """Held-out accuracy of the classes against the share of the data, extrapolated to more data.

    Args:
        curves: `class` `ratio` `accuracy`.
        table: a row per class, the largest gain first: `class` | `now` `more` with `_low` and `_high`; the first six
            are drawn.
        times: how much larger the training set would be.
    """
    figure = new_figure(8.2, 4.4, "What more training data would bring, class by class")
    axes = figure.subplots()
    drawn = table.head(len(COLOURS) - 1)
    for place, row in enumerate(drawn.to_dict("records")):
        rows, colour = np.flatnonzero(curves["class"].to_numpy(dtype=str) == str(row["class"])), COLOURS[place]
        share, accuracy = (curves[name].to_numpy(dtype=float)[rows] for name in ("ratio", "accuracy"))
        axes.plot(100 * share, 100 * accuracy, color=colour, marker="o", ms=4, label=legible(str(row["class"]), 30))
        x = np.array([100, 100 * times]) * (1 + 0.01 * (place - len(drawn) / 2))
        value, low, high = (
            100 * np.array([row[f"{at}{end}"] for at in ("now", "more")]) for end in ("", "_low", "_high")
        )
        margins = [np.clip(value - low, 0, None), np.clip(high - value, 0, None)]
        axes.errorbar(
            x, value, yerr=margins, color=colour, ls=":", lw=1.2, marker="D", ms=4, mfc="white", elinewidth=0.8
        )
    axes.axvline(100, color=FAINT, lw=0.8, ls="--")
    axes.set_xscale("log")
    ticks = sorted({*(100 * curves["ratio"].to_numpy(dtype=float)).round().tolist(), 100, 100 * times})
    axes.set_xticks(ticks, minor=False)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="training data, % of today's; diamonds are extrapolated", ylabel="% of held-out examples right")
    axes.legend(title="largest gains", loc="lower right")
    return figure


@styled
def accuracy_by_budget(table: pd.DataFrame) -> Figure:
    """Accuracy gained over shuffled training of the same length, a group of bars per length.

    Args:
        table: `way` `budget` `steps` `gain` `gain_low` `gain_high`; the row of the way "shuffled" has `accuracy`.
    """
    figure = new_figure(8.2, 4.0, "Orders and weights against shuffled training of the same length")
    axes = figure.subplots()
    names, budgets = table["way"].to_numpy(dtype=str), table["budget"].to_numpy(dtype=float)
    gain, low, high = (100 * table[name].to_numpy(dtype=float) for name in ("gain", "gain_low", "gain_high"))
    lengths, ways = (
        sorted(set(budgets.tolist())),
        [name for name in dict.fromkeys(names.tolist()) if name != "shuffled"],
    )
    for place, name in enumerate(ways):
        rows = [int(np.flatnonzero((names == name) & (budgets == budget))[0]) for budget in lengths]
        margins = np.nan_to_num([gain[rows] - low[rows], high[rows] - gain[rows]])
        x = np.arange(len(lengths)) + 0.8 * ((place + 0.5) / len(ways) - 0.5)
        axes.errorbar(x, gain[rows], yerr=margins, ls="none", marker=MARKERS[place], color=COLOURS[place], label=name)
    axes.axhline(0, color=INK, lw=0.8)
    rows = [int(np.flatnonzero((names == "shuffled") & (budgets == budget))[0]) for budget in lengths]
    shown = zip(table["steps"].to_numpy()[rows], table["accuracy"].to_numpy(dtype=float)[rows], strict=True)
    axes.set_xticks(
        range(len(lengths)), [f"{steps:,} updates\nshuffled: {100 * value:.1f} %" for steps, value in shown]
    )
    axes.set(ylabel="test accuracy over shuffled, points", xlim=(-0.5, len(lengths) - 0.5))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
