"""Which examples to keep.  in: scores (n,), high means easy   out: rows (k,), rising"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

RULES = ("easy", "hard", "middle", "strata")
STRATA = 50  # the paper's number of ranges of scores
CUTOFF = 0.1  # share of the hardest examples that coverage-centric selection leaves out, if as much may be left out


def select(scores: ArrayLike, share: float, rule: str, rng: np.random.Generator) -> IntArray:
    """Choose a share of the examples by their scores.

    Args:
        scores: (n,); high means easy.  An example without a score (NaN) is taken last.
        share: of the n examples that are kept, above 0, at most 1.
        rule: "easy" keeps the highest scores, "hard" the lowest, "middle" those nearest to the median rank, "strata"
            see `coverage_centric`.
        rng: draws among equal scores, and within strata.

    Returns:
        (round(share * n),) rows, rising; at least one.

    Raises:
        ValueError: an unknown rule, or a share outside 0..1.

    >>> select([0.1, 0.9, 0.5, 0.7], 0.5, "hard", np.random.default_rng(0))
    array([0, 2])
    """
    scores = np.asarray(scores, dtype=float)
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: take one of {', '.join(RULES)}")
    if not 0 < share <= 1:
        raise ValueError(f"share {share}: a share lies above 0 and is at most 1")
    count = max(1, round(share * len(scores)))
    if rule == "strata":
        return coverage_centric(scores, count, rng)
    order = np.lexsort([rng.random(len(scores)), scores])
    order = order[np.isfinite(scores[order])]
    if rule == "easy":
        order = order[::-1]
    elif rule == "middle":
        order = order[np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")]
    missing = rng.permutation(np.flatnonzero(~np.isfinite(scores)))
    return np.sort(np.concatenate([order, missing])[:count]).astype(np.int64)


def coverage_centric(scores: ArrayLike, count: int, rng: np.random.Generator) -> IntArray:
    """Leave the hardest examples out, then draw from 50 equal ranges of the scores, as many from each as it has.

    Args:
        scores: (n,); high means easy.
        count: of the examples that are kept.
        rng: draws within a range.

    Returns:
        (count,) rows, rising.

    Source: Zheng, Liu, Lai and Prakash 2023, "Coverage-centric Coreset Selection for High Pruning Rates", algorithm 1;
        they tune the share that is left out at first, here it is a tenth, or what need not be kept if that is less.

    >>> coverage_centric([0, 1, 1, 1, 1, 5, 9, 9], 3, np.random.default_rng(0))
    array([3, 5, 6])
    """
    scores = np.asarray(scores, dtype=float)
    left_out = min(round(CUTOFF * len(scores)), len(scores) - count)
    order = np.lexsort([rng.random(len(scores)), np.where(np.isfinite(scores), scores, -np.inf)])
    rows = order[left_out:]
    finite = np.where(np.isfinite(scores[rows]), scores[rows], np.nanmin(scores))
    edges = np.linspace(finite.min(), finite.max(), STRATA + 1)[1:-1]
    places = np.digitize(finite, edges)
    strata = sorted((rows[places == place] for place in np.unique(places)), key=len)
    chosen: list[IntArray] = []
    for number, stratum in enumerate(strata):
        budget = (count - sum(map(len, chosen))) // (len(strata) - number)
        chosen.append(rng.permutation(stratum)[:budget])
    taken = np.concatenate(chosen)
    rest = rng.permutation(np.setdiff1d(rows, taken))[: count - len(taken)]  # what integer division has left
    return np.sort(np.concatenate([taken, rest])).astype(np.int64)
