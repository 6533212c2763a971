"""What a perfect proxy can reach, against simulations in which the truth is known."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from study.analysis.correlations import kendall_value
from study.random_streams import random_stream
from study.scores import cscore
from study.scores.ceilings import Truth, latent_correlation, rank_correlation
from study.scores.rank_statistics import tie_ceiling
from study.scores.subsets import half_of, subset_mask

RATIOS = np.arange(1, 10) / 10


def counts(chance: np.ndarray, members: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """C-scores of two halves and of all members, held out as a balanced design does; (n,) each."""
    rng = np.random.default_rng(seed)
    held_out = np.rint((1 - RATIOS)[:, None] * members / 2).astype(int)
    halves = rng.binomial(held_out, chance, size=(2, len(RATIOS), len(chance))) / held_out
    first, second = halves.mean(axis=1)
    return first, second, (first + second) / 2


@pytest.mark.parametrize(("a", "b"), [(4, 0.06), (1, 1), (6, 0.3)])
def test_what_the_true_chance_reaches_is_estimated(a, b):
    """78.8 % of the first scores tie at 1: the root of the reliability says .95, the truth reaches .70."""
    chance = np.random.default_rng(1).beta(a, b, 20_000)
    first, second, score = counts(chance, 40)
    truth = Truth.from_halves(first, second, score)
    assert truth is not None
    assert truth.reach(rank_correlation) == pytest.approx(stats.spearmanr(chance, score).statistic, abs=0.02)
    assert truth.reach(kendall_value) == pytest.approx(stats.kendalltau(chance, score).statistic, abs=0.02)
    assert truth.reach(rank_correlation) <= tie_ceiling(score)


def test_a_proxy_with_ties_is_held_against_a_perfect_one_with_ties():
    """The true chance, tied where the scores are, reaches all that it can, which is more than it could without ties."""
    chance = np.random.default_rng(1).beta(4, 0.06, 20_000)
    truth, coarse = Truth.from_halves(*counts(chance, 40)), np.minimum(chance, np.quantile(chance, 0.25))
    score = counts(chance, 40)[2]
    assert truth is not None
    assert rank_correlation(score, coarse) == pytest.approx(truth.reach(rank_correlation, coarse), abs=0.02)
    assert rank_correlation(score, coarse) > truth.reach(rank_correlation) + 0.1


def test_standard_errors_say_the_same_as_halves():
    """A table of scores from elsewhere has errors and no halves."""
    chance = np.random.default_rng(1).beta(2, 1, 5_000)
    first, second, score = counts(chance, 20)
    held_out = np.rint((1 - RATIOS) * 20)
    errors = np.sqrt((chance * (1 - chance))[:, None] / held_out).mean(axis=1) / np.sqrt(len(RATIOS))
    halves, by_error = Truth.from_halves(first, second, score), Truth.from_errors(score, errors)
    assert halves is not None
    assert by_error is not None
    assert by_error.reach(rank_correlation) == pytest.approx(halves.reach(rank_correlation), abs=0.02)


def test_halves_that_share_nothing_leave_nothing_to_reach():
    """Noise alone: a perfect proxy is as good as any."""
    rng = np.random.default_rng(0)
    truth = Truth.from_halves(*rng.random((3, 3_000)))
    assert truth is not None
    assert truth.reach(rank_correlation) < 0.3


@pytest.mark.parametrize("halves", [([1.0, 1, 1], [0.0, 1, 2]), ([1.0, 2], [1.0, 2]), ([np.nan, 1, 2], [1.0, 2, 3])])
def test_too_little_leaves_it_unknown(halves):
    """A constant half, two examples, or two that both halves have."""
    assert Truth.from_halves(*halves, np.arange(len(halves[0]))) is None


def test_the_latent_correlation_is_that_of_the_normal_variables():
    """Spearman's rho of a bivariate normal is 6 / pi * arcsin(r / 2)."""
    x = np.arange(10_000)
    assert latent_correlation(x, x, 6 / np.pi * np.arcsin(0.3), rank_correlation) == pytest.approx(0.6, abs=0.02)


def test_three_balanced_blocks_are_corrected_for():
    """30 members at 10 %: two blocks against one.  As if they were equal, the reliability came out too low."""
    n, members = 4_000, 30
    rng, rng_for = np.random.default_rng(0), partial(random_stream, 0)
    masks = np.stack([subset_mask(rng_for, 0.1, member, n) for member in range(members)])
    wrong = (rng.random((members, n)) > rng.beta(2, 1, n)).astype(int)
    shard = masks, wrong, np.full(masks.shape, 0.5), np.zeros(n, int), 0.1, range(members), 2
    profile = cscore.shard_profile(*shard, design="balanced")
    assert [half_of(member, 0.1, "balanced") for member in (0, 10, 20)] == [0, 1, 0]
    assert cscore.half_lengths(profile) == pytest.approx((2 / 3, 1 / 3))
    equal = cscore.shard_profile(*shard, design="uniform")  # the same members, split 15 : 15
    whole = cscore.reliability(equal).hard_full
    assert cscore.reliability(profile).hard_full == pytest.approx(whole, abs=0.006)


def test_a_constant_score_has_no_ceiling():
    """Of two held-out networks only one half is unsaturated: nothing can be ranked, and 0 would be a claim."""
    truth = Truth.of(np.full(100, 0.5), 0.5)
    assert np.isnan(truth.reach(rank_correlation))
