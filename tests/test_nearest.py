"""Exact nearest neighbours, against float64 brute force and scikit-learn; and what follows from them."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from study.errors import DataError
from study.kernels import knn, knn_native, native
from study.kernels.kde import _medium_is_exact
from study.kernels.knn import Stream, nearest, votes
from study.proxies.density import local_outlier_factor, reachability

RNG = np.random.default_rng(0)
N, K = 400, 30
FEATURES = {
    "images": RNG.integers(0, 256, size=(N, 1, 8, 8), dtype=np.uint8),
    "binary images": RNG.integers(0, 2, size=(N, 1, 7, 7), dtype=np.uint8),  # hundreds of equal distances
    "hidden": np.maximum(RNG.normal(size=(N, 256)), 0).astype(np.float32),
    "half": np.maximum(RNG.normal(size=(N, 64)), 0).astype(np.float16),
    "offset": (RNG.normal(size=(N, 64)) + 1000).astype(np.float32),
    "collapsed classes": (np.eye(40)[np.arange(N) % 3] + 1e-5 * RNG.normal(size=(N, 40))).astype(np.float32),
    "duplicates": np.repeat(RNG.normal(size=(4, 50)), N // 4, axis=0).astype(np.float32),
    "all the same": np.full((N, 40), 0.1, np.float32),
    "wide scale": np.exp(3 * RNG.normal(size=(N, 60))).astype(np.float32),
    "logits": (10 * RNG.normal(size=(N, 10))).astype(np.float32),
    "softmax": np.exp(20 * RNG.normal(size=(N, 10))),
}
FEATURES["softmax"] /= FEATURES["softmax"].sum(axis=1, keepdims=True)
every_kind = pytest.mark.parametrize("name", FEATURES)
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C++ compiler here")


def plain(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(features), -1).astype(np.float64)


def brute(features, k, queries=None, exclude_self=False):
    """All distances by differences in float64, sorted by distance, then row."""
    features = plain(features)
    points = features if queries is None else plain(queries)
    distance = np.linalg.norm(points[:, None] - features[None], axis=2)
    if exclude_self:
        np.fill_diagonal(distance, np.inf)
    rows = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, rows, axis=1), rows


@every_kind
@pytest.mark.parametrize("exclude_self", [False, True])
def test_neighbors_are_those_of_float64_brute_force(name, exclude_self):
    """Row for row, ties and all: products in float32 may find the candidates, and must not choose among them."""
    distance, rows = nearest(FEATURES[name], K, exclude_self=exclude_self, tile=128)
    expected, expected_rows = brute(FEATURES[name], K, exclude_self=exclude_self)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(distance, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["images", "hidden", "offset", "logits", "softmax"])
def test_distances_equal_sklearns(name):
    """An independent implementation; rows may differ there among equal distances, so distances are compared."""
    reference = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(plain(FEATURES[name]))
    distance, _ = nearest(FEATURES[name], K)
    np.testing.assert_allclose(distance[:, 1:], reference.kneighbors()[0][:, :-1], rtol=1e-6, atol=1e-7)


@every_kind
def test_queries_of_their_own_are_searched_among_the_features(name):
    """Test examples ask, training examples answer."""
    features, queries = FEATURES[name][:300], FEATURES[name][300:]
    _, rows = nearest(features, 5, queries=queries, tile=77)
    np.testing.assert_array_equal(rows, brute(features, 5, queries)[1])


@pytest.mark.parametrize("tile", [1, 7, 29, 119, 120, 4096])
@pytest.mark.parametrize("name", ["binary images", "hidden", "duplicates", "logits"])
def test_tiles_of_any_size_give_the_same_bits(name, tile):
    """A tile smaller than k, one cut short, a single one: the result does not depend on tiles."""
    features = FEATURES[name][:120]
    whole, rows = nearest(features, K)
    tiled, tiled_rows = nearest(features, K, tile=tile)
    assert (tiled_rows == rows).all()
    assert (tiled == whole).all()


@pytest.mark.parametrize("name", ["hidden", "offset", "softmax"])
def test_neighbors_follow_their_examples(name):
    """Permuting the examples permutes the neighbours, where no two distances are equal."""
    order = np.random.default_rng(1).permutation(N)
    _, rows = nearest(FEATURES[name], K, exclude_self=True)
    _, moved = nearest(FEATURES[name][order], K, exclude_self=True)
    np.testing.assert_array_equal(order[moved], rows[order])


def test_classes_in_order_give_the_same_neighbors():
    """Folders are read class by class: the last tile may hold all neighbours of a query."""
    features = FEATURES["hidden"] + 3 * np.repeat(np.eye(8, 256), N // 8, axis=0).astype(np.float32)
    np.testing.assert_array_equal(nearest(features, K, tile=50)[1], brute(features, K)[1])


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("name", ["hidden", "offset", "wide scale", "binary images"])
def test_the_bound_on_rounding_holds(name, precision):
    """The answer is exact because candidates are kept up to this bound; errors must stay well below it."""
    rows = torch.from_numpy(plain(FEATURES[name])).float()
    rows -= rows.double().mean(dim=0).float()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        if precision == "medium" and not _medium_is_exact():
            pytest.skip("medium rounds to bfloat16 on this machine and is not taken")
        result = torch.addmm(rows.square().sum(dim=1), rows, rows.T, alpha=-2)
    finally:
        torch.set_float32_matmul_precision(before)
    exact = rows.double()
    exact = torch.addmm(exact.square().sum(dim=1), exact, exact.T, alpha=-2)
    size = rows.square().sum(dim=1)
    assert float(((result - exact).abs() / (knn._error(rows.shape[1]) * (size[:, None] + size.max()))).max()) < 0.5


@every_kind
def test_a_stream_gives_the_same_bits(name, monkeypatch):
    """Layers that do not fit are computed again where they are read; that must be invisible."""
    rows = torch.from_numpy(FEATURES[name]).flatten(1)
    monkeypatch.setattr(knn, "HELD", rows[:90].numel() * rows.element_size())
    read = []

    def part(low, high):
        read.append(high - low)
        return rows[low:high].clone()

    streamed = nearest(Stream(N, part), K, exclude_self=True, tile=64)
    held = nearest(rows, K, exclude_self=True)
    np.testing.assert_array_equal(streamed, held)
    assert max(read) <= 90


def test_no_matrix_of_all_pairs_is_held():
    """60,000 squared would be 14 GB; here 4000 squared would be 64 MB, and the answer is 2 MB."""
    features = np.random.default_rng(0).normal(size=(4000, 40)).astype(np.float32)
    biggest = []

    def watched(product):
        def multiply(*given, **options):
            biggest.append(given[-2].shape[0] * given[-1].shape[1])
            return product(*given, **options)

        return multiply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn.native, "library", lambda: None)
        patch.setattr(torch, "addmm", watched(torch.addmm))
        tracemalloc.start()
        nearest(features, K, tile=512)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(biggest) == 1024 * 512
    assert peak < 20 * 2**20


def counted_parts(monkeypatch):
    """How many rows each part had that was made."""
    parts, make = [], knn_native.Form.part

    def part(form, rows, *given):
        parts.append(len(rows))
        return make(form, rows, *given)

    monkeypatch.setattr(knn_native.Form, "part", part)
    return parts


@needs_compiler
@pytest.mark.parametrize("bytes_held", [1, 2**30])
def test_parts_that_do_not_fit_are_made_again(bytes_held, monkeypatch):
    """Converted rows of all tiles would be more than the features themselves; the answer must not know."""
    features = FEATURES["hidden"]
    _, expected = nearest(features, K)
    parts = counted_parts(monkeypatch)
    monkeypatch.setattr(knn_native, "PARTS_BYTES", bytes_held)
    _, rows = nearest(features, K, tile=100)
    np.testing.assert_array_equal(rows, expected)
    assert (len(parts) == 4) == (bytes_held > 1)
    assert max(parts) == 100


@needs_compiler
@every_kind
@pytest.mark.parametrize("form", ["floats", "halves"])
def test_every_form_of_products_gives_the_same_neighbors(name, form, monkeypatch):
    """bfloat16 is taken where it is fast; where its bounds are of no use it must be slow, and right."""
    if form == "halves" and not native.library().study_has_bfloat16():
        pytest.skip("no bfloat16 instructions here")
    monkeypatch.setattr(knn_native, "_separates", lambda *given: form == "halves")
    monkeypatch.setattr(knn_native, "WIDEST", 0)  # no whole numbers
    features, rest = FEATURES[name], FEATURES[name][:150]
    np.testing.assert_array_equal(nearest(features, K, tile=150)[1], brute(features, K)[1])
    np.testing.assert_array_equal(nearest(features, K, queries=rest, tile=90)[1], brute(features, K, rest)[1])


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("name", ["images", "binary images", "hidden", "duplicates", "logits"])
@pytest.mark.parametrize("n", [2, 7, 400])
def test_any_number_of_threads_gives_the_same_bits(n, name, threads):
    """Threads share lists that both sides of a product go to; there may be more threads than rows."""
    features, k = FEATURES[name][:n], min(n, K)
    expected = nearest(features, k, tile=150)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = nearest(features, k, tile=150)
        queried = nearest(features, k, queries=features.copy(), tile=150)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(queried, expected)


@needs_compiler
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-12, 1e25])
@pytest.mark.parametrize("form", ["floats", "halves"])
def test_features_of_any_scale_have_their_neighbors(scale, form, monkeypatch):
    """Squares of float32 end at 1e-38 and 1e38; what cannot be bounded must be measured."""
    if form == "halves" and not native.library().study_has_bfloat16():
        pytest.skip("no bfloat16 instructions here")
    monkeypatch.setattr(knn_native, "_separates", lambda *given: form == "halves")
    features = (FEATURES["hidden"] * np.float32(scale)).astype(np.float32)
    np.testing.assert_array_equal(nearest(features, K)[1], brute(features, K)[1])


@pytest.mark.parametrize("form", ["floats", "halves"])
@pytest.mark.parametrize("rows", ["random", "alike", "one large number", "wide scale"])
def test_margins_hold_what_rounding_can_do(form, rows):
    """Half a squared distance is never below size + size - product, of rounded words summed one after the other."""
    rng, width = np.random.default_rng(0), 4096
    parts = {
        "random": rng.normal(size=(20, width)),
        "alike": np.repeat(rng.normal(size=(20, 1)), width, axis=1),  # each sum is rounded the same way
        "one large number": rng.normal(size=(20, width)) + 1e4 * np.eye(20, width),
        "wide scale": np.exp(3 * rng.normal(size=(20, width))),
    }[rows]
    parts = torch.from_numpy(parts).float()
    part = knn_native.Form(form, width, torch.zeros(width)).part(
        parts, torch.arange(20), torch.ones(20, dtype=torch.bool), 0
    )
    words, sizes = part.held[0][:20, :width].float().numpy(), part.held[1][0].numpy()
    products = (words[:, None] * words[None]).cumsum(axis=2, dtype=np.float32)[:, :, -1]
    bounds = sizes[:, None] + sizes - products
    half = np.square(plain(parts.numpy())[:, None] - plain(parts.numpy())).sum(axis=2) / 2
    assert (bounds <= half).all()
    assert np.median(half - bounds) < 0.02 * np.median(half)


@needs_compiler
def test_bfloat16_is_taken_where_it_tells_rows_apart():
    """Twice the speed, unless classes have collapsed: then nearly all of a class would be measured."""
    if not native.library().study_has_bfloat16():
        pytest.skip("no bfloat16 instructions here")
    rng = np.random.default_rng(0)
    apart = torch.from_numpy(rng.normal(size=(2000, 256))).float()
    collapsed = torch.from_numpy(np.eye(256)[rng.integers(10, size=2000)]).float() + 0.001 * apart
    kinds = [knn_native.form_of(rows, rows.dtype, K, 2000, rows.mean(dim=0)).kind for rows in (apart, collapsed)]
    assert kinds == ["halves", "floats"]


@needs_compiler
def test_each_pair_of_parts_is_compared_once(monkeypatch):
    """Where the features are the queries, a product serves both sides: half of the work."""
    pairs, each_other = [], knn_native.Lists.each_other

    def watched(lists, left, right):
        pairs.append((left.structure.first, right.structure.first))
        each_other(lists, left, right)

    monkeypatch.setattr(knn_native.Lists, "each_other", watched)
    features = FEATURES["hidden"]
    among_themselves, queried = nearest(features, K, tile=100), nearest(features, K, queries=features, tile=100)
    np.testing.assert_array_equal(among_themselves, queried)
    assert len(pairs) == 2 * 10
    assert len(set(pairs)) == 10


def test_wide_rows_are_searched_in_narrow_tiles():
    """Feature maps have 65,536 numbers an example; 8192 of these would be 2 GiB."""
    searched = knn._Field(Stream(5, lambda low, high: torch.ones(high - low, 65_536)), 1, knn.TILE)
    assert searched.tile * 65_536 * 4 <= 2**28


def test_the_callers_features_are_left_as_they_were():
    """Rows are centred; the network's own features must not be, nor read-only ones be warned of."""
    features = FEATURES["offset"].copy()
    features.setflags(write=False)
    nearest(features, K)
    np.testing.assert_array_equal(features, FEATURES["offset"])


