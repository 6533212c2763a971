"""What an ensemble agrees on, what it has memorized, and how hard an example is: by hand and by naive loops."""

import numpy as np
import pytest
from scipy import stats

from study.scores.consensus import consensus, consensus_columns, consensus_consistency, prediction_entropy
from study.scores.cscore import shard_profile
from study.scores.difficulty_types import TYPES, corner_distances, difficulty_types, nearest_to_corners, split_depths
from study.scores.memorization import (
    chance_influence,
    influence,
    memorization,
    memorization_columns,
    memorization_stderr,
)

RATIOS = (0.3, 0.7)
MEMBERS = 12
LABELS = np.arange(20) % 3
N_TRAIN = 15


@pytest.fixture(scope="module")
def members():
    """Subsets and answers of made-up members: (2 * MEMBERS, n) masks, predictions."""
    rng = np.random.default_rng(0)
    masks = rng.random((2 * MEMBERS, 20)) < np.repeat(RATIOS, MEMBERS)[:, None]
    masks[:, N_TRAIN:] = False
    predictions = np.where(masks & (rng.random(masks.shape) < 0.8), LABELS, rng.integers(3, size=masks.shape))
    return masks, predictions


def fold(masks, predictions, ratios=tuple(np.repeat(RATIOS, MEMBERS))):
    confidence = np.full(masks.shape, 0.5)
    return shard_profile(masks, predictions, confidence, LABELS, ratios, range(len(masks)), 3)


# ---------------------------------------------------------------------------------------------------------- consensus


def test_consensus_breaks_ties_as_the_paper_does():
    """The true class if it is among the tied, else the lowest index; nobody asked, no answer (A.6.2)."""
    predicted = np.array([[2, 2, 0], [2, 2, 1], [0, 3, 3], [1, 0, 4], [0, 0, 0]])
    assert consensus(predicted, np.array([1, 2, 0, 0, 1])).tolist() == [1, 0, 1, 2, -1]


def test_without_counts_nothing_is_told():
    """A profile read back from its table has none; -1 everywhere would look like an answer."""
    for measure in (lambda counts: consensus(counts, np.zeros(3, int)), consensus_consistency, prediction_entropy):
        with pytest.raises(ValueError, match="no prediction counts"):
            measure(np.zeros((3, 0)))


def test_consensus_and_entropy_count_the_networks_that_have_not_seen_the_example(members):
    """Eq. 2 and 3 are about unseen inputs; who trained on an example mostly repeats its label."""
    masks, predictions = members
    result = consensus_columns(fold(masks, predictions).predicted, LABELS)
    for row in range(20):
        votes = predictions[~masks[:, row], row]
        shares = np.bincount(votes, minlength=3) / len(votes)
        assert result["consensus_consistency"][row] == pytest.approx(np.mean(votes == result["consensus"][row]))
        assert result["prediction_entropy"][row] == pytest.approx(stats.entropy(shares))


def test_agreement_has_no_entropy_and_an_even_split_has_all_of_it():
    """In nats: log 2 for two classes; nobody asked is missing, not sure."""
    entropy = prediction_entropy([[7, 0], [3, 3], [0, 0]])
    assert entropy[:2].tolist() == pytest.approx([0, np.log(2)])
    assert not np.signbit(entropy[0])
    assert np.isnan(entropy[2])
    assert np.isnan(consensus_consistency([[0, 0]])[0])


# -------------------------------------------------------------------------------------------------------- memorization


def test_memorization_equals_a_loop_over_the_members(members):
    """Right when trained on, minus right when held out, ratio by ratio; the ratios weigh the same."""
    masks, predictions = members
    profile, right = fold(masks, predictions), predictions == LABELS
    scores = memorization(profile)
    for place in range(2):
        rows = slice(place * MEMBERS, (place + 1) * MEMBERS)
        for row in range(N_TRAIN):
            inside, outside = right[rows, row][masks[rows, row]], right[rows, row][~masks[rows, row]]
            expected = inside.mean() - outside.mean() if len(inside) and len(outside) else np.nan
            assert scores[place, row] == pytest.approx(expected, nan_ok=True)
    columns = memorization_columns(profile)
    np.testing.assert_allclose(columns["memorization"], scores.mean(axis=0))
    np.testing.assert_array_equal(columns["memorization_70"], scores[1])


def test_what_was_never_trained_on_is_not_memorized_nor_not(members):
    """Test rows, and an example that every member holds out or trains on: missing, not 0."""
    masks, predictions = (array.copy() for array in members)
    masks[:, 0], masks[:, 1] = False, True
    columns = memorization_columns(fold(masks, predictions))
    for name in ("memorization", "memorization_stderr", "memorization_30"):
        assert np.isnan(columns[name][[0, 1, *range(N_TRAIN, 20)]]).all()


def test_the_standard_error_of_memorization_is_the_spread_over_repeated_ensembles():
    """Drawn 2,000 times from known chances: a promised error that is not the real one misleads every reader."""
    rng, inside, outside = np.random.default_rng(1), 0.9, 0.4
    masks = np.zeros((2 * MEMBERS, 2000), dtype=bool)
    masks[::2] = True  # six of twelve in, at each ratio
    right = rng.random(masks.shape) < np.where(masks, inside, outside)
    labels = np.zeros(2000, dtype=int)
    ratios = np.repeat(RATIOS, MEMBERS).tolist()
    profile = shard_profile(masks, (~right).astype(int), np.ones(masks.shape), labels, ratios, range(len(masks)), 2)
    scores = memorization(profile).mean(axis=0)
    assert scores.mean() == pytest.approx(inside - outside, abs=0.01)
    assert np.sqrt(np.mean(memorization_stderr(profile) ** 2)) == pytest.approx(scores.std(), rel=0.05)


