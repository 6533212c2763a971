"""Rank statistics against scipy, naive counting, a bootstrap and hand-worked cases."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from study.kernels import native
from study.scores import rank_statistics

CORRELATIONS = [rank_statistics.spearman, rank_statistics.kendall]

TIES = {
    "no ties": lambda values: values,
    "light ties": lambda values: np.round(values * 4),
    "saturated": lambda values: np.minimum(np.round(values * 3), 0),
    "two values": lambda values: (values > 0.3).astype(float),
}
SIZES = (3, 4, 5, 8, 17, 64, 65, 500)
ORDERS = {
    "random": lambda rng, n: rng.permutation(n),
    "sorted": lambda rng, n: np.arange(n),
    "reversed": lambda rng, n: np.arange(n)[::-1],
    "constant": lambda rng, n: np.full(n, -1.5),
    "runs": lambda rng, n: np.arange(n) // 9 % 4,
    "two values": lambda rng, n: rng.integers(2, size=n),
    "extremes": lambda rng, n: rng.choice([-np.inf, -1e308, -5e-324, -0.0, 0.0, 5e-324, 1, 1 + 2**-52, np.inf], n),
}


def pairs(n: int, ties: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    x, y = TIES[ties](x), TIES[ties](x + rng.normal(size=n))
    x[:2], y[:2] = (0, -4), (-4, 0)  # never constant, whatever the ties
    return x, y


def standard_error(correlation: rank_statistics.Correlation) -> float:
    width = np.arctanh(correlation.high) - np.arctanh(correlation.low)
    return width / 2 / stats.norm.ppf(0.975) * (1 - correlation.value**2)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("ties", TIES)
def test_spearman_equals_scipy(n, ties):
    """The number in the table must be the one that everybody else computes, ties by midranks."""
    x, y = pairs(n, ties)
    assert rank_statistics.spearman(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("ties", TIES)
def test_kendall_equals_scipy(n, ties):
    """Tau-b, the variant for ties, is what the papers' tables and scipy report."""
    x, y = pairs(n, ties)
    assert rank_statistics.kendall(x, y).value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def all_pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(3, n) what `concordance` counts, by comparing all with all."""
    sign_x, sign_y = (np.greater.outer(each, each).astype(int) - np.less.outer(each, each) for each in (x, y))
    return np.stack([(sign_x * sign_y).sum(axis=1), (sign_x != 0).sum(axis=1), (sign_y != 0).sum(axis=1)])


@pytest.fixture(params=["kernel", "numpy"])
def by(request, monkeypatch):
    """Who counts."""
    if request.param == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no C++ compiler here")


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("of_y", ORDERS)
@pytest.mark.parametrize("of_x", ORDERS)
def test_concordance_equals_counting_all_pairs(of_x, of_y):
    """The interval of Kendall rests on each example's count; the total alone would hide errors that cancel."""
    rng = np.random.default_rng(4)
    for n in (*range(1, 71), 300):
        x, y = (ORDERS[order](rng, n).astype(float) for order in (of_x, of_y))
        np.testing.assert_array_equal(rank_statistics.concordance(x, y), all_pairs(x, y))


@pytest.mark.parametrize("digits", [1, 3, 17])
def test_kernel_and_numpy_count_the_same_to_the_last_example(monkeypatch, digits):
    """A report must not depend on a compiler; 70,000 examples take every level of both."""
    rng = np.random.default_rng(5)
    x, noise = rng.normal(size=(2, 70_000))
    x, y = np.round(x, digits), np.round(x + noise, digits)
    result = rank_statistics.concordance(x, y)
    monkeypatch.setattr(native, "library", lambda: None)
    np.testing.assert_array_equal(result, rank_statistics.concordance(x, y))


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("digits", [1, 3, 17])
def test_kendall_of_100_000_pairs_equals_scipy(digits):
    """Sums of counts grow with n squared; what fits at 500 examples may overflow at a data set's size."""
    rng = np.random.default_rng(6)
    x, noise = np.round(rng.normal(size=(2, 100_000)), digits)
    assert rank_statistics.kendall(x, x + noise).value == pytest.approx(
        stats.kendalltau(x, x + noise).statistic, abs=1e-12
    )


