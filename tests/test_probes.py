"""Layers of a network as they are, k-NN probes of each, and densities on any of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loops import Member, fit
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from torch import nn

from study.errors import DataError, RecipeError
from study.kernels.kde import class_kernel_sums
from study.kernels.knn import Stream
from study.models.build import create
from study.models.spec import NetworkSpec
from study.proxies import PROXIES, compute
from study.runs.single import run_singles
from study.signals import activations
from study.signals.activations import Layers, find_layer, layer_names
from study.signals.densities import hidden_density, local_densities
from study.signals.knn_probes import probes
from study.signals.registry import Checkpoint
from study.training.placement import Placement
from study.training.results import Hooks
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

MLP_LAYERS = ("input", "blocks.0", "blocks.1", "softmax")
K = 7


@pytest.fixture(scope="module")
def dataset():
    return blobs()


def trained(dataset, recipe, see):
    """Train one network and show its last look to `see`."""
    last = recipe.train.length(dataset.n_train)[0]

    def after_epoch(member, epoch, evaluation):
        if epoch == last:
            see(Checkpoint(dataset, epoch, evaluation, "cpu", recipe.stream, spec=recipe.model.spec()))

    member = Member(("single", 0), np.arange(dataset.n_train))
    list(
        fit([member], dataset, recipe, Placement("cpu", "float32", "highest", 1, 1, 1), Hooks(after_epoch=after_epoch))
    )


@pytest.fixture(scope="module")
def checkpoint(dataset):
    """The end of a short training of an MLP 16-8; its look stays valid, since nothing trains on."""
    seen = []
    trained(dataset, toy_recipe("single"), seen.append)
    return seen[0]


def fresh(checkpoint, **changed):
    return Checkpoint(**{**vars(checkpoint), "memory": {}, **changed})


@pytest.fixture(scope="module")
def expected(checkpoint):
    """Every layer of the MLP by hand, float64."""
    network = checkpoint.snapshot.network()
    inputs = checkpoint.snapshot.examples.block(0, checkpoint.dataset.n).flatten(1)
    with torch.no_grad():
        first = network.blocks[0](inputs)
        second = network.blocks[1](first.relu())
        layers = (inputs, first, second, torch.softmax(network.classifier(second.relu()).double(), dim=1))
    return {name: rows.numpy() for name, rows in zip(MLP_LAYERS, layers, strict=True)}


# ------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("name", MLP_LAYERS)
def test_layers_are_read_before_their_relu(checkpoint, expected, name):
    """A.5: probes sit after the dense operations; after the ReLU they are less accurate (A.9)."""
    layers = Layers(checkpoint)
    assert layers.names == MLP_LAYERS
    features = layers.features(name).numpy()
    np.testing.assert_allclose(features, expected[name], rtol=1e-5, atol=1e-6)
    if name.startswith("blocks"):
        assert (features < 0).any()


def test_the_softmax_is_float64(checkpoint):
    """In float32 most outputs of a well trained network are 1 and 0, and all their neighbours tie."""
    assert Layers(checkpoint).features("softmax").dtype == torch.float64


def test_rows_have_the_same_bits_however_they_are_read(checkpoint, monkeypatch):
    """Products depend on the batch in their last bits; neighbours are searched in tiles of every size."""
    monkeypatch.setattr(activations, "ROWS", 32)
    layers = Layers(checkpoint)
    whole = layers.features("blocks.1")
    for low, high in ((0, 150), (0, 1), (31, 33), (64, 96), (149, 150), (7, 131)):
        assert (layers.features("blocks.1", low, high) == whole[low:high]).all()


def test_a_layer_that_does_not_fit_comes_as_a_stream(checkpoint, monkeypatch):
    """Feature maps of 65,536 numbers an example are 15 GB for 60,000."""
    held = Layers(checkpoint).features("blocks.0", 120, 150)
    monkeypatch.setattr(activations, "HELD", 0)
    stream = Layers(checkpoint).features("blocks.0", 120, 150)
    assert isinstance(stream, Stream)
    assert stream.n == 30
    assert (stream.read(3, 9) == held[3:9]).all()


def test_reading_leaves_no_hook_behind(checkpoint):
    """The network trains on after a look in the middle of its training."""
    Layers(checkpoint).features("blocks.0")
    Layers(checkpoint).features("penultimate")
    network = checkpoint.snapshot.network()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in network.modules())


class Counting(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, rows):
        self.calls += 1
        return rows


def test_what_follows_a_layer_is_not_computed(checkpoint):
    """Wide layers are early ones and read many times; the rest of the network would be most of the work."""
    layers = Layers(checkpoint)
    after = Counting()
    layers.network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), after)
    assert layers.features("1").shape == (150, 5)
    assert after.calls == 0


def test_a_relu_in_place_does_not_change_what_was_read(dataset):
    """Networks of timm write over a normalization's output."""
    model = NetworkSpec(name="resnet18")
    network = create(model, (1, 32, 32), 3).eval()
    images = torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    examples = SimpleNamespace(n=6, block=lambda low, high: images[low:high])
    evaluation = SimpleNamespace(network=lambda: network, examples=examples)
    sized = SimpleNamespace(shape=(1, 32, 32), n_classes=3)
    layers = Layers(SimpleNamespace(dataset=sized, spec=model, snapshot=evaluation))
    assert layers.names[1] == "bn1"
    with torch.no_grad():
        before_relu = network.bn1(network.conv1(images)).flatten(1)
    np.testing.assert_allclose(layers.features("bn1"), before_relu, atol=1e-4)
    assert float(layers.features("bn1").min()) < 0


