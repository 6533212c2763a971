"""What a few repeats of a training say.  in: one number per repeat   out: means and differences with intervals"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from study.scores.detection import UNDEFINED, Estimate


def mean_of_repeats(values: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean over repeats with Student's interval.

    Args:
        values: (r,) one per repeat; NaN is left out.
        level: of the interval.

    Returns:
        The interval is NaN for fewer than two repeats.

    >>> [round(float(value), 3) for value in mean_of_repeats([0.8, 0.9, 1.0])]
    [0.9, 0.652, 1.148]
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return UNDEFINED
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, np.nan, np.nan)
    margin = float(stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, mean - margin, mean + margin)


def difference_of_means(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean of the second less mean of the first, with Welch's interval: repeats are not paired.

    Args:
        first, second: (r,) and (s,) one number per repeat.
        level: of the interval.

    Returns:
        The interval is NaN where one of the two has fewer than two repeats.

    >>> [round(float(value), 3) for value in difference_of_means([0.8, 0.9, 1.0], [0.9, 1.0, 1.1])]
    [0.1, -0.127, 0.327]
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not len(first) or not len(second):
        return UNDEFINED
    value = float(second.mean() - first.mean())
    if min(len(first), len(second)) < 2:
        return Estimate(value, np.nan, np.nan)
    shares = [values.var(ddof=1) / len(values) for values in (first, second)]
    variance = sum(shares)
    if variance == 0:
        return Estimate(value, value, value)
    freedom = variance**2 / sum(share**2 / (len(each) - 1) for share, each in zip(shares, (first, second), strict=True))
    margin = float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance))
    return Estimate(value, value - margin, value + margin)
