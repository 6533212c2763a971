"""Four forms of difficulty (B-fig7).  in: prediction depths and subsets of members   out: two mean depths, types

A member sees an example in its training split or in its validation split; the prediction depth differs.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# (depth in the training split, depth in the validation split): 0 low, 1 high
TYPES = {
    "easy": (0, 0),
    "looks like a different class": (1, 0),
    "ambiguous unless the label is given": (0, 1),
    "ambiguous": (1, 1),
}


class SplitDepths(NamedTuple):
    """Mean prediction depths of each example, in layers; NaN where there is no defined depth.

    train: (n,) over the members that have the example in their training split.
    validation: (n,) over the others.
    undefined: share of all members' depths that are undefined; NaN without members.
    """

    train: FloatArray
    validation: FloatArray
    undefined: float


def split_depths(shards: Iterable[tuple[NDArray[np.integer], BoolArray]], n: int) -> SplitDepths:
    """Mean prediction depth when an example is in the training split, and when it is in the validation split.

    Args:
        shards: some members at a time: (m, n) prediction depths in layers, 0 the input, negative where undefined, which
            is left out of the mean; (m, n) True where the member trained on the example.
        n: number of examples.

    Holds two sums and two counts per example, and one shard.

    Source: B-fig7, Sec. 4: 250 members with 90:10 splits.

    >>> depths, trained_on = np.array([[2, 4], [0, 1]]), np.array([[True, False], [False, True]])
    >>> split_depths([(depths, trained_on)], n=2)
    SplitDepths(train=array([2., 1.]), validation=array([0., 4.]), undefined=0.0)
    """
    total, count, members, undefined = np.zeros((2, n), np.int64), np.zeros((2, n), np.int64), 0, 0
    for depth, subset in shards:
        defined = depth >= 0
        members, undefined = members + len(depth), undefined + int((~defined).sum())
        for place, chosen in enumerate((defined & subset, defined & ~subset)):
            count[place] += chosen.sum(axis=0)
            total[place] += depth.sum(axis=0, dtype=np.int64, where=chosen)
    means = np.divide(total, count, out=np.full((2, n), np.nan), where=count > 0)
    return SplitDepths(means[0], means[1], undefined / (members * n) if members else np.nan)


def corner_distances(train_depth: FloatArray, validation_depth: FloatArray) -> FloatArray:
    """Distance of each example to the four corners of the plane of both depths, in the order of `TYPES`.

    Args:
        train_depth: (n,) mean depth in the training split; NaN where unknown.
        validation_depth: (n,) mean depth in the validation split.

    Returns:
        (n, 4) Euclidean, after each axis is scaled to [0, 1] between its smallest and largest value (an axis with one
        value: 0); NaN where a depth is.  0 to sqrt(2).

    The paper takes the examples "closest to the corners of this plot" and does not say of which frame: the range of the
    data makes the four corners equally near, which the range of layers would not.

    >>> corner_distances(np.array([0.0, 4.0]), np.array([0.0, 2.0])).round(2)
    array([[0.  , 1.  , 1.  , 1.41],
           [1.41, 1.  , 1.  , 0.  ]])
    """
    defined = np.isfinite(train_depth) & np.isfinite(validation_depth)
    plane = np.column_stack([_scaled(depth, defined) for depth in (train_depth, validation_depth)])
    corners = np.array(list(TYPES.values()), dtype=np.float64)
    distances = np.sqrt(((plane[:, None, :] - corners) ** 2).sum(axis=2))
    distances[~defined] = np.nan
    return distances


def _scaled(depth: FloatArray, defined: BoolArray) -> FloatArray:
    if not defined.any():
        return np.zeros(len(depth))
    low, high = depth[defined].min(), depth[defined].max()
    return (depth - low) / (high - low) if high > low else np.zeros(len(depth))


def difficulty_types(distances: FloatArray) -> IntArray:
    """The nearest corner of each example, as its place in `TYPES`; the first of equally near ones, -1 where unknown.

    Args:
        distances: (n, 4) of `corner_distances`.

    >>> difficulty_types(corner_distances(np.array([0.0, 4.0, np.nan]), np.array([0.0, 2.0, 1.0])))
    array([ 0,  3, -1])
    """
    defined = np.isfinite(distances).all(axis=1)
    return np.where(defined, np.where(np.isnan(distances), np.inf, distances).argmin(axis=1), -1)


def nearest_to_corners(distances: FloatArray, count: int = 100) -> dict[str, IntArray]:
    """The examples closest to each corner, nearest first (B-fig8 takes 100), lower rows first among equals.

    Returns:
        {type: rows}, fewer than `count` where fewer have both depths.

    >>> nearest_to_corners(corner_distances(np.array([0.0, 4.0]), np.array([0.0, 2.0])), count=1)["ambiguous"]
    array([1])
    """
    defined = np.flatnonzero(np.isfinite(distances).all(axis=1))
    order = np.argsort(distances[defined], axis=0, kind="stable")[:count]
    return {name: defined[order[:, place]] for place, name in enumerate(TYPES)}
