"""Rank statistics with intervals and ceilings.  in: two arrays of n numbers   out: Correlation(value, low, high, n)

Intervals come from the influence function of each statistic (the delta method on its U-statistics, ties as they are),
on Fisher's z scale.  They cover the sampling of examples; what other networks would change is for the reliability.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from study.kernels import native

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Correlation(NamedTuple):
    """A rank correlation, its interval and the number of pairs it rests on.

    value is NaN where it is not defined: fewer than three pairs, or one side constant.  n counts the pairs without NaN.
    """

    value: float
    low: float
    high: float
    n: int


def spearman(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Correlation:
    """Spearman's rho: Pearson's correlation of midranks, with the interval at `level`.

    Args:
        x: (n,), any order scale; a pair with NaN on either side is dropped.
        y: (n,).
        level: coverage of the interval, 0 to 1.

    Returns:
        Correlation with `value` -1 to 1; see there for NaN.

    >>> spearman([1, 2, 3, 4], [1, 2, 4, 3]).value
    0.8

    Source: influence function of rho as a functional of the mid-distribution functions; with heavy ties the variances
        of the ranks are themselves estimates and take part (checked against a bootstrap in tests/test_ranks.py).
    """
    x, y = _pairs(x, y)
    if _undefined(x, y):
        return Correlation(np.nan, np.nan, np.nan, len(x))
    (u, order_x), (v, order_y) = _midscores(x), _midscores(y)
    covariance, var_x, var_y = np.mean(u * v), np.mean(u * u), np.mean(v * v)
    cross = u * v + _mean_above(u, v, order_x) + _mean_above(v, u, order_y) - 3 * covariance
    influence_x = u * u + 2 * _mean_above(u, u, order_x) - 3 * var_x
    influence_y = v * v + 2 * _mean_above(v, v, order_y) - 3 * var_y
    return _ratio_with_interval(float(covariance), float(var_x), float(var_y), cross, influence_x, influence_y, level)


def midranks(x: ArrayLike) -> FloatArray:
    """Ranks from 1; equal values share the mean of their ranks.

    Args:
        x: (n,) without NaN.

    `scipy.stats.rankdata` gives the same and takes several times as long; a report ranks thousands of short columns.

    >>> midranks([3, 1, 3, 7])
    array([2.5, 1. , 2.5, 4. ])
    """
    return _ranked(np.asarray(x, dtype=float))[0]


def _ranked(x: FloatArray) -> tuple[FloatArray, IntArray]:
    """(n,) midranks, and the order that sorts x."""
    order = np.argsort(x, kind="stable")
    starts, ends = _ties(x[order])
    ranks = np.empty(len(x))
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks, order


def _ties(ascending: FloatArray) -> tuple[IntArray, IntArray]:
    """Where each run of equal values starts, and where it ends."""
    starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1]))[: len(ascending)])
    return starts, np.append(starts[1:], len(ascending))


def centred_ranks_by_group(x: ArrayLike, groups: ArrayLike) -> FloatArray:
    """Midranks of each example among those of its group, less the group's mean.

    Args:
        x: (n,) without NaN.
        groups: (n,) integers from 0.

    >>> centred_ranks_by_group([1, 5, 5, 7, 0], [0, 0, 0, 1, 1])
    array([-1. ,  0.5,  0.5,  0.5, -0.5])
    """
    x, groups = np.asarray(x, dtype=float), np.asarray(groups)
    order = np.lexsort((x, groups))
    x_sorted, group = x[order], groups[order]
    new = np.concatenate(([True], (x_sorted[1:] != x_sorted[:-1]) | (group[1:] != group[:-1])))[: len(x)]
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(x))
    sizes = np.bincount(groups)
    middle = np.cumsum(sizes) - sizes + (sizes - 1) / 2  # the mean place of a group
    ranks = np.empty(len(x))
    ranks[order] = np.repeat((starts + ends - 1) / 2, ends - starts) - middle[group]
    return ranks


def kendall(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Correlation:
    """Kendall's tau-b: concordant minus discordant pairs over the geometric mean of the untied ones, with its interval.

    Args:
        x: (n,), any order scale; a pair with NaN on either side is dropped.
        y: (n,).
        level: coverage of the interval, 0 to 1.

    Counting takes O(n log n) and is exact in integers; n may be up to 2**31.

    >>> round(kendall([1, 2, 3, 4], [1, 2, 4, 3]).value, 3)
    0.667
    """
    x, y = _pairs(x, y)
    if _undefined(x, y):
        return Correlation(np.nan, np.nan, np.nan, len(x))
    others = len(x) - 1
    agreement, untied_x, untied_y = concordance(x, y)
    mean, mean_x, mean_y = (counts.sum() / len(x) / others for counts in (agreement, untied_x, untied_y))
    influence = (2 * (agreement / others - mean), 2 * (untied_x / others - mean_x), 2 * (untied_y / others - mean_y))
    return _ratio_with_interval(mean, mean_x, mean_y, *influence, level)


def concordance(x: ArrayLike, y: ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    """Count for each example how many others it is in order with.

    Args:
        x: (n,) without NaN, n at least 1.
        y: (n,) without NaN.

    Returns:
        (n,) concordant minus discordant others, (n,) others with another x, (n,) others with another y.

    Raises:
        ValueError: not two arrays of one length.
        MemoryError: no room for some 80 bytes per example.

    A compiled kernel counts; where it cannot be compiled numpy does, to the same numbers in six times the time.

    >>> agreement, untied_x, untied_y = concordance([1, 2, 3], [1, 3, 2])
    >>> agreement
    array([2, 0, 0])
    """
    x, y = _columns(x, y)
    library = native.library()
    if library is None:
        return _concordance(x, y)
    counts = np.empty((3, len(x)), dtype=np.int64)
    if not library.study_concordance(x.ctypes.data, y.ctypes.data, len(x), *(row.ctypes.data for row in counts)):
        raise MemoryError(f"too little memory to count {len(x):,} pairs")
    return counts[0], counts[1], counts[2]


def spearman_brown(half: float, first: float = 0.5, second: float = 0.5) -> float:
    """Reliability of the whole from the correlation r of two of its parts; of equal halves 2r / (1 + r).

    Args:
        half: correlation of the parts; NaN stays NaN, and -1 becomes NaN.
        first, second: lengths of the parts as shares of the whole, which need not add up to 1.  At r <= 0, where the
            parts share nothing, the formula of equal halves is used.

    Source: with noise v / length beside a truth of variance 1, r^-2 = (1 + v / first) (1 + v / second) and the whole
        has 1 / (1 + v); Horst 1951, "Estimating total test reliability from parts of unequal length".

    >>> round(spearman_brown(0.6), 2), round(spearman_brown(0.6, 2 / 3, 1 / 3), 2)
    (0.75, 0.77)
    """
    if not half > 0:
        return float(2 * half / (1 + half)) if half != -1 else np.nan
    linear, constant = first + second, first * second * (1 - half**-2)
    return float(1 / (1 + (np.sqrt(linear**2 - 4 * constant) - linear) / 2))


def tie_ceiling(x: ArrayLike) -> float:
    """Largest Spearman correlation that a score without ties can reach with x: sqrt(1 - sum(t^3 - t) / (n^3 - n)).

    t runs over the sizes of the tied groups.  1 without ties, 0 when all are tied; NaN entries are left out, and fewer
    than two entries give NaN.

    >>> round(tie_ceiling(np.r_[np.ones(45_504), np.linspace(0, 0.99, 14_496)]), 3)  # MNIST: 75.84 % of 60,000 at 1
    0.751
    """
    x = np.asarray(x)
    _, ties = np.unique(x[~np.isnan(x)], return_counts=True)
    n, ties = float(ties.sum()), ties.astype(float)
    return float(np.sqrt(max(0.0, 1 - np.sum(ties**3 - ties) / (n**3 - n)))) if n > 1 else np.nan


def distinct(x: ArrayLike) -> int:
    """How many different values x takes, NaN not counted.

    >>> distinct([1, 2, 2, np.nan])
    2
    """
    x = np.asarray(x)
    return len(np.unique(x[~np.isnan(x)]))


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = _columns(x, y)
    defined = ~(np.isnan(x) | np.isnan(y))
    return x[defined], y[defined]


def _columns(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both in contiguous float64; messages show the shapes as given, a single number would become an array."""
    shapes = np.shape(x), np.shape(y)
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise ValueError(f"two arrays of one length are needed, not {shapes[0]} and {shapes[1]}")
    return np.ascontiguousarray(x, dtype=np.float64), np.ascontiguousarray(y, dtype=np.float64)


