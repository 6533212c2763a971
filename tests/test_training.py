"""Training: a member's result is its own, however it is placed."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, Member, fit, members, plain_loop
from toys import blobs, toy_recipe

from study.errors import Stopped
from study.models.build import stackable
from study.recipe import Runtime, Train
from study.training.device_data import Examples
from study.training.placement import Placement, place
from study.training.results import Hooks, Outcome


@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_a_convolutional_network_equals_the_plain_loop(optimizer):
    """BatchNorm, channels-last weights and the flat block must not change what torch would have done."""
    dataset = blobs(n_train=40, n_test=10, shape=(1, 8, 8))
    recipe = toy_recipe(
        model={"name": "resnet10t", "settings": {}},
        optimizer=OPTIMIZERS[optimizer] | {"lr": 0.01},
        train={"epochs": 1, "batch_size": 16},
    )
    group = members(dataset, count=1, size=32)
    outcome = next(fit(group, dataset, recipe, EXACT))
    expected = plain_loop(dataset, recipe, group[0]).confidence[np.arange(dataset.n), dataset.labels]
    np.testing.assert_allclose(outcome.confidence, expected, rtol=0, atol=1e-6)


def outcome_bits(outcomes: list[Outcome]):
    return [(o.prediction.tobytes(), o.confidence.tobytes(), o.top_confidence.tobytes(), o.losses) for o in outcomes]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_results_do_not_depend_on_how_many_train_at_a_time(precision):
    """One network per core: two at a time give the bits of one at a time, in any order of members."""
    dataset, recipe = blobs(), toy_recipe()
    group = members(dataset)
    base = Placement("cpu", precision, "highest", threads=1, cores=1, stack=1)
    alone = outcome_bits(list(fit(group, dataset, recipe, base)))
    assert outcome_bits(list(fit(group, dataset, recipe, replace(base, threads=2)))) == alone
    assert outcome_bits(list(fit(group[::-1], dataset, recipe, base)))[::-1] == alone


def test_augmentation_is_drawn_per_member_and_not_per_stack():
    """Crops come from the member's own stream, so a stack of four sees what four alone see."""
    dataset = blobs(shape=(3, 6, 6))
    recipe = toy_recipe(train={"pad": 2, "flip": True})
    group = members(dataset)
    alone, stacked = (list(fit(group, dataset, recipe, replace(EXACT, stack=stack))) for stack in (1, 4))
    for one, other in zip(alone, stacked, strict=True):
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-6)
    plain = next(fit(group, dataset, toy_recipe(), EXACT))
    assert np.abs(plain.confidence - alone[0].confidence).max() > 1e-3


def test_members_differ_from_each_other_and_from_their_start():
    """A published tool trains a copy and scores the untrained original; another gives every run the same seed."""
    dataset, recipe = blobs(), toy_recipe()
    outcomes = list(fit(members(dataset, count=2), dataset, recipe, EXACT))
    untrained = next(fit(members(dataset, count=1), dataset, toy_recipe(optimizer={"lr": 1e-12}), EXACT))
    assert not np.array_equal(outcomes[0].confidence, outcomes[1].confidence)
    assert np.abs(outcomes[0].confidence - untrained.confidence).max() > 0.1
    assert outcomes[0].losses[-1] < outcomes[0].losses[0]


@pytest.mark.parametrize("stack", [1, 4])
def test_a_diverged_member_is_flagged_and_leaves_the_others_alone(stack):
    """One NaN must not spread through a stack, and must not count as "always wrong"."""
    dataset, recipe = blobs(), toy_recipe()
    group = members(dataset)
    sound = list(fit(group, dataset, recipe, replace(EXACT, stack=stack)))
    images = dataset.images.astype(np.float32)
    outside = np.setdiff1d(np.arange(dataset.n_train), np.concatenate([m.rows for m in group[1:]]))
    images[outside[:1]] = np.nan  # seen by the first member alone
    group[0] = Member(group[0].name, np.union1d(group[0].rows[1:], outside[:1])[: len(group[0].rows)])
    broken = replace(dataset, images=images)
    outcomes = list(fit(group, broken, recipe, replace(EXACT, stack=stack)))
    assert outcomes[0].diverged
    rest = np.setdiff1d(np.arange(dataset.n_train), outside)
    for before, after in zip(sound[1:], outcomes[1:], strict=True):
        assert not before.diverged
        np.testing.assert_array_equal(before.confidence[rest], after.confidence[rest])


