"""Per-example gradients: exact norms, exact Gram matrices, sketches and the densities on them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gradient_toys import images_of, toy_checkpoint
from loops import Member, fit
from scipy.spatial.distance import cdist, pdist
from torch.nn import functional
from toys import blobs, toy_recipe

from study.errors import DataError, RecipeError
from study.kernels import gradient_kde
from study.kernels.gradient_kde import Factor, gradient_class_sums, mean_gradient_distance
from study.models.build import stackable
from study.proxies import PROXIES, compute, gradient
from study.signals import Collector, derivatives, gradient_sketches, wanted, weight_gradients
from study.training.placement import place
from study.training.results import Hooks

both_networks = pytest.mark.parametrize("kind", ["mlp", "conv"])


def trained(network):
    return [weight for weight in network.parameters() if weight.requires_grad]


def written_out(checkpoint, n, value):
    """(n, p) gradients of value(logits, label) with respect to all trained weights, one example at a time."""
    network, rows = checkpoint.snapshot.network(), []
    for image, label in images_of(checkpoint)[:n]:
        gradients = torch.autograd.grad(value(network(image), label), trained(network))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]).numpy())
    return np.stack(rows)


def loss_gradients(checkpoint, n=40):
    return written_out(checkpoint, n, functional.cross_entropy)


def tangents(checkpoint, n=40):
    """(c, n, p): the gradient of every logit."""
    classes = checkpoint.dataset.n_classes
    return np.stack([written_out(checkpoint, n, lambda logits, label, k=k: logits[0, k]) for k in range(classes)])


def sums_by_hand(squared, labels, classes):
    """exp(-d^2 / h^2) over N by class, h half the mean distance of different examples, all n x n of it."""
    distance = np.sqrt(squared)
    bandwidth = 0.5 * distance.sum() / (len(labels) * (len(labels) - 1))
    return np.exp(-squared / bandwidth**2) @ np.eye(classes)[labels] / len(labels), bandwidth


@both_networks
def test_grand_is_the_norm_of_the_whole_gradient(kind):
    """Several tools take the last layer alone and call it GraNd; weights that are not trained do not count."""
    checkpoint = toy_checkpoint(kind)
    expected = np.linalg.norm(loss_gradients(checkpoint), axis=1)
    np.testing.assert_allclose(weight_gradients.gradient_norms(checkpoint), expected, rtol=1e-9)
    np.testing.assert_allclose(weight_gradients.gradient_norms_first(checkpoint), expected, rtol=1e-9)


def test_outer_products_agree_with_gradients_written_out(monkeypatch):
    """The short way of MLPs and the way of all other networks are one score."""
    checkpoint = toy_checkpoint("mlp")
    short = weight_gradients.gradient_norms(checkpoint)
    monkeypatch.setattr(derivatives.Frozen, "layers", lambda self: None)
    np.testing.assert_allclose(weight_gradients.gradient_norms(checkpoint), short, rtol=1e-9)


def test_dropout_is_off_and_the_short_way_still_holds():
    """An MLP with dropout is an MLP in evaluation mode."""
    from study.models.mlp import DropoutMLP

    checkpoint = toy_checkpoint("mlp")
    plain = checkpoint.snapshot.network()
    network = DropoutMLP(checkpoint.dataset.shape, 3, (16, 8), 0.5).double().eval()
    network.load_state_dict(plain.state_dict())
    expected = weight_gradients.gradient_norms(checkpoint)
    checkpoint.snapshot.network = lambda: network
    assert derivatives.Frozen(checkpoint).layers() is not None
    np.testing.assert_allclose(weight_gradients.gradient_norms(checkpoint), expected, rtol=1e-12)


def test_float32_scores_agree_with_float64():
    """Networks train in float32; the ranking must not hang on it."""
    single, double = (
        weight_gradients.gradient_norms(toy_checkpoint("conv", dtype=d)) for d in (torch.float32, torch.float64)
    )
    np.testing.assert_allclose(single, double, rtol=1e-3)


def random_factors(n=23, bias=True, dtype=torch.float64):
    rng = torch.Generator().manual_seed(1)
    sizes = ((5, 4), (40, 3))
    return [
        Factor(torch.randn(n, a, generator=rng, dtype=dtype), torch.randn(n, b, generator=rng, dtype=dtype), bias)
        for a, b in sizes
    ]


def outer(factors):
    """(n, p) gradients of the factors, written out."""
    blocks = []
    for inputs, gradients, bias in factors:
        extended = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1) if bias else inputs
        blocks.append(torch.einsum("nb,na->nba", gradients, extended).flatten(1))
    return torch.cat(blocks, dim=1).numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tile", [1, 7, 1024])
def test_kernel_sums_on_factors_equal_those_on_outer_products(bias, tile):
    """Two small products per tile in place of all weights, whatever the size of a tile."""
    factors, labels = random_factors(bias=bias), np.arange(23) % 3
    squared = cdist(outer(factors), outer(factors), "sqeuclidean")
    expected, bandwidth = sums_by_hand(squared, labels, 3)
    sums, rows = gradient_class_sums(factors, torch.from_numpy(labels), 3, tile=tile)
    assert rows == pytest.approx(bandwidth, rel=1e-9)
    np.testing.assert_allclose(sums, expected, rtol=1e-9)


def test_sampled_distances_come_near_those_of_all_pairs(monkeypatch):
    """Beyond 20,000 examples a million pairs set the bandwidth; 1e-2 of it moves a ranking to Spearman .9998."""
    factors = random_factors(60)
    assert mean_gradient_distance(factors) == pytest.approx(pdist(outer(factors)).mean(), rel=1e-9)
    monkeypatch.setattr(gradient_kde, "EXACT", 10)
    assert mean_gradient_distance(factors) == pytest.approx(pdist(outer(factors)).mean(), rel=3e-3)


def test_densities_just_below_one_do_not_tie():
    """Late in training nearly all gradients are next to 0; float32 kernels of them are all exactly 1."""
    features = torch.zeros(200, 2)
    features[:, 0] = torch.linspace(0, 1e-4, 200)
    features[199, 0] = 1000.0
    sums, _ = gradient_class_sums([Factor(features)], torch.zeros(200, dtype=torch.int64), 1)
    assert len(np.unique(sums[:199])) > 90


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 2), "two examples"),
        (torch.ones(5, 2), "all 5 gradients"),
        (torch.full((3, 2), torch.nan), "3 of 3"),
    ],
)
def test_gradients_without_distances_are_refused(features, message):
    """One line that says what to do, not a table of NaN."""
    with pytest.raises(DataError, match=message):
        gradient_class_sums([Factor(features)], torch.zeros(len(features), dtype=torch.int64), 1)


@both_networks
def test_last_layer_density_equals_that_of_gradients_written_out(kind):
    """Appendix C on the classifier's weights and biases, n x n kernels of explicit gradients."""
    checkpoint = toy_checkpoint(kind)
    last = checkpoint.snapshot.network().get_classifier()
    size = last.weight.numel() + last.bias.numel()
    gradients = loss_gradients(checkpoint)[:, -size:]
    labels = checkpoint.dataset.labels[:40]
    expected, bandwidth = sums_by_hand(cdist(gradients, gradients, "sqeuclidean"), labels, 3)
    np.testing.assert_allclose(weight_gradients.last_layer_gradient_density(checkpoint), expected, rtol=1e-7)
    assert checkpoint.memory["metrics"][1]["density/bandwidth_gradient_last_layer"] == pytest.approx(bandwidth)


