"""What an evaluation gives, what signals cost, how they are arranged for the proxies."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gradient_toys import toy_checkpoint
from loops import Member, fit
from scipy.special import log_softmax, softmax
from torch import nn

from study.errors import RecipeError
from study.kernels import native
from study.kernels.kde import class_kernel_sums
from study.kernels.knn import nearest
from study.proxies import PROXIES, SIGNALS, Signal, get
from study.signals import (
    Collector,
    Cost,
    conditions,
    curved,
    derivatives,
    due_epochs,
    select_signals,
    wanted,
    weight_gradients,
)
from study.signals import registry as registry
from study.signals.collector import OUTCOME
from study.signals.logit_statistics import NOW, SERIES
from study.training.evaluation import EVALUATE_ROWS
from study.training.placement import Placement
from study.training.results import Hooks
from tests.toys import blobs, toy_recipe

PLACEMENT = Placement("cpu", "float32", "highest", 1, 1, 1)


def by_hand(word: str, z: np.ndarray, label: int) -> float:
    """One example in float64."""
    p, others, wrong = softmax(z), np.delete(z, label), -np.expm1(log_softmax(z)[label])
    return {
        "loss": -log_softmax(z)[label],
        "margin": z[label] - others.max(),
        "error_norm": np.linalg.norm([*(softmax(others) * wrong), wrong]),
        "output_margin_now": np.sort(z)[-1] - np.sort(z)[-2],
        "softmax_margin_now": np.sort(p)[-1] - np.sort(p)[-2],
    }[word]


@pytest.mark.parametrize("word", [*SERIES, *NOW])
@pytest.mark.parametrize("scale", [1, 10, 30])
def test_series_are_those_of_float64_by_hand(word, scale):
    """At a scale of 30 probabilities round to 0 and 1 in float32; losses and errors must still tell examples apart."""
    rng = np.random.default_rng(scale)
    logits, labels = scale * rng.normal(size=(50, 4)), rng.integers(4, size=50)
    logits = logits.astype(np.float32)
    measured = (SERIES | NOW)[word](torch.from_numpy(logits), torch.from_numpy(labels))
    expected = [by_hand(word, z, label) for z, label in zip(logits.astype(np.float64), labels, strict=True)]
    np.testing.assert_allclose(measured.numpy(), expected, rtol=2e-5, atol=1e-15 if word in SERIES else 1e-6)


def test_a_loss_is_finite_where_the_probability_is_not():
    """The log of a float32 probability of 0 would end every run that is certain of a wrong answer."""
    logits = torch.tensor([[0.0, 200.0]])
    assert SERIES["loss"](logits, torch.tensor([0])).item() == 200
    assert SERIES["error_norm"](logits / 2, torch.tensor([1])).item() == pytest.approx(2**0.5 * np.exp(-100), rel=1e-4)


# --------------------------------------------------------------------------------------------------------------- looks


def evaluations(after_epoch, *, dataset=None, online=False, **tables) -> SimpleNamespace:
    """Train the toy network and call `after_epoch` with each look."""
    dataset, recipe = dataset or blobs(), toy_recipe("single", **tables)
    hooks = Hooks(after_epoch=lambda member, epoch, evaluation: after_epoch(epoch, evaluation) and None, online=online)
    list(fit([Member(("single", 0), np.arange(dataset.n_train))], dataset, recipe, PLACEMENT, hooks))
    return SimpleNamespace(dataset=dataset, recipe=recipe)


def test_one_pass_serves_all_who_look():
    """An epoch's end costs a third of its training; nobody pays twice."""
    passes = []

    def after_epoch(epoch, evaluation):
        evaluate = evaluation.learner.evaluate
        evaluation.learner.evaluate = lambda *given: (passes.append(epoch), evaluate(*given))[1]
        first = evaluation.measure(SERIES)
        assert evaluation.outcome() is evaluation.outcome()
        assert evaluation.measure({"loss": SERIES["loss"]})["loss"] is first["loss"]
        assert evaluation.features() is evaluation.features()
        evaluation.learner.evaluate = evaluate

    evaluations(after_epoch)
    assert passes == [epoch for epoch in range(4) for _ in ("pass", "features")]


def test_measures_do_not_depend_on_blocks():
    """More examples than one block, the last one short: each number lies at its own example."""

    def after_epoch(epoch, evaluation):
        measured = evaluation.measure(SERIES | NOW)
        logits = evaluation.logits()
        for word, formula in (SERIES | NOW).items():
            assert measured[word].dtype == np.float32
            np.testing.assert_allclose(
                measured[word], formula(logits, evaluation.examples.labels), rtol=1e-5, atol=1e-5
            )

    evaluations(after_epoch, dataset=blobs(EVALUATE_ROWS + 30, 20), train={"epochs": 1, "batch_size": 256})


