"""Training and test examples that become wrong together.  in: correct (e, n) of repeats   out: runs in which they do"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


def becomes_wrong(correct: BoolArray) -> BoolArray:
    """Where a forgetting or mal-generalizing event occurs: right after one evaluation, wrong after the next.

    Args:
        correct: (e, n).

    Returns:
        (e - 1, n).

    Source: Zhang, Eq. 1 (Z-forget, Z-malgen).

    >>> becomes_wrong(np.array([[1, 0], [0, 1], [1, 1]], bool))
    array([[ True, False],
           [False, False]])
    """
    return correct[:-1] & ~correct[1:]


def synchronized(train: BoolArray, test: BoolArray) -> BoolArray:
    """Which training examples are forgotten in an epoch in which a test example mal-generalizes (Z-sync).

    Args:
        train: (e, n) correct of training examples in one run.
        test: (e, m) correct of test examples in the same run.

    Returns:
        (m, n), whether at least one event of both falls into the same epoch; nothing for a test example without events.

    Source: Zhang, Sec. 3.3.2.  A training example that shares one epoch counts; the paper's numbers grow with the
        events of the test example, so it need not share all.

    >>> train = np.array([[1, 1], [0, 1], [0, 0]], bool)
    >>> synchronized(train, test=np.array([[1], [1], [0]], bool))
    array([[False,  True]])
    """
    events = becomes_wrong(test).astype(np.float32).T, becomes_wrong(train).astype(np.float32)
    return events[0] @ events[1] > 0


def runs_synchronized(train: Sequence[BoolArray], test: Sequence[BoolArray], *, examples: IntArray) -> IntArray:
    """In how many of the repeats each training example is synchronized with some test examples.

    Args:
        train, test: (e, n) and (e, m) correct of each repeat.
        examples: (q,) numbers of the test examples.

    Returns:
        (q, n) number of repeats; where it is that of all repeats, the synchronization is the paper's long-term one.

    >>> correct = np.array([[1, 1], [0, 1]], bool)
    >>> runs_synchronized([correct, correct], [correct, ~correct], examples=np.array([0]))
    array([[1, 0]])
    """
    return sum(
        (synchronized(each, other[:, examples]).astype(np.int64) for each, other in zip(train, test, strict=True)),
        start=np.zeros((len(examples), train[0].shape[1]), dtype=np.int64),
    )


def synchronized_counts(train: Sequence[BoolArray], test: Sequence[BoolArray], *, block: int = 256) -> IntArray:
    """How many training examples are synchronized with each test example in all of the first r repeats (Z-sync).

    Args:
        train, test: (e, n) and (e, m) correct of each of k repeats.
        block: test examples at a time.

    Returns:
        (k, m) numbers of training examples for r = 1 to k, falling with r.

    >>> correct = np.array([[1, 1], [0, 1]], bool)
    >>> synchronized_counts([correct, correct], [correct, ~correct])
    array([[1, 0],
           [0, 0]])
    """
    counts = np.zeros((len(train), test[0].shape[1]), dtype=np.int64)
    for low in range(0, test[0].shape[1], block):
        rows = slice(low, low + block)
        together: BoolArray | None = None
        for repeat, (each, other) in enumerate(zip(train, test, strict=True)):
            here = synchronized(each, other[:, rows])
            together = here if together is None else together & here
            counts[repeat, rows] = together.sum(axis=1)
    return counts