def test_exact_density_of_an_mlp_equals_that_of_gradients_written_out():
    """All layers, nothing sketched: dimension 0."""
    checkpoint = toy_checkpoint("mlp")
    gradients = loss_gradients(checkpoint)
    expected, _ = sums_by_hand(cdist(gradients, gradients, "sqeuclidean"), checkpoint.dataset.labels[:40], 3)
    np.testing.assert_allclose(weight_gradients.gradient_density(checkpoint, dimension=0), expected, rtol=1e-7)


def sketched(checkpoint, dimension, gradients, seed=0):
    def stream(*words):
        return checkpoint.stream(*words, seed)

    return gradient_sketches.sketches(derivatives.Frozen(checkpoint), 40, gradients, dimension, stream).numpy()


def errors(checkpoint, exact, gradients, dimension, draws):
    """Errors of sketched inner products in units of |g| |g'|, (draws, n, n)."""
    scale = np.sqrt(np.diag(exact))
    sketches = [sketched(checkpoint, dimension, gradients, seed) for seed in range(draws)]
    return np.stack([(sketch @ sketch.T - exact) / np.outer(scale, scale) for sketch in sketches])


@both_networks
def test_sketches_keep_inner_products_within_the_stated_error(kind):
    """Unbiased; standard deviation sqrt(2 / k), for products sqrt(8 / k) at most; against the exact Gram matrix."""
    checkpoint = toy_checkpoint(kind)
    gradients = loss_gradients(checkpoint)
    error = errors(checkpoint, gradients @ gradients.T, weight_gradients._loss, 256, 100)
    bound = np.sqrt((8 if kind == "mlp" else 2) / 256)
    assert np.sqrt((error**2).mean()) < 1.1 * bound
    assert abs(error.mean(axis=0)).max() < 5 * bound / np.sqrt(100)