def _undefined(x: FloatArray, y: FloatArray) -> bool:
    return len(x) < 3 or x.min() == x.max() or y.min() == y.max()


def _midscores(x: FloatArray) -> tuple[FloatArray, IntArray]:
    """(n,) mid-distribution function of x at x, centred: midrank less its mean, over n; and the order that sorts x."""
    ranks, order = _ranked(x)
    return (ranks - (len(x) + 1) / 2) / len(x), order


def _mean_above(x: FloatArray, values: FloatArray, order: IntArray) -> FloatArray:
    """(n,) sum of `values` over the examples with a larger x, plus half of those with the same x, over n.

    `order` sorts x.
    """
    cumulative = np.concatenate(([0.0], np.cumsum(values[order])))
    starts, ends = _ties(x[order])
    above = cumulative[-1] - (cumulative[starts] + cumulative[ends]) / 2
    result = np.empty(len(x))
    result[order] = np.repeat(above, ends - starts) / len(x)
    return result


def _ratio_with_interval(
    cross: float,
    variance_x: float,
    variance_y: float,
    d_cross: FloatArray,
    d_x: FloatArray,
    d_y: FloatArray,
    level: float,
) -> Correlation:
    """cross / sqrt(variance_x * variance_y) and its interval, from the influence of each example on the three."""
    value = float(np.clip(cross / np.sqrt(variance_x * variance_y), -1.0, 1.0))
    n = len(d_cross)
    if 1 - abs(value) < 1e-14:  # rounding of a perfect order
        value = float(np.sign(value))
        return Correlation(value, value, value, n)
    influence = d_cross / np.sqrt(variance_x * variance_y) - value / 2 * (d_x / variance_x + d_y / variance_y)
    half_width = ndtri((1 + level) / 2) * np.sqrt(np.mean(influence**2) / n) / (1 - value**2)
    z = np.arctanh(value)
    return Correlation(value, float(np.tanh(z - half_width)), float(np.tanh(z + half_width)), n)