# ----------------------------------------------------------------------------------------------------------- influence


def toy_influence(m: int, n_train: int, n_targets: int, seed: int = 2):
    rng = np.random.default_rng(seed)
    return rng.random((m, n_train)) < 0.5, rng.random((m, n_targets)) < 0.6


@pytest.mark.parametrize("tile", [(4096, 512), (7, 3)])
def test_influence_equals_a_loop_over_all_pairs(tile):
    """The top of the full matrix, equal values by the lower row, whatever the tiles."""
    subset, right = toy_influence(10, 23, 8)
    subset[:, 4] = True  # nobody held it out
    result = influence(lambda rows: subset[:, rows], 23, right, top=5, tile=tile)
    for target in range(8):
        values = []
        for source in range(23):
            inside, outside = right[subset[:, source], target], right[~subset[:, source], target]
            values.append(inside.mean() - outside.mean() if len(outside) else -np.inf)
        order = np.lexsort((np.arange(23), -np.round(values, 12)))[:5]
        np.testing.assert_allclose(result.value[target], np.array(values)[order])
        np.testing.assert_allclose(np.round(values, 12)[result.source[target]], np.round(values, 12)[order])
        first = result.source[target, 0]
        parts = right[subset[:, first], target], right[~subset[:, first], target]
        error = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
        assert result.stderr[target, 0] == pytest.approx(error)


def test_equal_influences_keep_the_lower_row_whatever_the_tiles():
    """With few members many tie; who is shown must not depend on memory."""
    subset, right = toy_influence(4, 40, 6)
    whole = influence(lambda rows: subset[:, rows], 40, right, top=6)
    for tile in ((5, 1), (13, 4)):
        for one, other in zip(whole, influence(lambda rows: subset[:, rows], 40, right, top=6, tile=tile), strict=True):
            np.testing.assert_array_equal(one, other)
    level = np.diff(whole.value, axis=1) == 0
    assert level.any()
    assert (np.diff(whole.source, axis=1)[level] > 0).all()


def test_where_subsets_allow_nothing_there_is_no_influence():
    """Everyone trained on everything: no row is named."""
    result = influence(lambda rows: np.ones((3, 4), bool)[:, rows], 4, np.ones((3, 2), bool), top=2)
    assert (result.source == -1).all()
    assert np.isnan(result.value).all()


def test_a_planted_influence_is_found():
    """Target 3 is right exactly where row 17 was trained on."""
    subset, right = toy_influence(200, 100, 5)
    right[:, 3] = subset[:, 17]
    result = influence(lambda rows: subset[:, rows], 100, right, top=3)
    assert result.source[3, 0] == 17
    assert result.value[3, 0] == 1
    assert result.value[3, 1] < chance_influence(100, 100, 100) < 0.5


def test_the_largest_influence_of_pure_chance_is_what_is_said():
    """Answers that have nothing to do with the subsets: the top lies just below the bound."""
    subset, right = toy_influence(100, 2000, 200, seed=5)
    top = influence(lambda rows: subset[:, rows], 2000, right, top=1).value[:, 0]
    assert 0.75 < top.mean() / chance_influence(2000, 50, 50) < 1


# ---------------------------------------------------------------------------------------------------------- difficulty


def test_depths_are_averaged_where_the_example_was_in_each_split():
    """B-fig7 by hand, however members lie in shards; an undefined depth counts for neither."""
    depth = np.array([[0, 4, -1], [2, 5, 3], [1, 6, 3]], dtype=np.int8)
    subset = np.array([[True, False, True], [True, False, False], [False, False, False]])
    whole, shards = [(depth, subset)], [(depth[:1], subset[:1]), (depth[1:], subset[1:])]
    for given in (whole, shards, shards[::-1]):
        inside, outside, undefined = split_depths(given, 3)
        np.testing.assert_array_equal(inside, [1, np.nan, np.nan])
        np.testing.assert_array_equal(outside, [1, 5, 3])
        assert undefined == pytest.approx(1 / 9)
    assert np.isnan(split_depths([], 3).undefined)


def test_the_four_corners_are_the_papers_types():
    """Low and high depth in training and validation (Sec. 4); distances on axes scaled to the range of the data."""
    train, validation = np.array([1.0, 9, 1, 9, 2, np.nan]), np.array([2.0, 2, 4, 4, 2.5, 3])
    distances = corner_distances(train, validation)
    names = [list(TYPES)[place] if place >= 0 else None for place in difficulty_types(distances)]
    assert names == [
        "easy",
        "looks like a different class",
        "ambiguous unless the label is given",
        "ambiguous",
        "easy",
        None,
    ]
    assert distances[4].tolist() == pytest.approx(np.hypot([1 / 8, 7 / 8, 1 / 8, 7 / 8], [0.25, 0.25, 0.75, 0.75]))


def test_the_nearest_to_a_corner_come_first_and_unknown_ones_never():
    """B-fig8 looks at the 100 nearest."""
    rng = np.random.default_rng(3)
    train, validation = rng.random(50), rng.random(50)
    train[7] = np.nan
    distances = corner_distances(train, validation)
    result = nearest_to_corners(distances, 10)
    assert list(result) == list(TYPES)
    for place, rows in enumerate(result.values()):
        assert rows.tolist() == np.argsort(distances[:, place])[:10].tolist()


def test_one_depth_for_all_has_no_far_corner():
    """A network of one layer: everything is easy, nothing is divided by zero."""
    assert set(difficulty_types(corner_distances(np.ones(4), np.ones(4)))) == {0}
    assert set(difficulty_types(corner_distances(np.full(3, np.nan), np.ones(3)))) == {-1}
