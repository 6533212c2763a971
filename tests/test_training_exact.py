"""Every way of training against the loop that a user would write, in float64, to 1e-9."""

from dataclasses import replace

import numpy as np
import pytest
from loops import EXACT, OPTIMIZERS, SCHEDULES, Member, at_their_ends, fit, members, plain_loop
from toys import blobs, toy_recipe

from study.data import Dataset
from study.recipe import Recipe
from study.training.placement import Placement
from study.training.results import Hooks

TRAIN = {"epochs": 5, "batch_size": 16}  # 60 examples: 20 steps


def logits_of(group: list[Member], dataset: Dataset, recipe: Recipe, placement: Placement) -> dict[tuple, np.ndarray]:
    """The logits of every member after its last pass, (n, c) float64."""
    kept = {}

    def keep(member, epoch, evaluation):
        kept[member.name] = evaluation.logits().numpy()

    list(fit(group, dataset, recipe, placement, Hooks(after_epoch=keep)))
    return kept


def close(group: list[Member], dataset: Dataset, recipe: Recipe, placement: Placement = EXACT) -> None:
    """Logits of all examples, members side by side against plain loops one after another."""
    result = logits_of(group, dataset, recipe, placement)
    for member in group:
        expected = plain_loop(dataset, recipe, member).logits.numpy()
        np.testing.assert_allclose(result[member.name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_mlp_equals_the_plain_loop(optimizer, schedule):
    """The backward pass is written by hand; torch's own is the reference."""
    recipe = toy_recipe(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train=TRAIN)
    dataset = blobs()
    close(members(dataset, count=1), dataset, recipe)


@pytest.mark.parametrize("network", ["tiny_batchnorm", "tiny_groupnorm"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_normalized_network_equals_the_plain_loop_two_at_a_time(network, optimizer):
    """BatchNorm, channels-last weights, the flat block and threads must not change what torch would have done."""
    recipe = toy_recipe(model={"name": network, "settings": {}}, optimizer=OPTIMIZERS[optimizer], train=TRAIN)
    dataset = blobs(shape=(3, 6, 6))
    close(members(dataset, count=2), dataset, recipe, replace(EXACT, threads=2))


@pytest.mark.parametrize("network", ["mlp", "tiny_batchnorm", "tiny_groupnorm"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_augmentation_equals_crops_one_by_one(network, schedule):
    """J-tab2's padded crop and flip, black around the image, before the scaling to mean 0 and deviation 1."""
    model = {"name": network, "settings": {"widths": [16]} if network == "mlp" else {}}
    train = TRAIN | {"pad": 2, "flip": True, "normalize": "standard"}
    recipe = toy_recipe(model=model, optimizer=OPTIMIZERS["nesterov"], schedule=SCHEDULES[schedule], train=train)
    dataset = blobs(shape=(3, 6, 6))
    close(members(dataset, count=1), dataset, recipe)


@pytest.mark.parametrize("network", ["mlp", "tiny_batchnorm"])
def test_the_hinge_loss_equals_the_double_loop(network):
    """B-hinge's loss, the sum over the other classes, by autograd over Python loops."""
    model = {"name": network, "settings": {"widths": [16, 8]} if network == "mlp" else {}}
    recipe = toy_recipe(model=model, optimizer={"lr": 0.05}, train=TRAIN | {"loss": "zero_hinge"})
    dataset = blobs()
    close(members(dataset, count=1), dataset, recipe)


@pytest.mark.parametrize("network", ["mlp", "tiny_batchnorm"])
def test_gradient_descent_takes_all_examples_at_once(network):
    """B-hinge: batch_size 0 is one step per pass, on the whole subset."""
    model = {"name": network, "settings": {"widths": [16, 8]} if network == "mlp" else {}}
    recipe = toy_recipe(model=model, train={"epochs": 20, "batch_size": 0})
    dataset = blobs()
    group = members(dataset, count=1)
    assert plain_loop(dataset, recipe, group[0]).sizes == [60] * 20
    close(group, dataset, recipe)


def same_as_alone(recipe: Recipe, monkeypatch) -> None:
    """All weights of three members at the end of their training, as one stack against each by itself."""
    dataset, alone = blobs(), {}
    group = members(dataset, count=3)

    def keep(member, epoch, evaluation):
        alone[member.name] = evaluation.learner.weights.clone()

    stacked = at_their_ends(monkeypatch, lambda one, examples: one.weights.clone())
    list(fit(group, dataset, recipe, replace(EXACT, stack=3)))
    list(fit(group, dataset, recipe, EXACT, Hooks(after_epoch=keep)))
    assert len(stacked) == len(group)
    for words, weights in stacked.items():
        assert float((weights - alone[words]).abs().max()) < 1e-9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stack_equals_its_members_alone(optimizer, schedule, monkeypatch):
    """The law of the house: placement changes speed, not results.  All weights, with augmentation."""
    train = TRAIN | {"pad": 1, "flip": True, "normalize": "standard"}
    same_as_alone(toy_recipe(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train=train), monkeypatch)


@pytest.mark.parametrize(
    "train",
    [
        {"input_noise": 0.3},
        {"input_dropout": 0.2},
        {"adversarial": 0.05},
        {"input_noise": 0.3, "input_dropout": 0.2, "adversarial": 0.05},
        {"loss": "zero_hinge"},
        {"steps": 9},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_a_stack_equals_its_members_alone_whatever_the_recipe_asks(train, monkeypatch):
    """Noise is drawn from each member's own generator, never from the stack's."""
    same_as_alone(toy_recipe(train=TRAIN | train), monkeypatch)
