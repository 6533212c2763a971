"""Subset masks, folding, C-scores: by hand, and by the laws that make a resumed ensemble equal an unbroken one."""

import itertools
import zlib

import numpy as np
import pytest

from study.errors import RecipeError
from study.scores import cscore, subsets

RATIOS = (0.1, 0.3, 0.5, 0.75, 0.9)


def rng_for(*words) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def toy_shard(seed: int, *, ratio=0.5, members=range(5), n: int = 12, c: int = 3):
    """masks, predictions, confidence, labels, ratio, members, c of a made-up shard; the labels are those of n and c."""
    rng, m = np.random.default_rng(seed), len(members)
    confidence = rng.random((m, n), dtype=np.float32)
    return rng.random((m, n)) < 0.5, rng.integers(c, size=(m, n)), confidence, np.arange(n) % c, ratio, members, c


def bits(profile: cscore.Profile) -> tuple:
    arrays = tuple(getattr(profile, name).tobytes() for name in (*cscore.SUMS, "predicted"))
    return profile.ratios, profile.diverged, *arrays


@pytest.mark.parametrize("design", subsets.DESIGNS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_masks_are_reproducible_and_differ_between_members(ratio, design):
    """A mask that depends on anything but (seed, ratio, member) breaks resume; equal masks would waste members."""
    masks = [subsets.subset_mask(rng_for, ratio, member, 200, design) for member in range(8)]
    again = [subsets.subset_mask(rng_for, ratio, member, 200, design) for member in reversed(range(8))][::-1]
    np.testing.assert_array_equal(masks, again)
    assert len({mask.tobytes() for mask in masks}) == 8


@pytest.mark.parametrize("ratio", RATIOS)
def test_uniform_masks_have_the_rounded_size(ratio):
    """The subset ratio is what the C-score is a function of."""
    assert subsets.subset_mask(rng_for, ratio, 3, 203, "uniform").sum() == round(ratio * 203)


@pytest.mark.parametrize("n", [200, 203])
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_balanced_block_holds_every_example_out_equally_often(ratio, n):
    """This is what the design is for: no example is left without a held-out member by bad luck."""
    length = subsets.block_length(ratio)
    masks = np.array([subsets.subset_mask(rng_for, ratio, length + member, n, "balanced") for member in range(length)])
    np.testing.assert_array_equal((~masks).sum(axis=0), round((1 - ratio) * length))


@pytest.mark.parametrize("ratio", RATIOS)
def test_balanced_masks_have_the_size_up_to_the_uneven_parts(ratio):
    """203 examples do not divide in ten parts; the parts differ by one at most."""
    sizes = [subsets.subset_mask(rng_for, ratio, member, 203, "balanced").sum() for member in range(20)]
    assert np.abs(np.array(sizes) - ratio * 203).max() <= subsets.block_length(ratio)


@pytest.mark.parametrize("design", subsets.DESIGNS)
def test_every_example_is_as_likely_to_be_drawn(design):
    """A member's subset by itself must be uniform; over 2,000 members the shares stay within five standard errors."""
    masks = [subsets.subset_mask(rng_for, 0.3, member, 30, design) for member in range(0, 20_000, 10)]
    assert np.abs(np.mean(masks, axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 2000)


@pytest.mark.parametrize(
    ("ratio", "length"), [(0.5, 2), (0.1, 10), (0.3, 10), (0.25, 4), (np.float64(0.7), 10), (0.01, 100)]
)
def test_block_length_reads_the_ratio_as_it_is_written(ratio, length):
    """0.3 is three tenths, not the binary fraction beside it."""
    assert subsets.block_length(ratio) == length


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.333, -0.1, 1.5])
def test_ratios_without_a_block_are_refused_in_a_line(ratio):
    """A recipe's author sees the number and what to do."""
    with pytest.raises(RecipeError, match=str(ratio)):
        subsets.block_length(ratio)


@pytest.mark.parametrize(
    ("ratio", "n", "design"), [(0.9, 5, "balanced"), (0.1, 4, "uniform"), (0.9, 4, "uniform"), (0.5, 9, "x")]
)
def test_subsets_that_leave_nothing_are_refused(ratio, n, design):
    """An empty training set would train on nothing; an empty held-out set would judge nothing."""
    with pytest.raises(RecipeError):
        subsets.subset_mask(rng_for, ratio, 0, n, design)


