"""Images that are nearly another one.  in: images (n, ...)   out: for each row the near one, and how near

Copies that were saved, cut or scaled anew differ in every pixel a little; a digest does not find them.
"""

import numpy as np
from numpy.typing import NDArray

NEAR = 0.13  # of the median distance to the nearest neighbour
NEIGHBOURS = 4  # that are searched for one with other pixels


def near_pairs(
    images: np.ndarray, *, share: float = NEAR
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Find the examples whose nearest other image is much nearer than is usual in these data.

    Args:
        images: (n, ...) pixels, or features (n, d, 1, 1).
        share: a pair is near when its Euclidean distance is below this share of the median over all examples of the
            distance to the nearest one with other pixels.

    Returns:
        (p,) rows, rising; (p,) the nearest row of each, whose pixels differ; (p,) their distances, as shares of the
        median.  Rows with the same pixels are no near pairs, see `findings.same_pixels`.

    Source: the rule and the share of cleanlab's Datalab for near duplicates, there on features; ours takes what the
        networks get.

    >>> images = np.array([0.0, 10, 20, 30, 40, 40.1])[:, None]
    >>> [each.tolist() for each in near_pairs(images)[:2]]
    [[4, 5], [5, 4]]
    """
    from study.kernels.knn import nearest  # torch, which reading data does without

    none = np.array([], dtype=np.int64)
    if len(images) < 2:
        return none, none, np.array([])
    distances, others = nearest(images, min(NEIGHBOURS, len(images) - 1), exclude_self=True)
    differ = distances > 0
    first = differ.argmax(axis=1)
    rows = np.flatnonzero(differ.any(axis=1))
    distance, other = distances[rows, first[rows]], others[rows, first[rows]]
    if not len(rows):
        return none, none, np.array([])
    relative = distance / np.median(distance)
    near = relative < share
    return rows[near], other[near], relative[near]