@pytest.mark.parametrize(("given", "meant"), [("blocks.1", "blocks.1"), ("2", "blocks.1"), ("-1", "softmax")])
def test_layers_have_names_and_numbers(given, meant):
    """A recipe may say which of them, without knowing what the network calls it."""
    assert find_layer(given, MLP_LAYERS) == meant


@pytest.mark.parametrize("given", ["block.1", "4", "", "classifier"])
def test_an_unknown_layer_is_one_line_with_those_there_are(given):
    """Names of layers are the network's own; nobody knows them by heart."""
    with pytest.raises(RecipeError, match=r"there are input, blocks\.0, blocks\.1, softmax, penultimate") as caught:
        find_layer(given, MLP_LAYERS)
    assert "\n" not in str(caught.value)


def test_convolutional_networks_have_layers_too():
    """B-models: after the convolutions of VGG16."""
    names = layer_names(NetworkSpec("vgg16_small"), (3, 32, 32), 10)
    assert (names[0], names[-1], len(names)) == ("input", "softmax", 15)


# ------------------------------------------------------------------------------------------------------------- probes


def sklearns(expected, dataset, k):
    """(l, n) answers and confidences of scikit-learn's k-NN classifier, which also takes the lowest of tied classes."""
    train = dataset.rows("train")
    predictions, confidences = [], []
    for name in MLP_LAYERS:
        rows = expected[name].astype(np.float64)
        reference = KNeighborsClassifier(k, algorithm="brute").fit(rows[train], dataset.labels[train])
        predictions.append(reference.predict(rows))
        confidences.append(reference.predict_proba(rows)[np.arange(dataset.n), dataset.labels])
    return np.array(predictions), np.array(confidences)


def test_probes_answer_as_sklearns_classifiers(checkpoint, expected, dataset):
    """On every layer, for training and test examples, with neighbours among the training examples alone."""
    result = probes(fresh(checkpoint), k=K)
    predictions, confidences = sklearns(expected, dataset, K)
    assert (result["probe_class"] == predictions).all()
    np.testing.assert_allclose(result["probe_confidence"], confidences, atol=1e-6)
    assert (result["final_class"] == checkpoint.snapshot.outcome().prediction).all()


def test_an_example_is_its_own_neighbor_unless_told(checkpoint):
    """The paper's probes are made of the whole training set; with k = 1 every training example knows itself."""
    labels, train, test = checkpoint.dataset.labels, slice(0, 120), slice(120, 150)
    with_itself, others = (probes(fresh(checkpoint), k=1, own_neighbor=each)["probe_class"] for each in (True, False))
    assert (with_itself[:, train] == labels[train]).all()
    assert (others[0, train] != labels[train]).any()
    assert (with_itself[:, test] == others[:, test]).all()


def test_layers_computed_again_give_the_same_answers(checkpoint, monkeypatch):
    """Memory is bounded by reading a wide layer twice, and that changes no answer."""
    held = probes(fresh(checkpoint), k=K)
    monkeypatch.setattr(activations, "HELD", 0)
    monkeypatch.setattr("study.kernels.knn.HELD", 5000)
    again = probes(fresh(checkpoint), k=K)
    for word, array in held.items():
        assert (again[word] == array).all(), word


