"""Regularity in two dimensions (Z-fig2).  in: correct (e, n)   out: right epochs and events (n,), densities (n,)"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PART = 30  # the paper's: the radius has sides of a thirtieth of each axis
BLOCK = 512  # points whose distances to all others are held at once


def representation(correct: BoolArray) -> tuple[IntArray, IntArray]:
    """Where examples lie in the plane: epochs in which each is right, and forgetting or mal-generalizing events.

    Args:
        correct: (e, n), on training rows for CBTL and forgetting events, on test rows for CBGL and mal-generalizing
            events.

    Returns:
        (n,) 0 to e, and (n,) 0 to e // 2.  As in Zhang's Eq. 1, an example that was never right has no events; the
        proxies of the same names rank it hardest instead.

    Source: Zhang, Eq. 1 and 2 (Z-cbtl, Z-forget).

    >>> representation(np.array([[0, 1], [1, 1], [0, 1]], bool))
    (array([1, 3]), array([1, 0]))
    """
    correct = correct.astype(bool)
    return correct.sum(axis=0, dtype=np.int64), np.count_nonzero(correct[:-1] & ~correct[1:], axis=0).astype(np.int64)


def sample_radius(x: ArrayLike, y: ArrayLike) -> float:
    """The paper's radius: r = sqrt((x / 30)^2 + (y / 30)^2), with x and y the ranges of the two axes (Z-fig2).

    >>> round(sample_radius([0, 30], [0, 30]), 4)
    1.4142
    """
    return float(np.hypot(np.ptp(x) / PART, np.ptp(y) / PART))


def sample_density(x: ArrayLike, y: ArrayLike, *, radius: float | None = None) -> FloatArray:
    """Number of samples within a circle around each sample, over the circle's area.

    Args:
        x, y: (n,) coordinates, as of `representation`.
        radius: of the circle; `sample_radius` unless given (Z-reduce takes 1).

    Returns:
        (n,) examples per unit area, above 0: each counts itself, and those on the circle's line are within.

    Raises:
        ValueError: a radius that is not above 0; that of the paper is 0 where all samples lie at one point.

    Computed once for each of the points on which samples lie, of which there are few.

    >>> (sample_density([0, 0, 3], [0, 0, 0], radius=1) * np.pi).round(9)
    array([2., 2., 1.])
    """
    radius = sample_radius(x, y) if radius is None else radius
    if not radius > 0:
        raise ValueError(f"a density needs a radius above 0, not {radius:g}")
    plane = np.column_stack([x, y]).astype(np.float64)
    points, place, count = np.unique(plane, axis=0, return_inverse=True, return_counts=True)
    within = [
        (((points[start : start + BLOCK, None] - points) ** 2).sum(axis=2) <= radius**2) @ count
        for start in range(0, len(points), BLOCK)
    ]
    return np.concatenate(within)[place.ravel()] / (np.pi * radius**2)