def test_a_shard_folds_to_sums_worked_out_by_hand():
    """Two members, two train rows and one test row, two classes: every number below is counted on paper."""
    masks = np.array([[True, False, False], [False, True, False]])
    predictions = np.array([[0, 1, 1], [1, 1, 0]])
    confidence = np.array([[0.9, 0.2, 1.0], [0.4, 0.6, 0.0]], dtype=np.float32)
    profile = cscore.shard_profile(masks, predictions, confidence, np.array([0, 0, 1]), 0.5, [0, 1], 2)
    assert profile.held_out[0].tolist() == [[0, 1, 1], [1, 0, 1]]
    assert profile.correct[0].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert profile.confidence[0].tolist() == [[0, 13107, 65535], [26214, 0, 0]]
    assert profile.confidence_sq[0].tolist() == [[0, 13107**2, 65535**2], [26214**2, 0, 0]]
    assert profile.trained[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert profile.trained_correct[0].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert profile.predicted.tolist() == [[0, 1], [0, 1], [1, 1]]


def test_shards_fold_in_any_order_to_the_same_bits():
    """Shards finish in the order of the machines; the C-scores must not know."""
    shards = [cscore.shard_profile(*toy_shard(seed, ratio=ratio)) for seed, ratio in enumerate((0.5, 0.1, 0.5, 0.9))]
    folds = {bits(a + b + c + d) for a, b, c, d in itertools.permutations(shards)}
    assert len(folds) == 1


def test_cutting_an_ensemble_in_shards_changes_nothing():
    """Members of several ratios in one shard, or one member per shard: the sums are the same."""
    masks, predictions, confidence, labels, _, _, c = toy_shard(0, members=range(6))
    ratios, members = [0.1, 0.1, 0.1, 0.5, 0.5, 0.5], [0, 1, 2, 0, 1, 2]
    whole = cscore.shard_profile(masks, predictions, confidence, labels, ratios, members, c)
    rows = [slice(i, i + 1) for i in range(6)]
    parts = [
        cscore.shard_profile(masks[i], predictions[i], confidence[i], labels, ratios[i], members[i], c) for i in rows
    ]
    assert bits(sum(parts[1:], start=parts[0])) == bits(whole)


def test_a_diverged_member_is_left_out_and_counted():
    """A network that blew up says nothing about the examples, and must not do so silently."""
    masks, predictions, confidence, labels, ratio, _, c = toy_shard(1)
    confidence[2, 5] = np.nan
    result = cscore.shard_profile(masks, predictions, confidence, labels, ratio, range(5), c)
    kept = [0, 1, 3, 4]
    rest = cscore.shard_profile(masks[kept], predictions[kept], confidence[kept], labels, ratio, kept, c)
    assert (result.diverged, bits(result)[2:]) == (1, bits(rest)[2:])


def test_profile_survives_its_table():
    """profile.parquet is all that is left of an ensemble when it is read again."""
    profile = cscore.shard_profile(*toy_shard(2)) + cscore.shard_profile(*toy_shard(3, ratio=0.1))
    read = cscore.Profile.from_columns(profile.columns(), n=12)
    assert bits(read)[:-1] == bits(profile)[:-1]


def test_profile_columns_have_the_types_of_the_table():
    """Other programs read these columns by name and type."""
    columns = cscore.shard_profile(*toy_shard(2)).columns()
    assert {name: str(column.dtype) for name, column in columns.items()} == {
        "ratio": "float64",
        "half": "int8",
        **dict.fromkeys(cscore.SUMS, "int64"),
    }


@pytest.mark.parametrize("wrong", ["shape", "class", "probability"])
def test_a_shard_that_does_not_fit_is_refused(wrong):
    """Wiring errors between trainer and fold would otherwise become scores."""
    masks, predictions, confidence, labels, ratio, members, c = toy_shard(4)
    if wrong == "shape":
        masks = masks[:, :-1]
    elif wrong == "class":
        predictions[0, 0] = c
    else:
        confidence[0, 0] = 2
    with pytest.raises(ValueError, match=r"\(m, n\)|classes|probability"):
        cscore.shard_profile(masks, predictions, confidence, labels, ratio, members, c)


def test_profiles_of_different_data_do_not_add():
    """Numpy would broadcast some of them."""
    with pytest.raises(ValueError, match="do not add"):
        cscore.shard_profile(*toy_shard(0)) + cscore.shard_profile(*toy_shard(0, n=1))


def test_never_held_out_is_missing_not_zero():
    """The authors' demo gives such an example 0, the hardest score: 12 % of the data with 20 members at ratio .9."""
    np.testing.assert_array_equal(cscore.consistency([0, 1], [0, 2]), [np.nan, 0.5])


def test_integral_is_missing_where_a_ratio_is():
    """A mean over the ratios that happen to be there compares examples at different subset sizes."""
    np.testing.assert_array_equal(cscore.integral(np.array([[0.2, np.nan], [0.6, 1.0]])), [0.4, np.nan])


def test_cscore_equals_a_loop_over_the_definition():
    """Algorithm 1 word by word: mean correctness over the members that did not train on the example."""
    masks, predictions, confidence, labels, ratio, members, c = toy_shard(5, members=range(40))
    columns = cscore.cscore_columns(
        cscore.shard_profile(masks, predictions, confidence, labels, ratio, members, c), labels
    )
    for j, label in enumerate(labels):
        out = [i for i in members if not masks[i, j]]
        assert columns["cscore"][j] == pytest.approx(np.mean([predictions[i, j] == label for i in out]), abs=1e-12)
        assert columns["cscore_soft"][j] == pytest.approx(np.mean([confidence[i, j] for i in out]), abs=1e-5)
        assert columns["held_out"][j] == len(out)


def test_hard_stderr_by_hand():
    """3 of 4 right at one ratio and 1 of 2 at the other: sqrt(.75 * .25 / 3 + .5 * .5 / 1) / 2."""
    result = cscore.stderr(np.array([[3], [1]]), np.array([[4], [2]]))
    assert result == pytest.approx(np.sqrt(0.1875 / 3 + 0.25) / 2, rel=1e-12)


def test_soft_stderr_equals_the_standard_error_of_the_mean():
    """From sums of squares, against numpy on the values themselves."""
    values = np.random.default_rng(0).integers(0, 65536, size=(2, 30, 4))
    held_out = np.full((2, 4), 30)
    result = cscore.stderr_soft(values.sum(axis=1), (values**2).sum(axis=1), held_out)
    naive = np.sqrt(((values / 65535).std(axis=1, ddof=1) ** 2 / 30).sum(axis=0)) / 2
    np.testing.assert_allclose(result, naive, rtol=1e-12)


def test_stderr_is_missing_below_two_members():
    """One answer has no spread to speak of; 0 would claim certainty."""
    result = cscore.stderr(np.array([[1, 2]]), np.array([[1, 2]]))
    np.testing.assert_array_equal(result, [np.nan, 0])


def test_stderr_is_the_spread_over_repeated_ensembles():
    """The error bar must be what another ensemble of that size would show."""
    rng = np.random.default_rng(0)
    held_out = np.full((3, 4000), 20)
    correct = rng.binomial(held_out, np.array([[0.3], [0.6], [0.9]]))
    scores = cscore.integral(cscore.consistency(correct, held_out))
    assert np.sqrt(np.mean(cscore.stderr(correct, held_out) ** 2)) == pytest.approx(scores.std(), rel=0.05)


def test_reliability_finds_what_the_halves_share():
    """Members that answer by the examples' true difficulty agree between halves; coin flips do not."""
    n, rng = 500, np.random.default_rng(0)
    difficulty, labels = rng.random(n), np.zeros(n, int)
    right = rng.random((40, n)) < difficulty
    profile = cscore.shard_profile(
        np.zeros((40, n), bool), 1 - right, np.where(right, 0.9, 0.1), labels, 0.5, range(40), 2
    )
    result = cscore.reliability(profile)
    assert result.hard.value > 0.85
    assert result.soft.value == pytest.approx(result.hard.value)
    assert result.hard_full == pytest.approx(2 * result.hard.value / (1 + result.hard.value))
    assert abs(cscore.reliability(profile, difficulty > 0.999).hard.n) < 5


def test_balanced_halves_hold_whole_blocks():
    """By parity of members about half of the examples would be held out in one half only; by blocks none is."""
    masks = np.array([subsets.subset_mask(rng_for, 0.9, member, 50, "balanced") for member in range(20)])
    shard = (masks, np.zeros((20, 50), int), np.ones((20, 50)), np.zeros(50, int), 0.9, range(20), 2)
    assert (cscore.shard_profile(*shard, design="balanced").held_out == 1).all()
    assert (cscore.shard_profile(*shard).held_out == 0).any()


def test_columns_are_named_by_percent():
    """cscore_10 and held_out_10 are what figures and reports look for."""
    profile = cscore.shard_profile(*toy_shard(2, ratio=0.1)) + cscore.shard_profile(*toy_shard(3, ratio=0.125))
    names = set(cscore.cscore_columns(profile, np.arange(12) % 3))
    assert {"cscore_10", "held_out_10", "cscore_12.5", "held_out_12.5"} <= names


def test_members_that_have_not_seen_the_class_do_not_count():
    """The only example of a class got C-score 0 by construction, and was listed as a suspect."""
    labels = np.array([0, 0, 0, 1, 2, 2])
    masks = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1], [1, 1, 0, 0, 0, 0]], dtype=bool)
    predictions = np.zeros((3, 6), dtype=np.int64)
    profile = cscore.shard_profile(masks, predictions, np.full((3, 6), 0.5), labels, 0.5, range(3), 3, min_class=1)
    assert profile.held_out.sum(axis=(0, 1)).tolist() == [1, 1, 2, 0, 1, 1]
    columns = cscore.cscore_columns(profile, labels)
    np.testing.assert_array_equal(columns["cscore"], [1, 1, 1, np.nan, 0, 0])
    counted = cscore.shard_profile(masks, predictions, np.full((3, 6), 0.5), labels, 0.5, range(3), 3)
    assert counted.held_out.sum(axis=(0, 1)).tolist() == [1, 1, 2, 2, 2, 2]
