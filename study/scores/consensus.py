"""What an ensemble agrees on.  in: counts of predictions (n, c)   out: consensus class, its share, entropy

All of it is about networks that have not seen the example (Baldock's expectation is over subsets without it): held-out
members for a training example, every member for a test example.  As in the paper (A.6.3) the same votes give the
consensus class and its share, which is then never below 1 / c and biased upwards where few members vote.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def consensus(predicted: ArrayLike, labels: ArrayLike) -> IntArray:
    """Consensus class: the most frequent held-out prediction; of several, the true class, else the lowest.

    Args:
        predicted: (n, c) counts of predictions.
        labels: (n,) true classes.

    Returns:
        (n,) classes; -1 for an example that was never held out.

    Raises:
        ValueError: no counts, as in a profile that was read back from its table.

    Source: B-consensus, Sec. 3.1; ties as in A.6.2.

    >>> consensus([[3, 1], [1, 1], [0, 0]], [1, 1, 0])
    array([ 0,  1, -1])
    """
    predicted, labels = _counts(predicted), np.asarray(labels)
    rows, most = np.arange(len(labels)), predicted.max(axis=1)
    winner = np.where(predicted[rows, labels] == most, labels, predicted.argmax(axis=1))
    return np.where(most > 0, winner, -1).astype(np.int64)


def consensus_consistency(predicted: ArrayLike) -> FloatArray:
    """Consensus-consistency: the share of the held-out predictions that are the consensus class.

    Args:
        predicted: (n, c) counts of predictions.  Ties do not matter: all tied classes have the same share.

    Returns:
        (n,) above 0, up to 1; never held out is NaN.

    Source: B-consensus, Eq. 2.

    >>> consensus_consistency([[3, 1], [0, 2]])
    array([0.75, 1.  ])
    """
    shares = _shares(predicted)
    return shares.max(axis=1)


def prediction_entropy(predicted: ArrayLike) -> FloatArray:
    """Prediction entropy: -sum p log p over the classes, p the share of held-out members that predict a class.

    Args:
        predicted: (n, c) counts of predictions.

    Returns:
        (n,) in nats, 0 where all agree to log c; never held out is NaN.

    Source: B-entropy, Eq. 3: of votes, the normalized histogram of one-hot predictions, not of probabilities.  The
        base is not named; natural here.

    >>> prediction_entropy([[2, 2], [4, 0]]).round(3)
    array([0.693, 0.   ])
    """
    shares = _shares(predicted)
    terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    return np.where(np.isnan(shares[:, 0]), np.nan, np.abs(terms.sum(axis=1)))


def consensus_columns(predicted: ArrayLike, labels: ArrayLike) -> dict[str, NDArray[Any]]:
    """Make the columns `consensus`, `consensus_consistency`, `prediction_entropy` of cscore.parquet, all (n,).

    >>> list(consensus_columns([[3, 1]], [0]))
    ['consensus', 'consensus_consistency', 'prediction_entropy']
    """
    return {
        "consensus": consensus(predicted, labels),
        "consensus_consistency": consensus_consistency(predicted),
        "prediction_entropy": prediction_entropy(predicted),
    }


def _counts(predicted: ArrayLike) -> IntArray:
    predicted = np.asarray(predicted)
    if not predicted.shape[1]:
        raise ValueError("the profile carries no prediction counts; fold the shards again")
    return predicted


def _shares(predicted: ArrayLike) -> FloatArray:
    predicted = _counts(predicted)
    votes = predicted.sum(axis=1, keepdims=True)
    return np.divide(predicted, votes, out=np.full(predicted.shape, np.nan), where=votes > 0)
