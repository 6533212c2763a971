"""Small balanced test sets (Z-testset).  in: places in Zhang's plane, who is right   out: bins, rows, agreement"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def angle_bins(x: ArrayLike, y: ArrayLike, bins: int) -> IntArray:
    """Divide the upper half-plane by rays of equal angle from the midpoint of the range of x.

    Args:
        x: (n,) epochs after which a test example is right (CBGL).
        y: (n,) its mal-generalizing events, at least 0.
        bins: of equal angle.

    Returns:
        (n,) 0 for examples on the left half-axis, 1..bins by the angle from there, bins + 1 for the right half-axis:
        the hardest first.  At the midpoint itself an example counts as right.

    Source: Zhang, section 4.2: 10 bins of 18 degrees, and the two half-axes as bins of their own.

    >>> angle_bins([0, 1, 5, 9, 10], [0, 3, 4, 3, 0], 2)
    array([0, 1, 2, 2, 3])
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    middle = (x.min() + x.max()) / 2
    angle = np.arctan2(y, middle - x)  # 0 on the left half-axis, pi on the right one
    inner = 1 + np.minimum((angle * bins / np.pi + 1e-9).astype(np.int64), bins - 1)
    return np.where(y > 0, inner, np.where(x < middle, 0, bins + 1)).astype(np.int64)


def balanced_rows(bins: ArrayLike, per_bin: int, rng: np.random.Generator) -> IntArray:
    """Draw as many examples from each bin, all of a bin that has fewer.

    Args:
        bins: (n,).
        per_bin: at least 1.
        rng: of the draw.

    Returns:
        rows, rising.

    >>> balanced_rows([0, 1, 1, 1, 2, 2], 2, np.random.default_rng(0)).tolist()
    [0, 1, 3, 4, 5]
    """
    bins = np.asarray(bins)
    drawn = [rng.permutation(np.flatnonzero(bins == place))[:per_bin] for place in np.unique(bins)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def ranking_precision(truth: ArrayLike, scores: ArrayLike) -> float:
    """Mean average precision of a ranking: how well the scores retrieve the k best, averaged over every k.

    Args:
        truth: (m,) accuracies that rank m classifiers.
        scores: (m,) accuracies on a small test set.

    Returns:
        0 to 1; where scores are equal, the mean over their best and their worst order.

    Zhang names the measure and gives no formula; this is average precision with the k best of m as the relevant ones,
    k = 1 to m - 1.

    >>> ranking_precision([0.9, 0.8, 0.7], [0.5, 0.4, 0.3]), ranking_precision([0.9, 0.8, 0.7], [0.4, 0.5, 0.3])
    (1.0, 0.75)
    """
    truth, scores = np.asarray(truth, dtype=float), np.asarray(scores, dtype=float)
    place = np.empty(len(truth), dtype=np.int64)
    place[np.argsort(-truth, kind="stable")] = np.arange(len(truth))  # 0 is the best
    ranks, precisions = np.arange(1, len(truth) + 1), []
    for ties in (place, -place):
        listed = place[np.lexsort([ties, -scores])]
        for k in range(1, len(truth)):
            relevant = listed < k
            precisions.append(float((np.cumsum(relevant) / ranks)[relevant].mean()))
    return float(np.mean(precisions))