@pytest.mark.parametrize(("steps", "whole"), [(16, 2), (20, 2), (24, 3), (5, 0)])
def test_a_pass_cut_short_has_no_states_in_passing(steps, whole):
    """Eight batches a pass: who was not seen in the last one was neither right nor wrong."""
    tables = {"train": {"steps": steps, "batch_size": 15}, "proxies": {"cbtl_online": {}}}
    dataset, recipe = blobs(), toy_recipe("single", **tables)
    collector = Collector(dataset, wanted(recipe.proxies, dataset), recipe, "cpu")
    assert collector.online
    evaluations(collector.take, online=True, **tables)
    assert len(collector.series["correct"]) == due_epochs(recipe, dataset.n_train)[-1]
    assert [states.shape for states in collector.series["online_correct"]] == [(dataset.n_train,)] * whole
    assert collector.of(get("cbtl_online"))["online_correct"].shape == (whole, dataset.n_train)


def test_only_what_proxies_read_is_kept():
    """Two hundred epochs of sixty thousand examples are 48 MB in each series."""
    collectors = {}
    for name in ("cbtl", "aum", "iteration_learned", "output_margin"):
        tables = {"proxies": {name: {}}}
        dataset, recipe = blobs(), toy_recipe("single", **tables)
        collectors[name] = Collector(dataset, wanted(recipe.proxies, dataset), recipe, "cpu")
        evaluations(collectors[name].take, **tables)
    assert set(collectors["cbtl"].series) == set(OUTCOME)
    assert set(collectors["aum"].series) == {*OUTCOME, "margin"}
    assert len(collectors["iteration_learned"].series["predicted"]) == 4
    assert set(collectors["output_margin"].latest) == {"output_margin_now"}
    assert set(collectors["output_margin"].epoch_scores) == {"output_margin"}


def test_a_network_that_left_the_finite_numbers_leaves_nothing():
    """A series with holes would be a table with holes."""
    tables = {"optimizer": {"lr": 1e30}}
    dataset, recipe = blobs(), toy_recipe("single", proxies={"cbtl": {}}, **tables)
    collector = Collector(dataset, wanted(recipe.proxies, dataset), recipe, "cpu")
    taken = []
    evaluations(lambda epoch, evaluation: taken.append(collector.take(epoch, evaluation)), **tables)
    assert taken == [True, False, False, False]
    assert not collector.series["correct"]


# --------------------------------------------------------------------------------------------------------------- costs


def test_flops_are_those_of_the_products():
    """2 for each multiplication and addition, forward and backward; elementwise work counts nothing."""
    network, images = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(11, 5)
    forward, cost = 2 * 11 * (5 * 7 + 7 * 3), Cost()
    with cost.measured():
        network(images)
    assert (cost.flops, cost.times) == (forward, 1)
    with cost.measured():
        network(images).sum().backward()
    assert cost.flops == 2 * forward + forward + 2 * 11 * 7 * 3
    assert cost.once().flops == cost.flops // 2
    assert cost.seconds > 0


def test_convolutions_and_per_example_gradients_count():
    """Sources take gradients with torch.func."""
    weight, image, cost = torch.randn(4, 2, 3, 3), torch.randn(6, 2, 8, 8), Cost()
    with cost.measured():
        torch.conv2d(image, weight)
    assert cost.flops == 2 * 6 * 4 * 36 * 18
    square, cost = torch.randn(5, 5), Cost()
    with cost.measured():
        torch.func.vmap(torch.func.grad(lambda x: (square @ x).sum()), in_dims=1, out_dims=1)(torch.randn(5, 9))
    assert cost.flops >= 2 * 5 * 5 * 9


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_costs_as_much_in_each_gradient_as_forward(batch, groups):
    """By hand: 6 filters of 3 x 3 x 4 / groups at 6 x 6 places of each image."""
    forward = 2 * batch * 6 * 36 * 9 * 4 // groups
    layer, images, cost = nn.Conv2d(4, 6, 3, groups=groups), torch.randn(batch, 4, 8, 8, requires_grad=True), Cost()
    with cost.measured():
        layer(images).sum().backward()
    assert cost.flops == 3 * forward
    images, cost = torch.randn(batch, 6, 6, 6, requires_grad=True), Cost()
    with cost.measured():  # transposed, each of the 6 x 6 places that it reads meets a filter
        torch.conv_transpose2d(images, layer.weight.detach().requires_grad_(), groups=groups).sum().backward()
    assert cost.flops == 3 * forward


@pytest.mark.parametrize("n", [1, 20])
def test_per_example_gradients_cost_three_forward_passes(n):
    """Of a tiny network, by hand: 2 products of each weight with each place forward, 4 backward, none for the images.

    However many examples share a block: vmap turns them into groups of one convolution.
    """
    dataset = blobs(n, 1, shape=(2, 6, 6))
    checkpoint = toy_checkpoint("conv", dataset, steps=0)
    checkpoint.snapshot.network().first.weight.requires_grad_(True)
    first, second, last = 4 * 2 * 9 * 36, 5 * 4 * 9 * 16, 5 * 3
    frozen, cost = derivatives.Frozen(checkpoint), Cost()
    images, labels = frozen.examples.block(0, n), frozen.examples.labels[:n]
    with cost.measured():
        derivatives.per_example_gradients(frozen, images, labels, weight_gradients._loss)
    assert cost.flops == pytest.approx(n * 2 * (2 * first + 3 * second + 3 * last), rel=0.01)