def test_other_kinds_of_arrays_are_counted_as_float64_is():
    """The kernel reads memory as it lies: strides, narrower numbers and lists must be turned first."""
    x, y = np.random.default_rng(7).integers(-9, 9, size=(2, 40)).astype(np.int8)
    wanted = all_pairs(x, y)
    both = np.stack([x, y], axis=1).astype(np.float32)
    for kind in ((x, y), (x.tolist(), y.tolist()), (both[:, 0], both[:, 1])):
        np.testing.assert_array_equal(rank_statistics.concordance(*kind), wanted)


def test_too_little_memory_is_told(monkeypatch):
    """The kernel says so by its answer; counts that were never written must not pass as a result."""

    class Full:
        def study_concordance(self, *_):
            return 0

    monkeypatch.setattr(native, "library", Full)
    with pytest.raises(MemoryError, match="3 pairs"):
        rank_statistics.concordance([1.0, 2, 3], [1.0, 2, 3])


@pytest.mark.parametrize("order", ORDERS)
def test_midranks_are_those_of_scipy(order):
    """Ties share the mean of their ranks; one or no value is an order too."""
    for n in (0, 1, *SIZES):
        x = np.asarray(ORDERS[order](np.random.default_rng(n), n), dtype=float)
        np.testing.assert_array_equal(rank_statistics.midranks(x), stats.rankdata(x))


def test_ranks_are_imported_without_torch_or_a_compiler():
    """Whoever reads a table must not wait for five seconds of import, nor for a compiler."""
    code = (
        "import sys; from study.kernels import native; from study.scores import rank_statistics; "
        "print('torch' in sys.modules, native.library.cache_info().misses)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0"]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 100])
def test_earlier_and_smaller_equals_counting(n):
    """Sizes around powers of two are where padded blocks go wrong."""
    permutation = np.random.default_rng(n).permutation(n)
    naive = [(permutation[:place] < permutation[place]).sum() for place in range(n)]
    np.testing.assert_array_equal(rank_statistics.earlier_and_smaller(permutation), naive)


@pytest.mark.parametrize("ties", ["no ties", "saturated"])
@pytest.mark.parametrize("correlate", CORRELATIONS, ids=lambda function: function.__name__)
def test_interval_is_as_wide_as_a_bootstrap_says(correlate, ties):
    """An analytic error is only worth its speed if resampling examples gives the same, above all with heavy ties."""
    x, y = pairs(400, ties)
    rng = np.random.default_rng(1)
    resampled = [correlate(x[rows], y[rows]).value for rows in rng.integers(400, size=(800, 400))]
    assert standard_error(correlate(x, y)) == pytest.approx(np.std(resampled), rel=0.12)


@pytest.mark.parametrize("correlate", CORRELATIONS, ids=lambda function: function.__name__)
def test_interval_covers_the_truth_as_often_as_it_says(correlate):
    """95 % must mean 95 %: for normal pairs of correlation .6 the true values are known."""
    truth = {"spearman": 6 / np.pi * np.arcsin(0.3), "kendall": 2 / np.pi * np.arcsin(0.6)}[correlate.__name__]
    rng, hits = np.random.default_rng(2), 0
    for _ in range(400):
        x, noise = rng.normal(size=(2, 100))
        result = correlate(x, 0.6 * x + 0.8 * noise)
        hits += result.low <= truth <= result.high
    assert 0.91 < hits / 400 < 0.985


@pytest.mark.parametrize("correlate", CORRELATIONS, ids=lambda function: function.__name__)
def test_pairs_with_nan_are_dropped_and_counted(correlate):
    """A proxy that is missing for some examples is compared on the others, and n says on how many."""
    x, y = pairs(50, "no ties")
    with_nan = np.r_[x, np.nan, 1.0, np.nan], np.r_[y, 1.0, np.nan, np.nan]
    assert correlate(*with_nan) == correlate(x, y)


