"""C-scores of single subset ratios (Jiang et al.).  in: held-out predictions   out: estimates, correlations"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.scores.rank_statistics import kendall, spearman

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]


class FirstPredictions:
    """Per ratio and example, the first so many held-out predictions, shard by shard.

    With ratios of 10 and 90 % an example has nine held-out predictions of the one for each of the other, so that the
    estimate at 10 % has less noise; with equal numbers what is left is the difference between the ratios.

    >>> first = FirstPredictions(1, 2)
    >>> first.add(0.5, np.array([[True, False], [False, True]]), np.array([[True, False], [True, True]]))
    >>> first.estimates()
    {0.5: array([1., 1.])}
    """

    def __init__(self, count: int, n: int) -> None:
        """Keep `count` predictions of each of n examples at each ratio."""
        self.count, self.n = count, n
        self.right: dict[float, NDArray[np.int64]] = {}
        self.seen: dict[float, NDArray[np.int64]] = {}

    def add(self, ratio: float, correct: BoolArray, held_out: BoolArray) -> None:
        """Add members of one ratio: (m, n) whether each is right, (m, n) whether it holds the example out."""
        right = self.right.setdefault(ratio, np.zeros(self.n, np.int64))
        seen = self.seen.setdefault(ratio, np.zeros(self.n, np.int64))
        for of_member, outside in zip(correct, held_out, strict=True):
            counted = outside & (seen < self.count)
            right += counted & of_member
            seen += counted

    def estimates(self) -> dict[float, FloatArray]:
        """{ratio: (n,) share of right predictions}, in rising order; NaN for an example with fewer than `count`."""
        return {
            ratio: np.where(self.seen[ratio] == self.count, self.right[ratio] / self.count, np.nan)
            for ratio in sorted(self.right)
        }


def fewest_held_out(shards: Iterable[tuple[float, BoolArray, BoolArray]], n_train: int) -> int:
    """The smallest number of held-out predictions that a training example has at any ratio.

    Args:
        shards: ratio, (m, n) right, (m, n) held out.
        n_train: training rows come first.

    >>> held_out = np.array([[True, False], [True, True]])
    >>> fewest_held_out([(0.1, held_out, held_out)], 2)
    1
    """
    totals: dict[float, NDArray[np.int64]] = {}
    for ratio, _, held_out in shards:
        totals[ratio] = totals.get(ratio, np.zeros(n_train, np.int64)) + held_out[:, :n_train].sum(axis=0)
    return int(min((total.min() for total in totals.values()), default=0))


def correlations_with_integral(estimates: dict[float, FloatArray], integral: FloatArray) -> pd.DataFrame:
    """Rank correlations of the estimates of single ratios with the integral C-score (J-fig5).

    Args:
        estimates: {ratio: (n,)}.
        integral: (n,) C-score over all ratios.

    Returns:
        ratio | spearman low high | kendall kendall_low kendall_high | n, a row per ratio.

    >>> estimates = {0.5: np.array([0.1, 0.4, 0.3, 0.9])}
    >>> correlations_with_integral(estimates, np.array([0, 0.2, 0.5, 1]))["spearman"].round(1)
    0    0.8
    Name: spearman, dtype: float64
    """
    rows = []
    for ratio, values in estimates.items():
        rho, tau = spearman(integral, values), kendall(integral, values)
        row = {"ratio": ratio, "spearman": rho.value, "low": rho.low, "high": rho.high}
        rows.append(row | {"kendall": tau.value, "kendall_low": tau.low, "kendall_high": tau.high, "n": rho.n})
    return pd.DataFrame(rows)