@both_networks
def test_tangent_sketches_sum_the_kernel_over_the_classes(kind):
    """The trace of the empirical NTK, sum over k of <grad z_k(x), grad z_k(x')>, and no terms between classes."""
    checkpoint = toy_checkpoint(kind)
    gradients = tangents(checkpoint)
    exact = np.einsum("cnp,cmp->nm", gradients, gradients)
    error = errors(checkpoint, exact, weight_gradients._each_logit, 256, 100)
    bound = np.sqrt((8 if kind == "mlp" else 2) / 256)
    assert np.sqrt((error**2).mean()) < 1.1 * bound
    assert abs(error.mean(axis=0)).max() < 5 * bound / np.sqrt(100)


@both_networks
@pytest.mark.parametrize("probes", [1, 2, 3, 9])
def test_probes_estimate_the_trace_of_the_kernel_with_the_stated_variance(kind, probes):
    """Against the exact Gram matrix, without a sketch; three groups of three classes are exact."""
    checkpoint, rng = toy_checkpoint(kind), np.random.default_rng(0)
    gradients = tangents(checkpoint, 12)
    exact = np.einsum("cnp,cmp->nm", gradients, gradients)
    block = np.einsum("cnp,dmp->nmcd", gradients, gradients)
    computed, expected = [], []
    for _ in range(400):
        streams = SimpleNamespace(stream=lambda *words: rng, dataset=checkpoint.dataset)
        signs = weight_gradients.signed_logits(streams, probes)(torch.zeros(1, 3, dtype=torch.float64), None)[
            :, 0
        ].numpy()
        features = np.einsum("sc,cnp->snp", signs, gradients)
        computed.append(np.einsum("snp,smp->nm", features, features))
        together = (np.abs(signs).T @ np.abs(signs) > 0) & ~np.eye(3, dtype=bool)
        expected.append(2 * ((block + block.swapaxes(2, 3)) ** 2 / 4 * together).sum(axis=(2, 3)))
    variance = np.mean(expected, axis=0)
    assert (np.abs(np.mean(computed, axis=0) - exact) <= 5 * np.sqrt(variance / 400) + 1e-9).all()
    assert np.mean((computed - exact) ** 2) == pytest.approx(variance.mean(), rel=0.25, abs=1e-12)


@both_networks
def test_sketched_densities_rank_as_exact_ones(kind):
    """What a sketch is for: the same examples at either end."""
    checkpoint = toy_checkpoint(kind, blobs(40, 10, seed=2), steps=12)
    gradients = loss_gradients(checkpoint)
    expected, _ = sums_by_hand(cdist(gradients, gradients, "sqeuclidean"), checkpoint.dataset.labels[:40], 3)
    result = weight_gradients.gradient_density(checkpoint, dimension=2048)
    assert np.corrcoef(*(each.sum(axis=1).argsort().argsort() for each in (result, expected)))[0, 1] > 0.97


@both_networks
def test_tangent_densities_rank_as_exact_ones(kind):
    """The density on the empirical NTK that the paper leaves open."""
    checkpoint = toy_checkpoint(kind)
    gradients = tangents(checkpoint).transpose(1, 0, 2).reshape(40, -1)
    labels = checkpoint.dataset.labels[:40]
    expected, _ = sums_by_hand(cdist(gradients, gradients, "sqeuclidean"), labels, 3)
    for function in (weight_gradients.tangent_density_first, weight_gradients.tangent_density_last):
        result = function(checkpoint, dimension=2048, probes=0)
        ranks = [gradient._relative(each, labels).argsort().argsort() for each in (result, expected)]
        assert np.corrcoef(*ranks)[0, 1] > 0.95


