"""Training and test examples that become wrong together are those that loops find."""

import numpy as np
import pytest

from study.experiments.zhang_synchronization import (
    longest_synchronized,
    share_right,
    support_of_synchronized,
    synchronized_table,
)
from study.scores.synchronization import runs_synchronized, synchronized, synchronized_counts


@pytest.fixture(scope="module")
def repeats():
    """(train, test) correct of three repeats, 7 epochs, 40 and 9 examples."""
    rng = np.random.default_rng(0)
    return [rng.random((7, 40)) < 0.7 for _ in range(3)], [rng.random((7, 9)) < 0.7 for _ in range(3)]


def events(correct, example):
    """Epochs after which the example is wrong and before which it was right."""
    states = correct[:, example]
    return {epoch for epoch in range(1, len(states)) if states[epoch - 1] and not states[epoch]}


def naive(train, test):
    return np.array([[bool(events(test, j) & events(train, i)) for i in range(train.shape[1])] for j in range(9)])


def test_synchronized_examples_share_an_epoch(repeats):
    """As a loop over pairs finds (Z-sync)."""
    train, test = (each[0] for each in repeats)
    assert (synchronized(train, test) == naive(train, test)).all()


def test_counts_are_of_the_first_runs_together(repeats):
    """Blocks of test examples do not change them."""
    each = [naive(train, test) for train, test in zip(*repeats, strict=True)]
    expected = [np.logical_and.reduce(each[:runs]).sum(axis=1) for runs in (1, 2, 3)]
    assert (synchronized_counts(*repeats, block=4) == expected).all()
    chosen = np.array([8, 2])
    assert (runs_synchronized(*repeats, examples=chosen) == np.sum(each, axis=0)[chosen]).all()


def test_the_table_has_means_by_number_of_events():
    """Test examples without events are left out; there are no ten runs here."""
    counts = np.array([[4, 6, 0, 5], [1, 3, 0, 2]])
    table = synchronized_table(counts, np.array([2, 2, 0, 1]))
    assert table.to_numpy().tolist() == [[1, 1, 5, 1], [1, 2, 5, 2], [2, 1, 2, 1], [2, 2, 2, 2]]


def test_pictures_are_of_the_longest_synchronization():
    """Over two runs here, as nothing coincides in all three."""
    runs, chosen = longest_synchronized(np.array([[4, 6, 1], [0, 3, 1], [0, 0, 0]]))
    assert (runs, chosen.tolist()) == (2, [1, 2])


def test_planted_support_vectors_are_seen():
    """A test example beyond the border of its class is right only where its own kind is among the training examples."""
    rng = np.random.default_rng(1)
    centers = np.repeat([[0.0, 0.0], [6.0, 0.0], [12.0, 0.0]], [200, 200, 20], axis=0)
    labels = np.repeat([0, 1, 0], [200, 200, 20])  # the last twenty are of class 0 beyond class 1
    features = np.column_stack([centers + rng.normal(0, 1, (420, 2)), np.repeat([0.0, 9.0], [400, 20])])
    features, labels = np.vstack([features, [12.0, 0.0, 9.0]]), np.append(labels, 0)
    together = np.r_[400:420, 200:220]
    (row,) = support_of_synchronized(features, labels, 420, together, n_train=420, sizes=(100,), draws=10)
    assert row == {"trained_on": 100, "synchronized": 40, "with": 1.0, "without": 0.0}


def test_every_classifier_sees_both_sides_equally():
    """Half of its examples are of the test example's class; more than there are cannot be drawn."""
    rng = np.random.default_rng(2)
    features, same = np.array([[0.0], [0.1], [5.0], [5.1], [5.2]]), np.array([True, True, False, False, False])
    share = share_right(
        features, same, np.array([0.2]), among=np.array([0]), others=np.arange(1, 5), n=4, draws=3, rng=rng
    )
    assert share == 1.0
