"""Figures of a search: every trial is a point, far-off ones lie at the edge."""

import numpy as np
import pandas as pd
import pytest

from study.figures import search_history, search_importance, search_slices

TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 3, 4],
        "state": ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE", "PRUNED"],
        "value": [0.1, 0.95, 0.97, 0.98, np.nan],
        "optimizer.lr": [1e-4, 1e-2, 0.1, 0.2, 1.0],
        "train.batch_size": [64, 128, 64, 256, 256],
        "schedule.peak": [np.nan, 0.1, np.nan, 0.2, 0.3],
    }
)


def points(axes) -> list[tuple[float, float]]:
    """All that is drawn as points."""
    return [tuple(point) for drawn in axes.collections for point in np.asarray(drawn.get_offsets()).tolist()]


def test_history_shows_every_trial_and_the_best_so_far():
    """Four of five have a value; the line rises and never falls."""
    (axes,) = search_history(TRIALS, "val/accuracy").axes
    assert sorted(x for x, _ in points(axes)) == [0, 1, 2, 3]
    best = axes.lines[0].get_ydata()
    assert list(best[1:]) == [0.97, 0.98]
    assert np.all(np.diff(best) >= 0)


def test_a_value_far_below_is_drawn_at_the_lower_edge():
    """Else the trials that matter share one line of pixels."""
    (axes,) = search_history(TRIALS, "val/accuracy").axes
    lowest = min(y for _, y in points(axes))
    assert lowest == pytest.approx(0.96 - 2.5 * 0.02)  # the median of four values, the best .02 above it


def test_slices_have_a_panel_per_name_and_leave_out_where_it_was_not_active():
    """Three panels; the peak was drawn in three trials, one of them without a value."""
    figure = search_slices(
        TRIALS, ["optimizer.lr", "train.batch_size", "schedule.peak"], "val/accuracy", {"optimizer.lr"}
    )
    rate, _, peak = figure.axes
    assert rate.get_xscale() == "log"
    assert sorted(x for x, _ in points(peak)) == [0.1, 0.2]


def test_choices_stand_side_by_side_in_order():
    """64, 128, 256 are as far from each other as a, b, c."""
    figure = search_slices(TRIALS, ["train.batch_size"], "val/accuracy", listed={"train.batch_size"})
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "128", "256"]


def test_importances_are_bars_the_largest_on_top():
    """Shares add to one."""
    (axes,) = search_importance({"a": 0.2, "b": 0.7, "c": 0.1}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.2, 0.7]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "a", "b"]
