"""How well a score finds marked examples: against scikit-learn, loops over all orders, and simulation."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from study.scores import detection

N = 400


def scored(seed: int = 0, n: int = N, ties: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores that find marked examples often, rounded to `ties` values where that is given."""
    rng = np.random.default_rng(seed)
    marked = rng.random(n) < 0.1
    scores = rng.normal(size=n) + 1.5 * marked
    return (scores if ties is None else np.round(scores * ties / 6)), marked


@pytest.mark.parametrize("ties", [None, 4, 1])
def test_auroc_equals_sklearns(ties):
    """Ties count one half there too."""
    scores, marked = scored(ties=ties)
    assert detection.auroc(scores, marked).value == pytest.approx(roc_auc_score(marked, scores), abs=1e-12)


@pytest.mark.parametrize("ties", [None, 4, 1])
def test_average_precision_equals_sklearns(ties):
    """Equal scores are one threshold."""
    scores, marked = scored(ties=ties)
    expected = average_precision_score(marked, scores)
    assert detection.average_precision(scores, marked).value == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_auroc_is_that_of_the_pairwise_formula():
    """DeLong's structural components in loops over all pairs."""
    scores, marked = scored(n=80, ties=6)
    high, low = scores[marked], scores[~marked]
    wins = np.array([[(a > b) + 0.5 * (a == b) for b in low] for a in high])
    variance = wins.mean(axis=1).var(ddof=1) / len(high) + wins.mean(axis=0).var(ddof=1) / len(low)
    estimate = detection.auroc(scores, marked)
    assert estimate.value == pytest.approx(wins.mean())
    assert estimate.low == pytest.approx(wins.mean() - 1.959964 * np.sqrt(variance), abs=1e-6)
    assert estimate.high == pytest.approx(min(1, wins.mean() + 1.959964 * np.sqrt(variance)), abs=1e-6)


@pytest.mark.parametrize("measure", [detection.auroc, detection.average_precision])
def test_intervals_hold_the_true_value_as_often_as_they_say(measure):
    """Of 400 samples, against the value of one very large sample."""
    truth = measure(*scored(seed=10_000, n=400_000)).value
    estimates = [measure(*scored(seed)) for seed in range(400)]
    inside = np.mean([each.low <= truth <= each.high for each in estimates])
    assert 0.9 < inside < 0.99


def test_numbers_within_ties_are_means_over_all_orders():
    """Six examples, three of them equal: every order of the rows counted by hand."""
    scores, marked = np.array([3.0, 2, 2, 2, 1, 0]), np.array([False, True, False, True, True, False])
    hits = []
    for order in permutations(range(6)):
        ranked = np.array(order)[np.argsort(-scores[list(order)], kind="stable")]
        hits.append(np.cumsum(marked[ranked]))
    np.testing.assert_allclose(detection.hits_within(scores, marked, range(1, 7)), np.mean(hits, axis=0))


@pytest.mark.parametrize(
    "measure",
    [
        detection.auroc,
        detection.average_precision,
        lambda scores, marked: detection.recall_within(scores, marked, 0.05),
        lambda scores, marked: detection.precision_at(scores, marked, 30),
    ],
)
def test_the_order_of_rows_does_not_matter_and_missing_scores_are_left_out(measure):
    """Coarse scores have many ties; examples that no network held out have none."""
    scores, marked = scored(ties=3)
    order = np.random.default_rng(1).permutation(N)
    with_missing = np.r_[scores[order], np.full(20, np.nan)], np.r_[marked[order], np.ones(20, bool)]
    assert measure(*with_missing) == pytest.approx(measure(scores, marked))


@pytest.mark.parametrize("marked", [[True, True], [False, False]])
def test_without_both_kinds_nothing_is_measured(marked):
    """There is no comparison to win."""
    assert np.isnan(detection.auroc([1.0, 2.0], marked)).all()


def test_a_perfect_list_finds_everything_at_once():
    """And chance finds a share as large as what was inspected."""
    marked = np.arange(100) < 10
    assert detection.average_precision(-np.arange(100), marked) == (1, 1, 1)
    assert detection.recall_within(-np.arange(100), marked, 0.1).value == 1
    assert detection.recall_within(np.zeros(100), marked, 0.1).value == pytest.approx(0.1)
    assert detection.precision_at(np.zeros(100), marked, 50).value == pytest.approx(0.1)


def test_infinite_scores_are_equal_to_each_other():
    """The margin of an example may be minus infinity."""
    scores, marked = [np.inf, np.inf, 0.0, -np.inf, -np.inf], [True, False, True, False, True]
    assert detection.average_precision(scores, marked).value == pytest.approx(
        average_precision_score(marked, [2, 2, 1, 0, 0])
    )


@pytest.mark.parametrize(("hits", "n"), [(3, 20), (0, 10), (10, 10)])
def test_wilson_equals_scipys(hits, n):
    """Which takes whole numbers only; ties give expected numbers of hits."""
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert detection.wilson(hits, n)[1:] == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_confident_joint_by_hand():
    """Thresholds are .7 for class 0 and .5 for class 1; votes below them are not counted."""
    labels, agreement = [0, 0, 0, 1, 1], [1.0, 1.0, 0.1, 0.8, 0.2]
    consensus, share = [0, 0, 1, 1, 0], [1.0, 1.0, 0.9, 0.8, 0.6]
    joint, flagged = detection.confident_joint(labels, agreement, consensus, share, 2)
    assert joint.tolist() == [[2, 1], [0, 1]]
    assert flagged.tolist() == [False, False, True, False, False]


def test_examples_that_nobody_held_out_are_not_in_the_joint():
    """Their consensus is -1, which is no class."""
    joint, flagged = detection.confident_joint([0, 1], [np.nan, 1.0], [-1, 1], [np.nan, 1.0], 2)
    assert joint.tolist() == [[0, 0], [0, 1]]
    assert not flagged.any()


def test_a_class_without_votes_has_no_threshold():
    """No example of class 2 was held out: nobody can be confident of it."""
    joint, _ = detection.confident_joint([0, 1], [1.0, 0.0], [0, 2], [1.0, 1.0], 3)
    assert joint.sum() == 1
