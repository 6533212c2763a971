"""Kernel sums and mean distances in tiles, against float64 and other libraries."""

import threading

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel

from study.errors import DataError
from study.kernels import kde, native

RNG = np.random.default_rng(0)
N, CLASSES = 300, 4
LABELS = RNG.integers(CLASSES, size=N)
FEATURES = {
    "images": RNG.integers(0, 256, size=(N, 1, 8, 8), dtype=np.uint8),
    "hidden": np.maximum(RNG.normal(size=(N, 256)), 0).astype(np.float32),
    "offset": (RNG.normal(size=(N, 64)) + 100).astype(np.float32),
    "logits": (10 * RNG.normal(size=(N, 10))).astype(np.float32),
    "softmax": np.exp(5 * RNG.normal(size=(N, 10))).astype(np.float32),
}
FEATURES["softmax"] /= FEATURES["softmax"].sum(axis=1, keepdims=True)
SETTINGS = {"tile": 128}  # three rows of tiles, the last one cut short


def plain(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(features), -1).astype(np.float64)


def naive_sums(features: np.ndarray, bandwidth: float) -> np.ndarray:
    """(n, c) by the formula, in float64, with all distances in memory."""
    kernel = np.exp(-(cdist(plain(features), plain(features)) ** 2) / bandwidth**2)
    return kernel @ np.eye(CLASSES)[LABELS] / N


@pytest.mark.parametrize("name", FEATURES)
def test_sums_equal_float64(name):
    """Float32 in tiles must rank as float64 does; 2e-6 is what centring and true float32 products give."""
    sums, bandwidth = kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(sums, naive_sums(FEATURES[name], bandwidth), rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("name", FEATURES)
def test_bandwidth_is_half_the_mean_distance(name):
    """One per cent more bandwidth already moves the ranking; the factor and the mean are the paper's."""
    _, bandwidth = kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, **SETTINGS)
    assert bandwidth == pytest.approx(pdist(plain(FEATURES[name])).mean() / 2, rel=2e-6)