def _concordance(x: FloatArray, y: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    """What `concordance` says, by the formula of native/ranks.cpp."""
    (rank_x, same_x), (rank_y, same_y) = _dense(x), _dense(y)
    n = len(x)
    pairs, same_pair = _dense(rank_x * n + rank_y)
    by_x = np.argsort(pairs)
    place, rank = np.arange(n), np.empty(n, dtype=np.int64)
    rank[np.argsort(rank_y[by_x] * n + place)] = place
    agreement = n + same_pair - same_x - same_y
    agreement[by_x] += 4 * earlier_and_smaller(rank) - 2 * (place + rank)
    return agreement, n - same_x, n - same_y


def _dense(x: FloatArray | IntArray) -> tuple[IntArray, IntArray]:
    """(n,) dense ranks from 0, (n,) how many are equal (itself included)."""
    _, ranks, counts = np.unique(x, return_inverse=True, return_counts=True)
    return ranks.astype(np.int64), counts[ranks].astype(np.int64)


def earlier_and_smaller(permutation: IntArray) -> IntArray:
    """Count for each place of a permutation of 0..n-1 the earlier places that hold a smaller number.

    The numbers lie in 2^b leaves of at most 32.  One stable split per bit of the leaf, from the highest: of a block of
    2w places with 2w consecutive numbers, w go to the lower half, and each of the others counts those of the w that
    came before it.  Within a leaf all pairs are compared.  O(n log n), some eight passes per bit.

    >>> earlier_and_smaller(np.array([2, 0, 1, 3]))
    array([0, 0, 1, 3])
    """
    n = len(permutation)
    bits = max(0, int(n - 1).bit_length() - 5)
    size = -(-n // 2**bits)
    numbers = np.arange(2**bits * size)  # from n on they come last and are the largest: nobody counts them
    numbers[:n] = permutation
    leaf, within = np.divmod(numbers, size)
    held = leaf << 40 | within << 32  # and its count in the lowest 32 bits, so that all moves at once
    for bit in reversed(range(bits)):
        width = 2**bit * size
        upper = (held & (1 << 40 + bit)).astype(bool)
        lower = ~upper
        split = np.empty((len(held) // (2 * width), 2 * width), dtype=np.int64)
        split[:, :width] = held[lower].reshape(-1, width)
        before = np.cumsum(lower, dtype=np.int32)[upper].reshape(-1, width)
        np.add(held[upper].reshape(-1, width), before, out=split[:, width:])
        split[:, width:] -= width * np.arange(len(split))[:, None]
        held = split.ravel()
    columns = (held >> 32 & 31).astype(np.uint8).reshape(-1, size).T.copy()
    counts = np.stack([(columns[:place] < columns[place]).sum(axis=0, dtype=np.uint8) for place in range(size)], axis=1)
    smaller = np.empty_like(held)
    smaller[np.repeat(np.arange(2**bits) * size, size) + (held >> 32 & 31)] = (held & 0xFFFFFFFF) + counts.ravel()
    return smaller[permutation]
