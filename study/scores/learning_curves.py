"""Errors as the training set grows.  in: counts at several sizes   out: power laws, extrapolated"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class PowerLaw(NamedTuple):
    """Error = exp(intercept) * size ** -exponent.

    >>> round(PowerLaw(0.0, 0.5).error(100), 3)
    0.1
    """

    intercept: float
    exponent: float

    def error(self, size: float) -> float:
        """The error at this size of the training set, at most 1."""
        return float(min(1.0, np.exp(self.intercept - self.exponent * np.log(size))))


def fit_power_law(sizes: ArrayLike, wrong: ArrayLike, counts: ArrayLike) -> PowerLaw:
    """Fit a power law to shares of errors, in logarithms, weighted by the errors that each share rests on.

    Args:
        sizes: (s,) of the training sets.
        wrong: (s,) wrong predictions; half of one is added, so that none is no infinite logarithm.
        counts: (s,) predictions.

    Returns:
        A falling law: an exponent below 0 is taken as 0, and the law is then the mean.

    Raises:
        ValueError: fewer than two sizes.

    Source: power laws of the training set's size, Hestness et al. 2017; the weights are those of Poisson counts.

    >>> law = fit_power_law([100, 400, 1600], [1000, 500, 250], [10000] * 3)
    >>> round(law.exponent, 2), round(law.error(6400), 3)
    (0.5, 0.013)
    """
    sizes, wrong, counts = (np.asarray(values, dtype=float) for values in (sizes, wrong, counts))
    if len(sizes) < 2:
        raise ValueError("a power law needs the errors at two sizes at least")
    x, y, weights = np.log(sizes), np.log((wrong + 0.5) / (counts + 1)), wrong + 0.5
    weights = weights / weights.sum()
    dx, dy = x - weights @ x, y - weights @ y
    exponent = max(0.0, -float(weights @ (dx * dy) / (weights @ dx**2)))
    return PowerLaw(float(weights @ y + exponent * (weights @ x)), exponent)
