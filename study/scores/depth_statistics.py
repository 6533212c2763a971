"""What prediction depths of many networks say of predictions.  in: depths, predictions (m, n)   out: means, bounds

`m` networks of one architecture; depths in layers, 0 the input, negative where undefined, which is left out.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linprog

from study.scores.consensus import consensus, consensus_consistency, prediction_entropy

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]


class LinearBound(NamedTuple):
    """A line that few examples lie beyond: value = intercept + gradient * depth.

    gradient: change of the value with one layer.
    intercept: value at depth 0.
    """

    intercept: float
    gradient: float

    def at(self, depth: FloatArray) -> FloatArray:
        """The line's value at these depths."""
        return self.intercept + self.gradient * np.asarray(depth, dtype=np.float64)


def linear_bound(depth: FloatArray, value: FloatArray, *, share: float = 0.01, upper: bool = False) -> LinearBound:
    """Fit the line below which lies a share of the examples (B-fig3, B-fig4, B-entropy).

    Args:
        depth: (n,) mean prediction depths, NaN where there is none.
        value: (n,) consistency or entropy, NaN where there is none.
        share: of the examples that lie beyond the line.
        upper: the share lies above.

    Returns:
        The linear quantile regression; NaN where fewer than three examples have both values, or all have one depth.

    The paper draws "a linear lower bound" and does not say how it is found: a line without any example beyond it would
    be set by the one or two most unusual ones.

    Source: B-fig3, B-fig4, Sec. 3.1; of the entropy Fig. C.22.  Koenker and Bassett 1978 for the regression.

    >>> depth = np.array([0.0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    >>> value = np.r_[1 - depth[:5] / 5, np.ones(5)]
    >>> bound = linear_bound(depth, value)
    >>> round(bound.intercept, 6), round(bound.gradient, 6)
    (1.0, -0.2)
    """
    both = np.isfinite(depth) & np.isfinite(value)
    x, y = np.asarray(depth, float)[both], np.asarray(value, float)[both]
    if len(x) < 3 or np.ptp(x) == 0:
        return LinearBound(np.nan, np.nan)
    quantile = 1 - share if upper else share
    # the dual program has two equations, whatever n: its multipliers are the two coefficients
    solved: Any = linprog(
        -y,
        A_eq=np.stack([np.ones_like(x), x]),
        b_eq=(1 - quantile) * np.array([len(x), x.sum()]),
        bounds=(0, 1),
        method="highs",
    )
    intercept, gradient = -solved.eqlin.marginals
    return LinearBound(float(intercept), float(gradient))


class MemberPredictions(NamedTuple):
    """What members say of each example by the split that it was in.

    train_depth, validation_depth: (n,) mean prediction depths, NaN where there is none.
    predicted: (n, c) counts of the predictions in the validation split.
    by_depth: (2, l, 2) of the training and the validation split, by depth: pairs of member and example, and those that
        are right.
    """

    train_depth: FloatArray
    validation_depth: FloatArray
    predicted: NDArray[np.int64]
    by_depth: NDArray[np.int64]

    def by_depth_table(self) -> pd.DataFrame:
        """split | depth | share of the split's pairs | accuracy; a row per depth that occurs (B-fig4 right)."""
        rows = []
        for split, counts in zip(("train", "validation"), self.by_depth, strict=True):
            total = max(counts[:, 0].sum(), 1)
            for depth in np.flatnonzero(counts[:, 0]):
                pairs, right = counts[depth]
                rows.append((split, int(depth), pairs / total, right / pairs))
        columns = ("split", "depth", "share", "accuracy")
        return pd.DataFrame({name: [row[place] for row in rows] for place, name in enumerate(columns)})