@pytest.mark.parametrize("name", FEATURES)
def test_sums_are_the_same_without_a_compiler(monkeypatch, name):
    """A machine without one must not rank examples otherwise."""
    sums, bandwidth = kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, **SETTINGS)
    monkeypatch.setattr(native, "library", lambda: None)
    torchs, same = kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(sums, torchs, rtol=2e-6, atol=1e-12)
    assert bandwidth == pytest.approx(same, rel=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("width", [1, 32, 33, 515, 2117])
def test_any_width_is_compared_whole(kind, width):
    """Rows are read in words and vectors, and wide ones piece by piece; no end of one may be lost, or read twice."""
    features = RNG.integers(0, 256, size=(N, width)).astype(kind)
    sums, bandwidth = kde.class_kernel_sums(features, LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(sums, naive_sums(features, bandwidth), rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("n", [2, 15, 17, 193, 300])
def test_a_single_class_has_the_whole_density(n):
    """Every pair counts under one label; numbers of examples that no vector or block divides are cut off right."""
    features = FEATURES["hidden"][:n]
    sums, bandwidth = kde.class_kernel_sums(features, np.zeros(n, int), 1)
    kernel = np.exp(-(cdist(plain(features), plain(features)) ** 2) / bandwidth**2)
    np.testing.assert_allclose(sums[:, 0], kernel.mean(axis=1), rtol=2e-6)


@pytest.mark.parametrize("name", ["images", "hidden"])
def test_sums_have_the_same_bits_for_any_number_of_threads(name):
    """Examples that nearly tie must not change places from run to run, or from machine to machine."""
    threads, counts = torch.get_num_threads(), []
    try:
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            counts.append(kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, tile=32)[0])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all((each == counts[0]).all() for each in counts)


@pytest.mark.parametrize("name", FEATURES)
def test_permuting_the_examples_permutes_their_sums(name):
    """An example's density does not depend on where it stands."""
    order = RNG.permutation(N)
    sums, _ = kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, bandwidth=FEATURES[name].std() * 8)
    moved, _ = kde.class_kernel_sums(FEATURES[name][order], LABELS[order], CLASSES, bandwidth=FEATURES[name].std() * 8)
    np.testing.assert_allclose(moved, sums[order], rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("name", FEATURES)
def test_far_pairs_add_nothing(name):
    """A tiny bandwidth takes 2^x below the range of a float; what is left is the example itself, not a NaN."""
    features = np.unique(plain(FEATURES[name]), axis=0).astype(FEATURES[name].dtype)
    sums, _ = kde.class_kernel_sums(features, np.arange(len(features)) % 3, 3, bandwidth=1e-6)
    np.testing.assert_array_equal(sums, np.eye(3)[np.arange(len(features)) % 3] / len(features))


def test_total_density_equals_sklearn():
    """An independent implementation of the kernel: gamma is 1 / h^2, not 1 / (2 h^2)."""
    sums, bandwidth = kde.class_kernel_sums(FEATURES["hidden"], LABELS, CLASSES, **SETTINGS)
    total = rbf_kernel(plain(FEATURES["hidden"]), gamma=1 / bandwidth**2).mean(axis=1)
    np.testing.assert_allclose(sums.sum(axis=1), total, rtol=2e-6)


@pytest.mark.parametrize("name", FEATURES)
def test_the_callers_features_are_left_as_they_were(name):
    """Rows are centred in place where they are copies; the network's own features must not be."""
    features = FEATURES[name].copy()
    kde.class_kernel_sums(features, LABELS, CLASSES, **SETTINGS)
    np.testing.assert_array_equal(features, FEATURES[name])


@pytest.mark.parametrize("tile", [1, 7, 299, 300, 4096])
def test_tiles_of_any_size_give_the_same_sums(tile):
    """Cut-off tiles and a single tile are where symmetric blocking goes wrong."""
    features, labels = FEATURES["offset"][:60], LABELS[:60]
    whole, _ = kde.class_kernel_sums(features, labels, CLASSES, bandwidth=5.0)
    tiled, _ = kde.class_kernel_sums(features, labels, CLASSES, bandwidth=5.0, tile=tile)
    np.testing.assert_allclose(tiled, whole, rtol=2e-6)


def test_rows_converted_tile_by_tile_give_the_same_sums(monkeypatch):
    """Large data sets are not converted at once; that must be invisible."""
    whole = kde.class_kernel_sums(FEATURES["images"], LABELS, CLASSES, **SETTINGS)
    monkeypatch.setattr(kde, "WHOLE", 0)
    parts = kde.class_kernel_sums(FEATURES["images"], LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-6)


@pytest.mark.parametrize("whole_numbers", [True, False])
def test_pixels_at_the_ends_of_their_range_are_compared_exactly(monkeypatch, whole_numbers):
    """Products of int8 overflow in silence on some processors; black, white and one pixel's difference must survive."""
    if whole_numbers and not kde._multiplies_integers():
        pytest.skip("this processor multiplies float32 as fast")
    monkeypatch.setattr(kde, "_multiplies_integers", lambda: whole_numbers)
    images = RNG.choice(np.array([0, 255], dtype=np.uint8), size=(N, 3, 9, 9))
    images[:100], images[100:200] = 0, 255
    images[::2, 0, 0, 0] ^= 1
    sums, bandwidth = kde.class_kernel_sums(images, LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(sums, naive_sums(images, bandwidth), rtol=2e-6, atol=1e-12)


def test_many_classes_in_any_order_are_summed_apart():
    """Tiles are summed class by class; a class may have one example, or none, and span two tiles."""
    labels = RNG.permutation(np.r_[np.full(150, 7), np.arange(150) + 20])
    sums, bandwidth = kde.class_kernel_sums(FEATURES["hidden"], labels, 200, **SETTINGS)
    kernel = np.exp(-(cdist(plain(FEATURES["hidden"]), plain(FEATURES["hidden"])) ** 2) / bandwidth**2)
    np.testing.assert_allclose(sums, kernel @ np.eye(200)[labels] / N, rtol=2e-6, atol=1e-12)


def test_an_example_is_its_own_neighbour_exactly():
    """Eq. 3 to 5 sum over all examples, the example included: a lone one gets 1 / N, not 0.99 / N."""
    features = np.eye(40, dtype=np.float32) * 1e4
    sums, _ = kde.class_kernel_sums(features, np.arange(40) % 2, 2, bandwidth=1.0)
    np.testing.assert_array_equal(sums.max(axis=1), 1 / 40)


def test_scale_of_the_features_does_not_matter():
    """Pixels 0..255 and 0..1 are the same images."""
    images = FEATURES["images"]
    raw, bandwidth = kde.class_kernel_sums(images, LABELS, CLASSES, **SETTINGS)
    unit, small = kde.class_kernel_sums(images.astype(np.float32) / 255, LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(unit, raw, rtol=4e-6)
    assert bandwidth / small == pytest.approx(255, rel=1e-6)


def test_sampled_pairs_estimate_the_mean_distance(monkeypatch):
    """Beyond 20,000 examples a million pairs stand for all: 1.5e-4 on real data, less than a ranking notices."""
    exact = kde.mean_distance(FEATURES["offset"])
    monkeypatch.setattr(kde, "EXACT", 10)
    monkeypatch.setattr(kde, "SAMPLED", 100_000)
    sampled = kde.mean_distance(FEATURES["offset"])
    assert sampled == pytest.approx(exact, rel=2e-3)
    assert sampled == kde.mean_distance(FEATURES["offset"])


def test_sampled_pairs_are_of_different_examples(monkeypatch):
    """Among two examples every pair is the same; a pair of an example with itself would halve the mean."""
    monkeypatch.setattr(kde, "EXACT", 1)
    assert kde.mean_distance(np.array([[0.0, 0.0], [3.0, 4.0]])) == 5


def test_torch_features_are_accepted_with_their_gradient():
    """Hidden layers come straight from a network."""
    features = torch.from_numpy(FEATURES["hidden"]).requires_grad_()
    sums, _ = kde.class_kernel_sums(features, LABELS, CLASSES, **SETTINGS)
    same, _ = kde.class_kernel_sums(FEATURES["hidden"], LABELS, CLASSES, **SETTINGS)
    np.testing.assert_allclose(sums, same, rtol=1e-6)


@pytest.mark.parametrize("make", [np.zeros, lambda shape: np.full(shape, 0.1)], ids=["zero", "a tenth"])
def test_identical_features_are_refused(make):
    """A collapsed network has no distances; rounding would invent some."""
    with pytest.raises(DataError, match="all 50 feature vectors are the same"):
        kde.class_kernel_sums(make((50, 40)), np.arange(50) % 2, 2)


def test_features_that_are_not_finite_are_refused():
    """One NaN would spread over every sum."""
    features = FEATURES["hidden"].copy()
    features[[7, 9], 3] = np.nan, np.inf
    with pytest.raises(DataError, match="2 of 300 feature vectors are not finite, the first in row 7"):
        kde.class_kernel_sums(features, LABELS, CLASSES)


def test_duplicates_among_others_are_fine():
    """Real data has exact copies; their distance is 0, not the square root of a rounding error below 0."""
    features = np.repeat(FEATURES["hidden"][:20], 3, axis=0)
    sums, bandwidth = kde.class_kernel_sums(features, np.zeros(60, int), 1)
    kernel = np.exp(-(cdist(plain(features), plain(features)) ** 2) / bandwidth**2)
    np.testing.assert_allclose(sums[:, 0], kernel.mean(axis=1), rtol=2e-6)


@pytest.mark.parametrize("labels", [LABELS[:-1], LABELS + 1, LABELS - 1])
def test_labels_that_do_not_fit_are_refused(labels):
    """A shifted label would count for the class beside it."""
    with pytest.raises(ValueError, match="labels must be 300 classes from 0 to 3"):
        kde.class_kernel_sums(FEATURES["hidden"], labels, CLASSES)


def test_an_end_from_outside_ends_the_threads():
    """A run is stopped by an exception of `progress`; what nobody waits for must not go on."""

    def stop(share):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        kde.class_kernel_sums(FEATURES["hidden"], LABELS, CLASSES, bandwidth=9.0, tile=8, progress=stop)
    assert threading.active_count() == before


def test_progress_rises_to_one():
    """An hour on ImageNet needs a bar that ends when the work does."""
    seen = []
    kde.class_kernel_sums(FEATURES["hidden"], LABELS, CLASSES, bandwidth=9.0, progress=seen.append, **SETTINGS)
    assert seen == pytest.approx([3 / 6, 5 / 6, 1])


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_callers_matmul_precision_is_restored(precision):
    """The setting is the whole process's; a score must not change how the next network trains."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        kde.class_kernel_sums(FEATURES["hidden"], LABELS, CLASSES)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FEATURES)
def test_a_gpu_gives_the_same_sums(name):
    """TF32 products would be off by 1e-3; they must not be taken."""
    sums, bandwidth = kde.class_kernel_sums(FEATURES[name], LABELS, CLASSES, device="cuda")
    np.testing.assert_allclose(sums, naive_sums(FEATURES[name], bandwidth), rtol=3e-6, atol=1e-12)