@pytest.mark.parametrize("compiled", [True, False])
def test_flops_of_distances_count_whoever_computes_them(compiled, monkeypatch):
    """Kernels of the project's own, and threads that work for this one, are out of sight of torch's counter."""
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    rows = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    class_kernel_sums(rows, np.arange(60) % 3, 3, bandwidth=1.0)  # the first of a process tries how to multiply
    cost, near = Cost(), Cost()
    with cost.measured():
        class_kernel_sums(rows, np.arange(60) % 3, 3, bandwidth=1.0)
    assert cost.flops == 60 * 60 * 40
    with near.measured():
        nearest(rows, 3)
    assert near.flops >= 60 * 60 * 40  # and those of a sample, by which a kernel chooses its precision


def test_flops_of_other_threads_are_theirs():
    """Networks that train side by side must not enter the bill of a source."""
    cost, a = Cost(), torch.randn(8, 8)
    with cost.measured():
        other = threading.Thread(target=lambda: [a @ a for _ in range(10)])
        other.start()
        other.join()
        a @ a
    assert cost.flops == 2 * 8**3


def test_work_that_fails_costs_nothing():
    """Stopped work is done again."""
    cost = Cost()
    with pytest.raises(KeyError), cost.measured():
        raise KeyError
    assert cost == Cost()
    assert cost.once() == Cost()


def test_costs_add():
    """Evidence and its proxy's own work."""
    assert Cost(1.0, 2, 1) + Cost(2.0, 3, 2) == Cost(3.0, 5, 3)


# -------------------------------------------------------------------------------------------------- how it is arranged


def test_conditions_are_settings_signals_and_accumulated_epochs():
    """A run is used again only where all of them are the same."""
    recipe = toy_recipe("single", single={"signals_every": 2}, proxies={"el2n": {"epoch": 1}})
    assert conditions(get("el2n"), recipe, 120) == {"settings": {"epoch": 1}, "signals": {}, "due": None}
    requirements = conditions(get("kernel_density_hidden_relative"), recipe, 120)
    assert list(requirements["signals"]) == ["hidden_density"]
    assert requirements["due"] is None
    assert conditions(get("loss_sensitivity"), recipe, 120)["due"] == [2, 3]


def test_curves_are_of_moments_that_the_trajectory_does_not_tell():
    """Confidences are in trajectory.npz; what is taken at the end alone has no curve."""
    names = {spec.name for spec in curved(list(PROXIES.values()))}
    assert {"el2n", "output_margin", "kernel_density_hidden_relative", "adversarial_margin"} <= names
    assert not names & {"target_confidence", "cbtl", "kernel_density_input_relative", "prediction_depth"}


def test_a_source_of_every_signal():
    """A word that nobody gives makes its proxies fail after the training."""
    given = {word for source in registry.SOURCES.values() for word in source.signals}
    looked = {"labels", "target_confidence_now", "top_confidence_now", "predicted", "online_correct"}
    assert set(SIGNALS) - given == {*looked, *OUTCOME, *SERIES, *NOW}


@pytest.mark.parametrize("axes", [("n",), ("w", "n"), ("n", "k")])
@pytest.mark.parametrize("on", ["train", "test"])
def test_the_axis_of_the_examples_is_restricted(axes, on, monkeypatch):
    """Arrays over all examples are cut to the proxy's rows, wherever that axis lies."""
    dataset = blobs(12, 5)
    monkeypatch.setitem(SIGNALS, "toy", Signal(axes, "x"))
    rng, sizes = np.random.default_rng(0), {"n": dataset.n, "w": 3, "k": 4}
    array = rng.random([sizes[axis] for axis in axes])
    result = select_signals(SimpleNamespace(on=on, signals=("toy",)), dataset, {}, {"toy": array})["toy"]
    np.testing.assert_array_equal(result, np.compress(dataset.split() == on, array, axis=axes.index("n")))


def test_arrays_over_the_training_rows_stay():
    """Densities are among the training examples."""
    dataset, array = blobs(12, 5), np.random.default_rng(0).random((12, 3))
    spec = SimpleNamespace(on="train", signals=("hidden_density",))
    assert select_signals(spec, dataset, {}, {"hidden_density": array})["hidden_density"] is array


def test_settings_of_signals_are_checked():
    """One line, before anything trains."""
    source = registry.SOURCES["loss_sensitivity"]
    assert registry.settings_of(source, {"by_class": False}) == {"by_class": False}
    with pytest.raises(RecipeError, match=r"signals\.loss_sensitivity\.by_class is 1; it must be of type bool"):
        registry.settings_of(source, {"by_class": 1})
    with pytest.raises(RecipeError, match="no setting 'by_clas'; did you mean 'by_class'"):
        registry.settings_of(source, {"by_clas": True})
