"""Every way of training against the loop that a user would write, in float64, to 1e-9."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, SCHEDULES, members, plain_loop
from toys import blobs, toy_recipe

from study.data import Dataset
from study.recipe import Recipe
from study.training import Hooks, Member, fit
from study.training.epochs import train_epoch
from study.training.examples import Examples
from study.training.placement import Placement

TRAIN = {"epochs": 5, "batch_size": 16}  # 60 examples: 20 steps


def logits_of(group: list[Member], dataset: Dataset, recipe: Recipe, placement: Placement) -> dict[tuple, np.ndarray]:
    """The logits of every member after its last pass, (n, c) float64."""
    kept = {}

    def keep(member, epoch, look):
        kept[member.words] = look.logits().numpy()

    list(fit(group, dataset, recipe, placement, Hooks(after_epoch=keep)))
    return kept


def close(group: list[Member], dataset: Dataset, recipe: Recipe, placement: Placement = EXACT) -> None:
    """Logits of all examples, members side by side against plain loops one after another."""
    found = logits_of(group, dataset, recipe, placement)
    for member in group:
        expected = plain_loop(dataset, recipe, member).logits.numpy()
        np.testing.assert_allclose(found[member.words], expected, rtol=0, atol=1e-9)


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


def weights_of(group: list[Member], dataset: Dataset, recipe: Recipe) -> torch.Tensor:
    """The weights of the group after the whole training as one stack, (K, p), or (p,) of one."""
    from study import training

    examples = Examples(dataset, recipe.train, "cpu", torch.float64)
    learner = training.new_learner(group, examples, dataset, recipe, replace(EXACT, stack=len(group)))
    for epoch in range(recipe.train.length(len(group[0].subset))[0]):
        train_epoch(learner, group, examples, recipe, epoch, Hooks())
    return learner.weights


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stack_equals_its_members_alone(optimizer, schedule):
    """The law of the house: placement changes speed, not results.  All weights, with augmentation."""
    train = TRAIN | {"pad": 1, "flip": True, "normalize": "standard"}
    recipe = toy_recipe(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train=train)
    dataset = blobs()
    group = members(dataset, count=3)
    stacked = weights_of(group, dataset, recipe)
    for row, member in zip(stacked, group, strict=True):
        assert float((row - weights_of([member], dataset, recipe)).abs().max()) < 1e-9


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
def test_a_stack_equals_its_members_alone_whatever_the_recipe_asks(train):
    """Noise is drawn from each member's own generator, never from the stack's."""
    dataset, recipe = blobs(), toy_recipe(train=TRAIN | train)
    group = members(dataset, count=3)
    stacked = weights_of(group, dataset, recipe)
    for row, member in zip(stacked, group, strict=True):
        assert float((row - weights_of([member], dataset, recipe)).abs().max()) < 1e-9