@pytest.mark.parametrize(("k", "exclude_self"), [(0, False), (401, False), (400, True)])
def test_more_neighbors_than_there_are_are_refused(k, exclude_self):
    """One line, before an hour of work."""
    with pytest.raises(DataError, match=f"{k} neighbours cannot be found among"):
        nearest(FEATURES["hidden"], k, exclude_self=exclude_self)


def test_self_is_excluded_only_from_the_features_themselves():
    """Queries of their own have rows that mean other examples."""
    with pytest.raises(ValueError, match="no self"):
        nearest(FEATURES["hidden"], 3, queries=FEATURES["hidden"], exclude_self=True)


@pytest.mark.parametrize("name", ["hidden", "logits"])
def test_features_that_are_not_finite_are_refused(name):
    """A NaN has no neighbours; half precision may overflow."""
    features = FEATURES[name].copy()
    features[7, 3] = np.nan
    with pytest.raises(DataError, match="row 7 is not finite"):
        nearest(features, 3)
    with pytest.raises(DataError, match="row 7 is not finite"):
        nearest(FEATURES[name], 3, queries=features)


def test_progress_rises_to_one_and_may_end_the_work():
    """Minutes of work need a bar, and SIGTERM means seconds."""
    seen = []
    nearest(FEATURES["hidden"], 3, tile=100, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) >= 8

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nearest(FEATURES["hidden"], 3, progress=stop)