@pytest.mark.parametrize("correlate", CORRELATIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 1, 1], [1.0, 2, 3]),
        ([1.0, 2, 3], [0.0, 0, 0]),
        ([1.0, 2], [1.0, 2]),
        ([], []),
        ([np.nan] * 3, [1.0, 2, 3]),
    ],
)
def test_undefined_correlations_are_nan_without_a_warning(correlate, x, y):
    """A constant proxy is a finding to show as missing, not a crash and not a zero."""
    assert np.isnan(correlate(x, y)[:3]).all()


@pytest.mark.parametrize("correlate", CORRELATIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_perfect_orders_have_a_degenerate_interval(correlate, sign):
    """Fisher's z is infinite at one; the interval must close on it without a warning."""
    x = np.round(np.random.default_rng(3).normal(size=100), 1)
    assert correlate(x, sign * x**3) == (sign, sign, sign, 100)


@pytest.mark.parametrize("correlate", [rank_statistics.spearman, rank_statistics.kendall, rank_statistics.concordance])
@pytest.mark.parametrize(("x", "y"), [([1.0, 2, 3], [1.0]), ([[1.0, 2]], [[1.0, 2]]), (1.0, 1.0)])
def test_arrays_of_different_length_are_refused(correlate, x, y):
    """Broadcasting would correlate the wrong pairs silently, and the kernel would read beyond the shorter one."""
    with pytest.raises(ValueError, match="one length"):
        correlate(x, y)


def test_infinities_take_part_by_rank():
    """Ranks are defined for infinite values, so they are not missing."""
    assert rank_statistics.spearman([-np.inf, 0, 1, np.inf], [1, 2, 3, 4]).value == 1


def test_tie_ceiling_is_reached_by_the_best_untied_score():
    """The ceiling is a bound that is attained: break the ties at random and correlate."""
    x = np.r_[np.zeros(60), np.arange(1, 41)]
    assert rank_statistics.spearman(x, np.arange(100)).value == pytest.approx(rank_statistics.tie_ceiling(x), abs=1e-12)


def test_tie_ceiling_of_saturated_mnist():
    """75.84 % of 60,000 published scores are exactly 1: no continuous proxy can exceed .751."""
    assert rank_statistics.tie_ceiling(np.r_[np.ones(45_504), np.linspace(0, 0.9, 14_496)]) == pytest.approx(
        0.751, abs=5e-4
    )


@pytest.mark.parametrize(("x", "ceiling"), [([1.0, 1, 1], 0), ([1.0, 2, np.nan], 1), ([1.0], np.nan)])
def test_tie_ceiling_at_the_edges(x, ceiling):
    """All tied, none tied, nothing to rank."""
    assert rank_statistics.tie_ceiling(x) == pytest.approx(ceiling, nan_ok=True)


@pytest.mark.parametrize(
    ("half", "whole"), [(1, 1), (0.5, 2 / 3), (0, 0), (-1, np.nan), (-0.4, -4 / 3), (np.nan, np.nan)]
)
def test_spearman_brown_by_hand(half, whole):
    """Halves that correlate by .5 make a whole of reliability 2/3."""
    assert rank_statistics.spearman_brown(half) == pytest.approx(whole, nan_ok=True)


def test_unequal_halves_are_corrected_for():
    """20 and 10 of 30 members, noise 6 / k beside a truth of variance 1: the parts have 1 / 1.3 and 1 / 1.6."""
    half = 1 / np.sqrt((1 + 6 / 20) * (1 + 6 / 10))
    assert rank_statistics.spearman_brown(half, 2 / 3, 1 / 3) == pytest.approx(1 / 1.2)
    assert rank_statistics.spearman_brown(half) < 1 / 1.2  # what equal halves would mean


def test_distinct_leaves_nan_out():
    """It tells how coarse a proxy is; missing is no value."""
    assert rank_statistics.distinct([1, 1, 2, np.nan, np.nan]) == 2
