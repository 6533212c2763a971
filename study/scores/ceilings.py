"""What a perfect proxy could reach.  in: C-scores of two halves and of all members   out: draws of the truth

A perfect proxy ranks the examples by their true score, which has no noise and no ties.  The C-score has both: where
most scores tie at 1, the truth still has an order there, which the C-score cannot show.  Neither the reliability nor
the ties alone bound what can be reached, so both are simulated together.  The model is a Gaussian copula: normal scores
of the halves are the truth plus independent noise, and each half shows them with the ties it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from study.scores.rank_statistics import midranks, spearman_brown

FloatArray = NDArray[np.float64]
Measure = Callable[[FloatArray, FloatArray], float]

EXAMPLES = 20_000  # of all draws together: a ceiling is then sure to some .004
DRAWS = 20  # at most
SURE = 0.999999  # the largest correlation of normal scores that is looked for


@dataclass(frozen=True, eq=False)
class Truth:
    """Draws of the true scores of n examples given their C-scores.

    rows: (k,) places of the examples that were drawn for, all n unless they are many.
    scores: (k,) their C-scores.
    draws: (d, k) normal scores of the truth.

    >>> scores = np.linspace(0, 1, 500)
    >>> Truth.of(scores, 1.0).reach(rank_correlation) > 0.999 > 0.95 > Truth.of(scores, 0.8).reach(rank_correlation)
    True
    """

    rows: NDArray[np.int64]
    scores: FloatArray
    draws: FloatArray

    @classmethod
    def from_halves(
        cls, first: ArrayLike, second: ArrayLike, scores: ArrayLike, lengths: tuple[float, float] = (0.5, 0.5)
    ) -> Self | None:
        """Draw from how well the halves of the members agree.

        Args:
            first, second: (m,) C-scores of the halves; an example that one of them lacks is left out.
            scores: (n,) of all members, without NaN.
            lengths: of the halves as shares of the whole; see `spearman_brown`.

        Returns:
            None where fewer than three examples, or a constant half, leave it unknown.
        """
        halves = np.stack([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
        halves = halves[:, np.isfinite(halves).all(axis=0)]
        if halves.shape[1] < 3 or not np.ptp(halves, axis=1).all():
            return None
        one, other = halves
        half = latent_correlation(one, other, rank_correlation(one, other), rank_correlation)
        return cls.of(scores, spearman_brown(half, *lengths))

    @classmethod
    def from_errors(cls, scores: ArrayLike, errors: ArrayLike) -> Self | None:
        """Draw from standard errors (n,), where halves are not at hand; None where the scores are constant."""
        scores, errors = np.asarray(scores, dtype=float), np.asarray(errors, dtype=float)
        errors = errors[np.isfinite(errors)]
        if len(scores) < 3 or not np.ptp(scores) or not len(errors):
            return None
        reliability = max(0.0, 1 - float(np.mean(errors**2) / scores.var()))
        return cls.of(scores, latent_correlation(scores, scores, reliability, _pearson))

    @classmethod
    def of(cls, scores: ArrayLike, reliability: float) -> Self:
        """Draw for a score whose normal scores have this reliability, 0 to 1."""
        scores, rng = np.asarray(scores, dtype=float), np.random.default_rng(0)
        n, repeats = len(scores), min(DRAWS, max(1, round(EXAMPLES / len(scores))))
        rows = np.arange(n) if n <= EXAMPLES else np.sort(rng.permutation(n)[:EXAMPLES])
        noise = rng.standard_normal((repeats, len(rows)))
        seen = np.stack([_normal_scores(scores[rows], rng) for _ in range(repeats)])
        return cls(rows, scores[rows], np.sqrt(reliability) * seen + np.sqrt(1 - reliability) * noise)

    def reach(self, measure: Measure, proxy: ArrayLike | None = None) -> float:
        """What a perfect proxy has on average of `measure(scores, proxy)`, not below 0; NaN where that is undefined.

        Args:
            measure: a rank correlation.
            proxy: (n,) of the same examples: the perfect proxy then takes these values in the order of the truth, so
                that it has the same ties; None: it has none.
        """
        values = None if proxy is None else np.sort(np.asarray(proxy, dtype=float)[self.rows])
        taken = [draw if values is None else _in_order(values, draw) for draw in self.draws]
        return float(np.maximum(0.0, np.mean([measure(self.scores, each) for each in taken])))  # NaN stays NaN


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho without its interval; NaN where one side is constant.

    >>> round(rank_correlation([1, 2, 3], [1, 3, 2]), 3)
    0.5
    """
    return _pearson(midranks(x), midranks(y))


def latent_correlation(x: ArrayLike, y: ArrayLike, target: float, measure: Measure) -> float:
    """Correlation of two normal variables that, shown with the values and ties of x and y, have `measure` = `target`.

    Args:
        x, y: (n,) the values.
        target: what was measured.
        measure: `measure(x, y)`.

    Returns:
        0 to 1; 0 for a target of 0 or less.

    >>> x = np.arange(2000.0)
    >>> round(latent_correlation(x, x, 0.5, rank_correlation), 1)  # 2 sin(pi / 6 * 0.5) = 0.518
    0.5
    """
    rng, n = np.random.default_rng(0), min(max(len(np.asarray(x)), 2000), EXAMPLES // 2)
    a, b = rng.standard_normal((2, n))
    shares = (np.arange(n) + 0.5) / n
    first, second = (np.quantile(np.asarray(values), shares, method="inverted_cdf") for values in (x, y))
    shown = _in_order(first, a)

    def excess(r: float) -> float:
        return measure(shown, _in_order(second, r * a + np.sqrt(1 - r * r) * b)) - target

    if excess(0.0) >= 0:
        return 0.0
    return SURE if excess(SURE) <= 0 else float(brentq(excess, 0.0, SURE, xtol=1e-4))  # type: ignore[arg-type]


def _pearson(x: ArrayLike, y: ArrayLike) -> float:
    a, b = (values - values.mean() for values in (np.asarray(x, dtype=float), np.asarray(y, dtype=float)))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def _in_order(ascending: FloatArray, order: FloatArray) -> FloatArray:
    """(n,) the ascending values, given out in the order of `order`."""
    values = np.empty_like(ascending)
    values[np.argsort(order)] = ascending
    return values


def _normal_scores(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(n,) standard normal quantiles of the ranks, ties broken at random."""
    order = np.lexsort((rng.random(len(scores)), scores))
    return _in_order(ndtri((np.arange(len(scores)) + 0.5) / len(scores)), np.argsort(order).astype(float))
