"""What members know only of what they trained on.  in: profile; subsets, predictions   out: memorization, influence

Both are differences of two shares of the same members: those that had an example in their subset, and those that had
not (Feldman and Zhang 2020).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from study.scores.cscore import Profile, consistency, integral, variance_of_mean
from study.scores.subsets import percent

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def memorization(profile: Profile) -> FloatArray:
    """Memorization score: P(right | trained on it) - P(right | held out), at each subset ratio.

    Args:
        profile: sums over the members, as `shard_profile` makes them.

    Returns:
        (s, n) -1 to 1; NaN where no member trained on the example, as on all test rows, or none held it out.

    Source: Feldman and Zhang 2020, Eq. 1, estimated on subsets as in their Sec. 4; they take the one ratio .7.

    >>> from study.scores.cscore import shard_profile
    >>> masks = np.array([[True, False], [False, True]])  # of two members
    >>> predicted, labels = np.array([[0, 1], [1, 1]]), np.array([0, 1])
    >>> profile = shard_profile(masks, predicted, np.full((2, 2), 0.9), labels, 0.5, [0, 1], 2)
    >>> memorization(profile)
    array([[1., 0.]])
    """
    inside = consistency(profile.trained_correct.sum(axis=1), profile.trained.sum(axis=1))
    return inside - consistency(profile.correct.sum(axis=1), profile.held_out.sum(axis=1))


def memorization_stderr(profile: Profile) -> FloatArray:
    """Standard error of the mean over the ratios of `memorization`: sqrt(sum of p (1 - p) / (k - 1), both sides) / s.

    Returns:
        (n,), NaN where a ratio has fewer than two members on a side.  Members of a balanced block are taken as
        independent; 0 where all members of each side agree.

    >>> from study.scores.cscore import shard_profile
    >>> masks = np.array([[True, False], [False, True]])  # of two members
    >>> predicted, labels = np.array([[0, 1], [1, 1]]), np.array([0, 1])
    >>> profile = shard_profile(masks, predicted, np.full((2, 2), 0.9), labels, 0.5, [0, 1], 2)
    >>> memorization_stderr(profile)  # one member on each side
    array([nan, nan])
    """
    variance = np.zeros(profile.held_out.shape[::2])
    for right, count in ((profile.trained_correct, profile.trained), (profile.correct, profile.held_out)):
        share, k = consistency(right.sum(axis=1), count.sum(axis=1)), count.sum(axis=1)
        variance += variance_of_mean(share * (1 - share) * k, k)
    return np.sqrt(variance.sum(axis=0)) / len(profile.ratios)


def memorization_columns(profile: Profile) -> dict[str, FloatArray]:
    """Make the columns of cscore.parquet on memorization; all (n,).

    memorization: mean over the ratios, each with the same weight as in the integral C-score, NaN where one is missing.
    memorization_stderr: its standard error.  memorization_10, ...: ratio by ratio.

    >>> from study.scores.cscore import shard_profile
    >>> masks = np.array([[True, False], [False, True]])  # of two members
    >>> predicted, labels = np.array([[0, 1], [1, 1]]), np.array([0, 1])
    >>> profile = shard_profile(masks, predicted, np.full((2, 2), 0.9), labels, 0.5, [0, 1], 2)
    >>> list(memorization_columns(profile))
    ['memorization', 'memorization_stderr', 'memorization_50']
    """
    scores = memorization(profile)
    each = {f"memorization_{percent(ratio)}": scores[index] for index, ratio in enumerate(profile.ratios)}
    return {"memorization": integral(scores), "memorization_stderr": memorization_stderr(profile), **each}


class Influence(NamedTuple):
    """The training examples that help each target most, most helpful first; all (t, top).

    source: their rows; value: the influence, -1 to 1; stderr: its standard error.  Where subsets allow no estimate the
    row is -1 and the rest NaN.
    """

    source: IntArray
    value: FloatArray
    stderr: FloatArray


def influence(
    subset: Callable[[slice], BoolArray],
    n_train: int,
    right: BoolArray,
    *,
    top: int = 10,
    tile: tuple[int, int] = (4096, 512),
    progress: Callable[[float], None] | None = None,
) -> Influence:
    """Influence of i on j, which no member trained on: P(j right | trained on i) - P(j right | held i out).

    Args:
        subset: gives the columns of a slice of training rows: (m, rows) True where a member trained on the row.
        n_train: number of training rows.
        right: (m, t) whether each member classifies each target right; a target is a test example.
        top: how many training examples are kept per target; equal influences keep the lower row.
        tile: training rows and targets compared at a time; the result does not depend on it.
        progress: called with the share done, 0 to 1.

    Counts are products of 0-1 matrices in float32, exact up to 16 million members; nothing of size t x n_train is made.

    Source: Feldman and Zhang 2020, Eq. 2; all members share one subset ratio.

    >>> subsets = np.array([[True, False], [False, True], [True, False], [False, True]])
    >>> right = np.array([[True], [False], [True], [False]])  # only members that trained on row 0 are right
    >>> influence(lambda rows: subsets[:, rows], 2, right, top=1).value
    array([[1.]])
    """
    parts, inside = [], np.zeros(n_train, dtype=np.int64)
    for low in range(0, right.shape[1], tile[1]):
        targets = np.ascontiguousarray(right[:, low : low + tile[1]].T)
        best: Tile = (
            np.zeros((len(targets), 0), dtype=np.int64),
            np.zeros((len(targets), 0)),
            np.zeros((len(targets), 0), dtype=np.float32),
        )
        for first in range(0, n_train, tile[0]):
            columns = subset(slice(first, min(first + tile[0], n_train)))
            inside[first : first + tile[0]] = columns.sum(axis=0)
            part = _influences(targets, columns, first)
            best = _best(_beside(best, part), top)
        parts.append((*best[:2], _stderr(best, targets.sum(axis=1), inside, len(right))))
        if progress:
            progress(min(low + tile[1], right.shape[1]) / right.shape[1])
    source, value, error = map(np.vstack, zip(*parts, strict=True))
    return Influence(np.where(np.isnan(value), -1, source), value, error)


def chance_influence(n_train: int, trained: int, held_out: int) -> float:
    """The influence that chance alone is expected to put on top, for a target that half of the members get right.

    sqrt(2 log n) standard deviations, the expected maximum of n Gaussian numbers (from above).  Where it is near 1 the
    members are too few to see the influence of single examples.

    >>> round(chance_influence(60_000, trained=1000, held_out=1000), 2)
    0.1
    """
    return float(np.sqrt(2 * np.log(n_train)) * 0.5 * np.sqrt(1 / trained + 1 / held_out))


Tile = tuple[
    IntArray, NDArray[np.floating], NDArray[np.floating]
]  # row, influence, members that trained on it and are right; (t, rows)


def _influences(targets: BoolArray, subset: BoolArray, first: int) -> Tile:
    """All pairs of a tile: targets (t, m), subset (m, rows), first training row."""
    inside = subset.sum(axis=0)
    both = targets.astype(np.float32) @ subset.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # nobody trained on it, or everybody: NaN
        value = both / inside - (targets.sum(axis=1)[:, None] - both) / (len(subset) - inside)
    return np.broadcast_to(np.arange(first, first + subset.shape[1]), both.shape), value, both


def _beside(one: Tile, other: Tile) -> Tile:
    """The columns of both."""
    return np.hstack((one[0], other[0])), np.hstack((one[1], other[1])), np.hstack((one[2], other[2]))


def _stderr(best: Tile, right: IntArray, inside: IntArray, members: int) -> FloatArray:
    """Standard error of the kept influences, from how many members are right, (t,), and trained on each row, (n,)."""
    source, _, both = best
    variance = np.zeros(source.shape)
    k = inside[source]
    for count, number in ((both, k), (right[:, None] - both, members - k)):
        share = consistency(count, number)
        variance += variance_of_mean(share * (1 - share) * number, number)
    return np.sqrt(variance)


def _best(tile: Tile, top: int) -> Tile:
    """Keep the `top` largest influences of each target, in order; among equal ones those that come first."""
    keys = np.where(np.isnan(tile[1]), -np.inf, tile[1])
    top = min(top, keys.shape[1])
    least = -np.partition(-keys, top - 1, axis=1)[:, top - 1 : top]
    above, level = keys > least, keys == least
    chosen = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= top - above.sum(axis=1, keepdims=True)))
    places = np.nonzero(chosen)[1].reshape(len(keys), top)
    order = np.argsort(-np.take_along_axis(keys, places, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(places, order, axis=1)
    source, value, both = tile
    return (
        np.take_along_axis(source, places, axis=1),
        np.take_along_axis(value, places, axis=1),
        np.take_along_axis(both, places, axis=1),
    )