def test_the_run_keeps_the_probes(checkpoint):
    """B-fig8 needs the votes for the consensus class, which only an ensemble knows."""
    now = fresh(checkpoint)
    result = probes(now, k=K)
    kept = now.memory["arrays"]
    assert kept["layers"].tolist() == list(MLP_LAYERS)
    assert kept["votes"].shape == (4, 150, 3)
    assert (kept["votes"].sum(axis=2) == K).all()
    assert (kept["votes"].argmax(axis=2) == result["probe_class"]).all()
    lost = result["probe_class"][-1] != result["final_class"]
    logged = now.memory["metrics"][now.epoch]
    assert logged == {"depth/undefined_train": lost[:120].sum(), "depth/undefined_test": lost[120:].sum()}


def test_progress_rises_to_one_over_all_layers(checkpoint):
    """The bar is of the whole work, and hears a stop."""
    seen = []
    probes(fresh(checkpoint, progress=seen.append), k=K)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_more_neighbors_than_training_examples_are_refused(checkpoint):
    """A small data set and the paper's k."""
    with pytest.raises(DataError, match="121 neighbours cannot be found among 120 examples"):
        probes(fresh(checkpoint), k=121)


def test_a_data_set_without_a_test_split_has_probes():
    """An image folder usually has none."""
    seen = []
    trained(blobs(n_test=0), toy_recipe("single"), seen.append)
    assert probes(seen[0], k=3)["probe_class"].shape == (4, 120)


def test_a_single_run_has_depths_of_both_splits(dataset, stores):
    """From the recipe's table to the table of scores."""
    proxies = {"prediction_depth": {}, "prediction_depth_test": {}, "local_outlier_factor": {}}
    evidence = {"probes": {"k": K}, "local_densities": {"k": 5}}
    recipe = toy_recipe("single", proxies=proxies, signals=evidence)
    (run,) = run_singles(recipe, dataset, stores())
    table, kept = run.read_table("scores.parquet"), run.read_arrays("probes.npz")
    evidence = {"probe_class": kept["probe_class"][:, :120], "final_class": kept["final_class"][:120]}
    assert table["prediction_depth"][:120].tolist() == compute(PROXIES["prediction_depth"], evidence).tolist()
    assert table["prediction_depth_test"].notna().tolist() == [False] * 120 + [True] * 30
    assert table["local_outlier_factor"].notna().tolist() == [True] * 120 + [False] * 30


# ---------------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize(("layer", "name"), [("blocks.0", "blocks.0"), ("2", "blocks.1"), ("softmax", "softmax")])
def test_hidden_densities_are_of_the_layer_named(checkpoint, expected, dataset, layer, name):
    """Jiang takes the penultimate layer; which layer ranks best is a question that one may ask."""
    sums = hidden_density(fresh(checkpoint), layer=layer)
    same, _ = class_kernel_sums(expected[name][:120], dataset.labels[:120], 3)
    np.testing.assert_allclose(sums, same, rtol=1e-4)


def test_hidden_densities_are_of_the_penultimate_layer_by_default(checkpoint, expected, dataset):
    """After its ReLU: what the classifier reads."""
    same, _ = class_kernel_sums(np.maximum(expected["blocks.1"][:120], 0), dataset.labels[:120], 3)
    np.testing.assert_allclose(hidden_density(fresh(checkpoint)), same, rtol=1e-4)


def test_the_outlier_factor_is_that_of_the_penultimate_layer(checkpoint, expected):
    """From look to score, against scikit-learn."""
    result = local_densities(fresh(checkpoint), k=5)
    scores = compute(PROXIES["local_outlier_factor"], result)
    reference = LocalOutlierFactor(n_neighbors=5).fit(np.maximum(expected["blocks.1"][:120], 0).astype(np.float64))
    np.testing.assert_allclose(scores, -reference.negative_outlier_factor_, rtol=1e-4)


def test_the_outlier_factor_takes_all_others_where_there_are_few(checkpoint):
    """It is among the usual proxies; a dozen images must not end a run."""
    assert local_densities(fresh(checkpoint), k=500)["neighbor_density"].shape == (120, 119)