def member_predictions(
    shards: Iterable[tuple[IntArray, BoolArray, IntArray]], labels: IntArray, n_classes: int, layers: int
) -> MemberPredictions:
    """Fold the members of an ensemble, shard by shard.

    Args:
        shards: some members at a time: (m, n) depths; (m, n) True where the member trained on the example; (m, n)
            classes that it predicts.
        labels: (n,).
        n_classes: c.
        layers: l, number of depths.

    Source: B-fig3, B-fig4, B-fig7: "each time a point appears in the validation split we record the prediction depth
        and whether the prediction was correct".

    >>> depth, inside = np.array([[2, 0], [1, 1]]), np.array([[True, False], [False, False]])
    >>> folded = member_predictions([(depth, inside, np.array([[0, 1], [1, 1]]))], np.array([0, 1]), 2, 3)
    >>> folded.validation_depth, folded.predicted.tolist()
    (array([1. , 0.5]), [[0, 1], [0, 2]])
    """
    n = len(labels)
    total, count = np.zeros((2, n), np.int64), np.zeros((2, n), np.int64)
    predicted, by_depth = np.zeros((n, n_classes), np.int64), np.zeros((2, layers, 2), np.int64)
    for depth, inside, final in shards:
        defined, right = depth >= 0, final == labels
        for place, part in enumerate((inside, ~inside)):
            chosen = defined & part
            count[place] += chosen.sum(axis=0)
            total[place] += depth.sum(axis=0, dtype=np.int64, where=chosen)
            by_depth[place, :, 0] += np.bincount(depth[chosen], minlength=layers)
            by_depth[place, :, 1] += np.bincount(depth[chosen & right], minlength=layers)
        for member, outside in zip(final, ~inside, strict=True):
            predicted[np.flatnonzero(outside), member[outside]] += 1
    means = np.divide(total, count, out=np.full((2, n), np.nan), where=count > 0)
    return MemberPredictions(means[0], means[1], predicted, by_depth)


def depth_of_one_network(depth: IntArray, final: IntArray, n_classes: int) -> pd.DataFrame:
    """What the depth in one network says of the predictions of the others (B-fig4 middle, B-entropy).

    Args:
        depth: (m, n) depths of examples that no network was trained on.
        final: (m, n) predictions.
        n_classes: c.

    Returns:
        depth | share of the pairs of network and example | consistency: mean consensus-consistency of the other m - 1
        networks | entropy, of theirs, in nats.  Averages over all m choices of the one network; the paper takes one.

    Raises:
        ValueError: fewer than three networks.

    Source: B-fig4, Fig. C.19 and C.21.

    >>> depth_of_one_network(np.zeros((3, 2), int), np.array([[0, 1], [0, 1], [0, 0]]), 2)["consistency"].round(3)
    0    0.833
    Name: consistency, dtype: float64
    """
    networks, n = depth.shape
    if networks < 3:
        raise ValueError(f"{networks} networks; the one and at least two others are needed")
    votes = np.zeros((n, n_classes), np.int64)
    for member in final:
        votes[np.arange(n), member] += 1
    sums = np.zeros((3, int(depth.max(initial=0)) + 1))  # by depth: pairs, their consistency, their entropy
    for one, member in zip(depth, final, strict=True):
        others = votes.copy()
        others[np.arange(n), member] -= 1
        defined = one >= 0
        for place, values in enumerate((np.ones(n), consensus_consistency(others), prediction_entropy(others))):
            sums[place] += np.bincount(one[defined], values[defined], sums.shape[1])
    at = np.flatnonzero(sums[0])
    pairs, consistency, entropy = sums[:, at]
    columns = {
        "depth": at,
        "share": pairs / pairs.sum(),
        "consistency": consistency / pairs,
        "entropy": entropy / pairs,
    }
    return pd.DataFrame(columns)


def consensus_table(folded: MemberPredictions, labels: IntArray) -> pd.DataFrame:
    """A row per example that was in a validation split with a defined depth.

    Returns:
        row number | depth: mean in the validation split | cscore: share of right predictions | agrees: the consensus
        class is the label | consistency: of the consensus | entropy.

    >>> folded = MemberPredictions(np.zeros(1), np.ones(1), np.array([[1, 3]]), np.zeros((2, 2, 2), int))
    >>> consensus_table(folded, np.array([0])).round(2).to_dict("records")
    [{'row': 0, 'depth': 1.0, 'cscore': 0.25, 'agrees': False, 'consistency': 0.75, 'entropy': 0.56}]
    """
    rows = np.flatnonzero(np.isfinite(folded.validation_depth) & folded.predicted.any(axis=1))
    votes, given = folded.predicted[rows], np.asarray(labels)[rows]
    return pd.DataFrame(
        {
            "row": rows,
            "depth": folded.validation_depth[rows],
            "cscore": votes[np.arange(len(rows)), given] / votes.sum(axis=1),
            "agrees": consensus(votes, given) == given,
            "consistency": consensus_consistency(votes),
            "entropy": prediction_entropy(votes),
        }
    )
