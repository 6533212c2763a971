"""What a search has tried.  in: its table of trials, importances   out: Figures"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures.style import BLUE, FAINT, ORANGE, new_figure, plain, styled

LEAST = 2.5  # the axis goes down to the median less so many times the distance from there to the best


@styled
def search_history(trials: pd.DataFrame, metric: str) -> Figure:
    """Value of each trial in the order of their numbers, and the best so far.

    Args:
        trials: `trial`, `state` (COMPLETE or PRUNED), `value`; a value far below the others is drawn as a triangle at
            the lower edge.
        metric: what the value is.
    """
    figure = new_figure(8.0, 3.6, "Trials in their order, and the best so far")
    axes = figure.add_subplot()
    frame = trials.sort_values("trial")
    done = frame[frame["state"] == "COMPLETE"]
    floor = _floor(frame["value"])
    _points(axes, frame, "trial", floor)
    if len(done):
        axes.step(
            done["trial"], done["value"].cummax().clip(lower=floor), where="post", color=ORANGE, label="best so far"
        )
    axes.set(xlabel="trial", ylabel=metric)
    axes.legend(loc="lower right")
    return figure


@styled
def search_importance(shares: Mapping[str, float]) -> Figure:
    """Bars of the importance of each hyper-parameter, largest on top; shares add to 1 (PED-ANOVA)."""
    names = sorted(shares, key=shares.__getitem__)
    figure = new_figure(8.0, 1.1 + 0.32 * len(names), "Which hyper-parameters decide")
    axes = figure.add_subplot()
    axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    for row, name in enumerate(names):
        axes.text(shares[name] + 0.01, row, f"{shares[name]:.2f}", va="center", color=FAINT)
    axes.set(xlabel="share of the importance", xlim=(0, 1.08 * max(shares.values())))
    axes.grid(axis="y", visible=False)
    return figure


@styled
def search_slices(
    trials: pd.DataFrame,
    names: Sequence[str],
    metric: str,
    logarithmic: Collection[str] = (),
    listed: Collection[str] = (),
) -> Figure:
    """Value against each hyper-parameter by itself, a panel each.

    Args:
        trials: as for `search_history`, with a column per name; missing where the name was not active.
        names: of the columns, one or more.
        metric: what the value is.
        logarithmic: names that were searched on a logarithmic scale.
        listed: names that were searched as a list of choices: side by side, in order, at equal distances.
    """
    across = min(3, len(names))
    down = math.ceil(len(names) / across)
    figure = new_figure(2.9 * across + 0.6, 2.5 * down + 0.4, "Each hyper-parameter by itself")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    floor = _floor(trials["value"])
    for axes, name in zip(panels.flat, names, strict=False):
        frame = trials[trials[name].notna()].sort_values(name)
        numeric = name not in listed and pd.api.types.is_numeric_dtype(frame[name])
        if not numeric:
            texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in frame[name]]
            axes.plot(texts, [floor] * len(texts), alpha=0)  # names the places, in order
            frame = frame.assign(**{name: texts})
        _points(axes, frame, name, floor)
        if numeric and name in logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(plain)
        axes.set(xlabel=name)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(metric)
    return figure


def _points(axes: Axes, frame: pd.DataFrame, x: str, floor: float) -> None:
    for state, colour, filled in (("PRUNED", FAINT, False), ("COMPLETE", BLUE, True)):
        of_state = frame[(frame["state"] == state) & frame["value"].notna()]
        for low, marker in ((False, "o"), (True, "v")):
            some = of_state[(of_state["value"] < floor) == low]
            if len(some):
                face = colour if filled else "none"
                label = None if low else "completed" if filled else "pruned"
                values = some["value"].clip(lower=floor)
                axes.scatter(some[x], values, s=18, marker=marker, facecolors=face, edgecolors=colour, label=label)


def _floor(values: pd.Series) -> float:
    """The lower edge: a search begins with trials that are worse than all that matters."""
    finite = values.dropna()
    if finite.empty:
        return 0.0
    median, best = float(finite.median()), float(finite.max())
    return max(float(finite.min()), median - LEAST * max(best - median, 1e-6)) if np.isfinite(best) else 0.0