def test_a_set_stop_flag_ends_the_training():
    """Ctrl-C must not wait for the end of a shard."""
    dataset, recipe = blobs(), toy_recipe()
    stop = threading.Event()
    hooks = Hooks(progress=lambda examples: stop.set(), stop=stop)
    with pytest.raises(Stopped):
        list(fit(members(dataset), dataset, recipe, replace(EXACT, threads=2), hooks))


def test_each_epoch_can_be_looked_at_with_its_features():
    """Hidden densities need the penultimate layer at every epoch, from the pass that gives the logits."""
    dataset, recipe = blobs(), toy_recipe()
    evaluations = []
    hooks = Hooks(
        after_epoch=lambda member, epoch, evaluation: evaluations.append(
            (epoch, evaluation.outcome(), evaluation.features())
        )
    )
    final = next(fit(members(dataset, count=1), dataset, recipe, EXACT, hooks))
    assert [epoch for epoch, *_ in evaluations] == [0, 1, 2, 3]
    assert evaluations[-1][2].shape == (dataset.n, 8)
    np.testing.assert_array_equal(evaluations[-1][1].confidence, final.confidence)


def test_fit_leaves_torch_s_global_state_as_it_was():
    """No global seeding, no lasting switch of threads or of the float32 routing."""
    state, threads, routing = torch.get_rng_state(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    dataset = blobs()
    list(fit(members(dataset), dataset, toy_recipe(), replace(EXACT, threads=2, matmul="medium", precision="float32")))
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, routing)


@pytest.mark.parametrize(
    "model",
    [{"name": "resnet10t", "settings": {"drop_rate": 0.5}}, {"settings": {"widths": [16], "dropout": 0.5}}],
    ids=["resnet10t", "mlp"],
)
def test_dropout_draws_from_the_member_s_own_seed(model):
    """Networks with dropout train one at a time, since torch's generator is one for all threads."""
    dataset = blobs(n_train=40, n_test=10, shape=(1, 8, 8))
    recipe = toy_recipe(model=model, train={"epochs": 1})
    group = members(dataset, count=2, size=32)
    base = Placement("cpu", "float32", "highest", threads=2, cores=1, stack=1)
    first = outcome_bits(list(fit(group, dataset, recipe, base)))
    assert outcome_bits(list(fit(group[::-1], dataset, recipe, base)))[::-1] == first
    assert outcome_bits(list(fit(group, dataset, recipe, replace(base, threads=1, stack=2)))) == first


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_of_floats_are_normalized_too(precision):
    """An .npz may hold float32 in 0..4; in the same precision they were once taken as they came."""
    floats = np.random.default_rng(0).uniform(0, 4, (30, 2, 5, 5)).astype(np.float32)
    dataset = replace(blobs(20, 10), images=floats, maximum=4.0)
    expected = torch.from_numpy((floats - floats[:20].mean((0, 2, 3), keepdims=True)) / 1)
    expected /= torch.from_numpy(floats[:20].std((0, 2, 3), keepdims=True))
    for train in (Train(normalize="standard"), Train(normalize="standard", flip=True)):
        examples = Examples(dataset, train, "cpu", getattr(torch, precision))
        for _ in range(2):  # a look must not scale the data set itself
            block = examples.block(0, 30).float()
            torch.testing.assert_close(block, expected, rtol=0, atol=1e-4 if precision == "float32" else 2e-2)


def test_placement_never_asks_for_more_threads_than_cores():
    """More networks than cores at a time only spoils the cache."""
    placement = place(Runtime(device="cpu", threads=1024), stackable=True)
    assert 1 <= placement.threads * placement.cores <= max(1, torch.get_num_threads()) * 64
    assert placement.threads < 1024


def test_only_mlps_are_stacked():
    """Convolutions run one at a time everywhere: grouped convolutions are poor kernels.  Dropout draws on its own."""
    assert stackable(toy_recipe().model.spec())
    assert not stackable(toy_recipe(model={"name": "resnet18_small", "settings": {}}).model.spec())
    assert not stackable(toy_recipe(model={"settings": {"widths": [16], "dropout": 0.5}}).model.spec())
    for workers in (0, 4):
        assert place(Runtime(device="cpu", stack=workers), stackable=False).stack == 1
    assert place(Runtime(device="cpu", stack=4), stackable=True).stack == 4