@both_networks
def test_sketches_are_the_same_every_time(kind):
    """The stream's names fix them: a score that cannot be computed again cannot be compared."""
    first, second = (weight_gradients.gradient_density(toy_checkpoint(kind), dimension=64) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_buckets_hold_every_weight_once():
    """A weight left out, or in twice, would bend every inner product."""
    checkpoint = toy_checkpoint("conv")
    buckets = gradient_sketches._Buckets(derivatives.Frozen(checkpoint), 16, checkpoint.stream)
    for name, weight in derivatives.Frozen(checkpoint).trained.items():
        places = buckets.places[name]
        assert len(places) % 16 == 0
        assert sorted(places[places < weight.numel()].tolist()) == list(range(weight.numel()))


@pytest.mark.parametrize(("kind", "dimension"), [("conv", 0), ("mlp", -1)])
def test_dimensions_that_cannot_be_are_refused(kind, dimension):
    """Exact gradients are for MLPs; other networks' do not fit."""
    with pytest.raises(RecipeError, match="such as 512"):
        weight_gradients.gradient_density(toy_checkpoint(kind), dimension=dimension)
    with pytest.raises(RecipeError, match="such as 512"):
        weight_gradients.tangent_density_first(toy_checkpoint(kind), dimension=dimension)
    with pytest.raises(RecipeError, match="such as 5"):
        weight_gradients.tangent_density_first(toy_checkpoint(kind), probes=-1)


def test_logits_that_are_not_the_classifiers_are_refused():
    """A network that scales its logits after the classifier has another last-layer gradient."""
    checkpoint = toy_checkpoint("conv")
    network = checkpoint.snapshot.network()
    original = network.forward
    network.forward = lambda images: 2 * original(images)
    with pytest.raises(RecipeError, match="not what its classifier gives"):
        weight_gradients.last_layer_gradient_density(checkpoint)
    assert not network.classifier._forward_pre_hooks.keys() - {next(iter(network.classifier._forward_pre_hooks))}


ASKED = [spec.name for spec in PROXIES.values() if spec.cost == "gradients"]


@pytest.mark.parametrize(
    ("model", "precision"),
    [({"name": "mlp", "settings": {"widths": [16, 8]}}, "bfloat16"), ({"name": "resnet8", "settings": {}}, "float32")],
    ids=["mlp", "resnet8"],
)
def test_a_training_is_the_same_with_all_gradients_taken(model, precision):
    """What looks at a network must not move it; and every proxy comes out of a real training, as a launch takes it."""
    dataset = blobs(40, 10, shape=(1, 8, 8))
    outcomes = []
    for names in ([], ASKED):
        recipe = toy_recipe(
            "single",
            model=model,
            train={"epochs": 2, "batch_size": 16},
            proxies={name: {} for name in names},
            signals={"gradient_density": {"dimension": 64}},
            runtime={"device": "cpu", "precision": precision},
        )
        placement = place(recipe.runtime, stackable=stackable(recipe.model.spec())).alone(wide=False)
        collector = Collector(dataset, wanted(recipe.proxies, dataset) if names else [], recipe, "cpu")
        hooks = Hooks(after_epoch=lambda member, epoch, evaluation, taker=collector: not taker.take(epoch, evaluation))
        outcomes.append(next(fit([Member(("single", 0), np.arange(40))], dataset, recipe, placement, hooks)))
    for plain, watched in zip(*([o.prediction, o.confidence] for o in outcomes), strict=True):
        np.testing.assert_array_equal(plain, watched)
    scores = {spec.name: compute(spec, collector.of(spec)) for spec in collector.specs}
    assert len(scores) >= 11
    assert all(len(np.unique(each)) > 5 for name, each in scores.items() if name != "critical_sample_steps")
    assert {"grand", "adversarial_margin", "gradient_density_last_layer"} <= set(collector.epoch_scores)
    arrays = {
        name for memory in collector.memories.values() for each in memory.get("metrics", {}).values() for name in each
    }
    assert {"sensitivity/gini", "sensitivity/critical_ratio_train", "density/bandwidth_gradient"} <= arrays
