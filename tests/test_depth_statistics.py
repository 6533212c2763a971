"""Statistics of prediction depths over members are what loops and other libraries say."""

import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor

from study.scores.depth_statistics import consensus_table, depth_of_one_network, linear_bound, member_predictions

M, N, C, LAYERS = 12, 40, 3, 5


@pytest.fixture(scope="module")
def members():
    """Depths, subsets and predictions of twelve members; some depths undefined."""
    rng = np.random.default_rng(0)
    depth = rng.integers(-1, LAYERS, (M, N))
    return depth, rng.random((M, N)) < 0.6, rng.integers(0, C, (M, N))


@pytest.fixture(scope="module")
def labels():
    return np.arange(N) % C


@pytest.mark.parametrize("upper", [False, True])
def test_the_bound_is_a_quantile_regression(upper):
    """Scikit-learn's, without a penalty; a tenth of the examples lie beyond it."""
    rng = np.random.default_rng(1)
    depth = rng.uniform(0, 6, 300)
    value = 1 - 0.1 * depth + rng.normal(0, 0.1, 300)
    bound = linear_bound(depth, value, share=0.1, upper=upper)
    other = QuantileRegressor(quantile=0.9 if upper else 0.1, alpha=0).fit(depth[:, None], value)
    assert bound == pytest.approx((other.intercept_, other.coef_[0]), abs=1e-6)
    beyond = (value > bound.at(depth) + 1e-9) if upper else (value < bound.at(depth) - 1e-9)
    assert beyond.mean() == pytest.approx(0.1, abs=0.01)


def test_too_little_has_no_bound():
    """Two examples, or one depth, are no line."""
    assert np.isnan(linear_bound(np.array([1.0, 2.0]), np.ones(2))).all()
    assert np.isnan(linear_bound(np.ones(9), np.linspace(0, 1, 9))).all()


def test_members_fold_as_a_loop_says(members, labels):
    """In any division into shards."""
    depth, inside, final = members
    shards = [tuple(array[low : low + 5] for array in members) for low in range(0, M, 5)]
    folded = member_predictions(shards, labels, C, LAYERS)
    for row in range(N):
        outside = [m for m in range(M) if not inside[m, row]]
        depths = [depth[m, row] for m in outside if depth[m, row] >= 0]
        assert folded.validation_depth[row] == pytest.approx(np.mean(depths) if depths else np.nan, nan_ok=True)
        assert folded.predicted[row].tolist() == [sum(final[m, row] == c for m in outside) for c in range(C)]
    for place, split in enumerate((inside, ~inside)):
        for at in range(LAYERS):
            pairs = [(m, row) for m in range(M) for row in range(N) if split[m, row] and depth[m, row] == at]
            right = sum(final[pair] == labels[pair[1]] for pair in pairs)
            assert folded.by_depth[place, at].tolist() == [len(pairs), right]
    table = folded.by_depth_table()
    assert table.groupby("split")["share"].sum().tolist() == pytest.approx([1, 1])


def test_the_consensus_table_is_that_of_the_votes(members, labels):
    """C-score, agreement and consistency of the validation votes."""
    folded = member_predictions([members], labels, C, LAYERS)
    table = consensus_table(folded, labels).set_index("row")
    for row, entry in table.iterrows():
        votes = folded.predicted[row]
        assert entry["cscore"] == pytest.approx(votes[labels[row]] / votes.sum())
        assert entry["consistency"] == pytest.approx(votes.max() / votes.sum())
        assert entry["agrees"] == (votes[labels[row]] == votes.max())


def test_the_depth_in_one_network_meets_the_votes_of_the_others(members):
    """Each network is the one once; its own vote does not count."""
    depth, _, final = members
    table = depth_of_one_network(depth, final, C).set_index("depth")
    expected = {}
    for one in range(M):
        for row in np.flatnonzero(depth[one] >= 0):
            votes = np.bincount([final[m, row] for m in range(M) if m != one], minlength=C)
            expected.setdefault(depth[one, row], []).append(votes.max() / (M - 1))
    assert table["consistency"].to_dict() == pytest.approx({at: np.mean(values) for at, values in expected.items()})
    assert table["share"].sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="at least two others"):
        depth_of_one_network(depth[:2], final[:2], C)
