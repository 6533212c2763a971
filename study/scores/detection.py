"""How well a score finds marked examples.  in: scores (n,), marks (n,)   out: AUROC, precision, recall

A high score means "suspect".  Examples without a score (NaN) are left out everywhere.  Equal scores are treated as if
they stood in random order: a number is the mean over all orders of the ties, so no result depends on the order of rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from study.scores.rank_statistics import midranks

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Estimate(NamedTuple):
    """A number with the ends of its interval; NaN where it is undefined.

    >>> wilson(1, 1).high
    1.0
    """

    value: float
    low: float
    high: float


UNDEFINED = Estimate(np.nan, np.nan, np.nan)


def auroc(scores: ArrayLike, marked: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Probability that a marked example has a higher score than an unmarked one, ties counting one half.

    Args:
        scores: (n,); high means suspect.
        marked: (n,) bool.
        level: of the interval.

    Returns:
        0 to 1, with DeLong's interval cut off there; NaN where all or none are marked.

    Source: DeLong, DeLong and Clarke-Pearson 1988; with mid-ranks as in Sun and Xu 2014, O(n log n).

    >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]).value
    0.75
    """
    scores, marked = _defined(scores, marked)
    high, low = scores[marked], scores[~marked]
    if not len(high) or not len(low):
        return UNDEFINED
    ranks = midranks(scores)
    above = (ranks[marked] - midranks(high)) / len(low)  # per marked example: the share of the unmarked below it
    below = 1 - (ranks[~marked] - midranks(low)) / len(high)
    value = float(above.mean())
    variance = sum(part.var(ddof=1) / len(part) if len(part) > 1 else np.nan for part in (above, below))
    margin = ndtri((1 + level) / 2) * np.sqrt(variance)
    return Estimate(value, *np.clip([value - margin, value + margin], 0, 1).tolist())


def average_precision(scores: ArrayLike, marked: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Sum of the precisions at each score, weighted by the share of the marked that is found there.

    Args:
        scores: (n,); high means suspect.
        marked: (n,) bool.
        level: of the interval.

    Returns:
        0 to 1, with the logit interval of Boyd, Eng and Page 2013 over the number of marked examples; where the value
        is 0 or 1 the interval has no width.  NaN where none is marked.

    Equal scores are one threshold, as in scikit-learn's `average_precision_score`.

    >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True]).value, 4)
    0.8333
    """
    scores, marked = _defined(scores, marked)
    total = int(marked.sum())
    if not total:
        return UNDEFINED
    hits, inspected = _by_threshold(scores, marked)
    value = float(np.sum(np.diff(hits, prepend=0) / total * hits / inspected))
    if not 0 < value < 1:
        return Estimate(value, value, value)
    logit, margin = np.log(value / (1 - value)), ndtri((1 + level) / 2) / np.sqrt(total * value * (1 - value))
    return Estimate(value, *(1 / (1 + np.exp(-(logit + side * margin))) for side in (-1, 1)))


def hits_within(scores: ArrayLike, marked: ArrayLike, inspected: ArrayLike) -> FloatArray:
    """How many marked examples are among the first k, the highest score first; within ties their expected number.

    Args:
        scores: (n,); high means suspect.
        marked: (n,) bool.
        inspected: (k,) numbers of examples, whole or not, from 0 to n.

    Returns:
        (k,).

    >>> hits_within([0.9, 0.5, 0.5, 0.1], [True, True, False, False], [1, 2, 4])
    array([1. , 1.5, 2. ])
    """
    scores, marked = _defined(scores, marked)
    hits, thresholds = _by_threshold(scores, marked)
    return np.interp(np.asarray(inspected, float), np.r_[0, thresholds], np.r_[0, hits])


def recall_within(scores: ArrayLike, marked: ArrayLike, share: float, *, level: float = 0.95) -> Estimate:
    """Share of the marked examples that are among the first `share` of all (recall), with Wilson's interval.

    >>> recall_within([0.9, 0.5, 0.5, 0.1], [True, True, False, False], 0.5).value
    0.75
    """
    scores, marked = _defined(scores, marked)
    return wilson(float(hits_within(scores, marked, share * len(scores))), int(marked.sum()), level=level)


def precision_at(scores: ArrayLike, marked: ArrayLike, k: int, *, level: float = 0.95) -> Estimate:
    """Share of the first k examples that are marked, with Wilson's interval.

    >>> precision_at([0.9, 0.5, 0.5, 0.1], [True, True, False, False], 2).value
    0.75
    """
    scores, marked = _defined(scores, marked)
    k = min(k, len(scores))
    return wilson(float(hits_within(scores, marked, k)), k, level=level)


def wilson(successes: float, n: int, *, level: float = 0.95) -> Estimate:
    """A share with Wilson's score interval; NaN of nothing.

    >>> wilson(5, 10)
    Estimate(value=0.5, low=0.236593090512564, high=0.7634069094874361)
    """
    if not n:
        return UNDEFINED
    z, share = float(ndtri((1 + level) / 2)), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, float(max(0.0, centre - margin)), float(min(1.0, centre + margin)))


def confident_joint(
    labels: ArrayLike, agreement: ArrayLike, consensus: ArrayLike, share: ArrayLike, n_classes: int
) -> tuple[IntArray, BoolArray]:
    """Count the examples of each label that networks confidently give another class.

    Args:
        labels: (n,) given classes.
        agreement: (n,) share of the held-out predictions that are the label, the hard C-score; NaN: unknown.
        consensus: (n,) most frequent held-out prediction; -1: never held out.
        share: (n,) share of the held-out predictions that are the consensus.
        n_classes: c.

    Returns:
        (c, c) counts, given label in rows and consensus in columns, and (n,) bool, the examples off the diagonal: those
        that this rule calls label errors.

    An example counts for its consensus class j if `share` reaches the threshold of j, the mean agreement of the
    examples labelled j.  That is the rule of Northcutt, Jiang and Chuang 2021 with shares of votes as probabilities;
    of several classes above their thresholds theirs takes the most probable, which is the consensus.

    >>> joint, errors = confident_joint([0, 0, 1], [1, 0.4, 0.8], [0, 1, 1], [1, 0.9, 0.8], 2)
    >>> joint.tolist(), errors.tolist()
    ([[1, 1], [0, 1]], [False, True, False])
    """
    labels, consensus = np.asarray(labels), np.asarray(consensus)
    agreement, share = np.asarray(agreement, float), np.asarray(share, float)
    voted, scored = consensus >= 0, ~np.isnan(agreement)
    sizes = np.bincount(labels[scored], minlength=n_classes)
    sums = np.bincount(labels[scored], agreement[scored], minlength=n_classes)
    thresholds = np.divide(sums, sizes, out=np.full(n_classes, np.inf), where=sizes > 0)
    confident = voted & (share >= thresholds[np.where(voted, consensus, 0)] - 1e-12)
    joint = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(joint, (labels[confident], consensus[confident]), 1)
    return joint, confident & (labels != consensus)


def _defined(scores: ArrayLike, marked: ArrayLike) -> tuple[FloatArray, BoolArray]:
    scores, marked = np.asarray(scores, dtype=float), np.asarray(marked, dtype=bool)
    defined = ~np.isnan(scores)
    return scores[defined], marked[defined]


def _by_threshold(scores: FloatArray, marked: BoolArray) -> tuple[IntArray, IntArray]:
    """For each distinct score, the highest first: how many examples reach it, marked ones and all."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], len(ordered) > 0))
    return np.cumsum(marked[order], dtype=np.int64)[last], last + 1