def test_votes_are_counted_by_class():
    """Three neighbours of the first query are of class 1, 1, 0."""
    counted = votes(np.array([[0, 2, 3], [3, 1, 3]]), np.array([1, 2, 1, 0]), 3)
    assert counted.tolist() == [[1, 2, 0], [2, 0, 1]]


@pytest.mark.parametrize("name", ["images", "hidden", "offset", "logits", "duplicates"])
def test_local_outlier_factors_equal_sklearns(name):
    """Breunig's definitions 3 to 7, and heaps of copies as scikit-learn has them."""
    features = plain(FEATURES[name])
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    reference = LocalOutlierFactor(n_neighbors=20, metric="precomputed").fit(distance)
    scores = local_outlier_factor(*reachability(*nearest(FEATURES[name], 20, exclude_self=True)))
    np.testing.assert_allclose(scores, -reference.negative_outlier_factor_, rtol=1e-6)


def test_an_outlier_has_a_high_factor():
    """By hand: 0, 1, 2, 3 on a line and 13, k = 1: reachabilities 1, density of the last 1 / 10."""
    line = np.array([[0.0], [1], [2], [3], [13]])
    scores = local_outlier_factor(*reachability(*nearest(line, 1, exclude_self=True)))
    np.testing.assert_allclose(scores, [1, 1, 1, 1, 10], rtol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_kind
def test_a_gpu_gives_the_same_neighbors(name):
    """TF32 products would miss some."""
    np.testing.assert_array_equal(nearest(FEATURES[name], K, device="cuda")[1], brute(FEATURES[name], K)[1])


@pytest.mark.parametrize("name", ["images", "hidden", "duplicates", "softmax"])
def test_without_a_compiler_the_neighbors_are_the_same(name, monkeypatch):
    distance, rows = nearest(FEATURES[name], K, exclude_self=True)
    monkeypatch.setattr(knn.native, "library", lambda: None)
    plain_distance, plain_rows = nearest(FEATURES[name], K, exclude_self=True)
    np.testing.assert_array_equal(rows, plain_rows)
    np.testing.assert_allclose(distance, plain_distance, rtol=1e-14)
