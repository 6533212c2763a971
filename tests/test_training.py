"""Training: a member's result is its own, however it is placed."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import blobs, toy_recipe

from study.networks import create
from study.recipe import Model, Optimizer, Runtime, Schedule, Train
from study.training import Hooks, Member, Outcome, Stopped, fit, stackable
from study.training.mlp import MLPLearner
from study.training.optimizers import update_rule
from study.training.placement import Placement, place
from study.training.schedules import rate_factor

EXACT = Placement("cpu", "float64", "highest", threads=1, cores=1, stack=1)


def members(dataset, count=4, size=60):
    rng = np.random.default_rng(1)
    return [
        Member(("member", index), np.sort(rng.choice(dataset.n_train, size, replace=False))) for index in range(count)
    ]


def plain_loop(dataset, recipe, member):
    """What a user would write: nn.Module, torch.optim, one batch after another, in float64."""
    seed = int(recipe.stream("init", *member.words).integers(2**63))
    network = create(recipe.model, dataset.shape, dataset.n_classes, seed=seed).double()
    optimizer = recipe.optimizer
    if optimizer.name == "sgd":
        rule = torch.optim.SGD(
            network.parameters(),
            optimizer.lr,
            optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
        )
    else:
        rule = torch.optim.Adam(
            network.parameters(),
            optimizer.lr,
            (optimizer.momentum, optimizer.beta2),
            optimizer.eps,
            optimizer.weight_decay,
        )
    images = torch.from_numpy(dataset.images).double() / dataset.maximum
    labels = torch.from_numpy(dataset.labels)
    edges = recipe.train.edges(len(member.subset))
    per_epoch = len(edges) - 1
    for epoch in range(recipe.train.epochs):
        order = recipe.stream("order", *member.words, epoch).permutation(member.subset)
        for index in range(per_epoch):
            rows = order[edges[index] : edges[index + 1]]
            steps = recipe.train.epochs * per_epoch
            factor = rate_factor(recipe.schedule, epoch * per_epoch + index, steps, per_epoch)
            rule.param_groups[0]["lr"] = optimizer.lr * factor
            rule.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            rule.step()
    network.eval()
    with torch.no_grad():
        p = torch.softmax(network(images), dim=1)
    return p.gather(1, labels[:, None])[:, 0].numpy()


OPTIMIZERS = {
    "sgd": {"name": "sgd", "momentum": 0.9},
    "plain": {"name": "sgd", "momentum": 0.0, "weight_decay": 1e-2},
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "adam": {"name": "adam", "lr": 0.003, "weight_decay": 1e-2},
}
SCHEDULES = {
    "constant": {},
    "triangular": {"name": "triangular"},
    "step": {"name": "step", "milestones": [2, 4]},
    "cosine": {"name": "cosine"},
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stack", [1, 4])
def test_mlp_equals_the_plain_loop_over_20_steps(optimizer, schedule, stack):
    """The backward pass is written by hand, alone and stacked; torch's own is the reference."""
    dataset = blobs()
    recipe = toy_recipe(
        optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train={"epochs": 5, "batch_size": 16}
    )
    group = members(dataset)
    outcomes = list(fit(group, dataset, recipe, replace(EXACT, stack=stack)))
    for member, outcome in zip(group, outcomes, strict=True):
        np.testing.assert_allclose(outcome.confidence, plain_loop(dataset, recipe, member), rtol=0, atol=1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stacked_equals_alone_in_float64_to_1e_9(optimizer):
    """The law of the house: placement changes speed, not results.  All weights after 20 steps, before any rounding."""
    settings = Optimizer(**OPTIMIZERS[optimizer])
    model = Model(name="mlp", settings={"widths": (16, 8)})
    where = ("cpu", torch.float64, torch.float64)

    def learner(*seeds):
        return MLPLearner([create(model, (1, 6, 6), 3, seed=seed) for seed in seeds], settings, *where)

    stacked, alone = learner(0, 1, 2), [learner(0), learner(1), learner(2)]
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        images = torch.rand(3, 16, 1, 6, 6, dtype=torch.float64, generator=generator)
        labels = torch.randint(0, 3, (3, 16), generator=generator)
        lr = 0.1 * (1 - step / 20)
        losses = stacked.step(images, labels, lr)
        for index, one in enumerate(alone):
            assert float((one.step(images[index], labels[index], lr) - losses[index]).abs()) < 1e-9
    for index, one in enumerate(alone):
        assert float((one.weights - stacked.weights[index]).abs().max()) < 1e-9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
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
    np.testing.assert_allclose(outcome.confidence, plain_loop(dataset, recipe, group[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_rule_equals_torch_optim(name):
    """Definitions of momentum, Nesterov and Adam differ between libraries; ours are torch's."""
    settings = Optimizer(**OPTIMIZERS[name])
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(50, dtype=torch.float64, generator=generator)
    theirs = nn.Parameter(ours.clone())
    if settings.name == "sgd":
        rule = torch.optim.SGD(
            [theirs], settings.lr, settings.momentum, nesterov=settings.nesterov, weight_decay=settings.weight_decay
        )
    else:
        rule = torch.optim.Adam(
            [theirs], settings.lr, (settings.momentum, settings.beta2), settings.eps, settings.weight_decay
        )
    update = update_rule(settings, ours)
    for _ in range(10):
        gradient = torch.randn(50, dtype=torch.float64, generator=generator)
        theirs.grad = gradient.clone()
        rule.step()
        update.step(ours, gradient, settings.lr)
    assert float((ours - theirs.detach()).abs().max()) < 1e-12


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
    outside = np.setdiff1d(np.arange(dataset.n_train), np.concatenate([m.subset for m in group[1:]]))
    images[outside[:1]] = np.nan  # seen by the first member alone
    group[0] = Member(group[0].words, np.union1d(group[0].subset[1:], outside[:1])[: len(group[0].subset)])
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
    looks = []
    hooks = Hooks(after_epoch=lambda member, epoch, look: looks.append((epoch, look.outcome(), look.features())))
    final = next(fit(members(dataset, count=1), dataset, recipe, EXACT, hooks))
    assert [epoch for epoch, *_ in looks] == [0, 1, 2, 3]
    assert looks[-1][2].shape == (dataset.n, 8)
    np.testing.assert_array_equal(looks[-1][1].confidence, final.confidence)


def test_fit_leaves_torch_s_global_state_as_it_was():
    """No global seeding, no lasting switch of threads or of the float32 routing."""
    state, threads, routing = torch.get_rng_state(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    dataset = blobs()
    list(fit(members(dataset), dataset, toy_recipe(), replace(EXACT, threads=2, matmul="medium", precision="float32")))
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, routing)


def test_dropout_draws_from_the_member_s_own_seed():
    """Networks with dropout train one at a time, since torch's generator is one for all threads."""
    dataset = blobs(n_train=40, n_test=10, shape=(1, 8, 8))
    recipe = toy_recipe(model={"name": "resnet10t", "settings": {"drop_rate": 0.5}}, train={"epochs": 1})
    group = members(dataset, count=2, size=32)
    base = Placement("cpu", "float32", "highest", threads=2, cores=1, stack=1)
    first = outcome_bits(list(fit(group, dataset, recipe, base)))
    assert outcome_bits(list(fit(group[::-1], dataset, recipe, base)))[::-1] == first


def test_the_triangle_peaks_at_15_percent():
    """J-tab2: up from 0 over the first 15 % of the steps, then down to 0."""
    factors = [rate_factor(Schedule(name="triangular"), step, 100, 20) for step in range(100)]
    assert max(factors) == pytest.approx(1, abs=0.04)
    assert np.argmax(factors) in (14, 15)
    assert factors[0] < 0.05
    assert factors[-1] < 0.01


def test_steps_fall_at_their_milestones():
    """Milestones are epochs: with 5 steps an epoch, epoch 2 begins at step 10."""
    schedule = Schedule(name="step", milestones=(2, 4), factor=0.1)
    factors = [rate_factor(schedule, step, 25, 5) for step in range(25)]
    assert factors[:10] == [1] * 10
    assert factors[10:20] == pytest.approx([0.1] * 10)
    assert factors[20:] == pytest.approx([0.01] * 5)


def test_the_cosine_falls_from_one_to_zero():
    """Half a cosine."""
    factors = [rate_factor(Schedule(name="cosine"), step, 10, 1) for step in range(10)]
    assert factors[0] == 1
    assert factors[5] == pytest.approx(0.5)
    assert factors[9] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


def test_batches_cover_the_subset_once():
    """A last batch of one joins the one before it; nothing is dropped or seen twice."""
    assert Train(batch_size=4).edges(10) == [0, 4, 8, 10]
    assert Train(batch_size=4).edges(9) == [0, 4, 9]
    assert Train(batch_size=4).edges(3) == [0, 3]


def test_placement_never_asks_for_more_threads_than_cores():
    """More networks than cores at a time only spoils the cache."""
    placement = place(Runtime(device="cpu", threads=4096), stackable=True)
    assert 1 <= placement.threads * placement.cores <= max(1, torch.get_num_threads()) * 64
    assert placement.threads < 4096


def test_only_mlps_are_stacked():
    """Convolutions run one at a time everywhere: grouped convolutions are poor kernels."""
    assert stackable(toy_recipe())
    assert not stackable(toy_recipe(model={"name": "resnet18_small", "settings": {}}))


def test_initial_weights_depend_on_the_seed_alone():
    """Same seed, same bits; torch's global generator plays no part."""
    model = Model(name="mlp", settings={"widths": (4,)})
    torch.rand(3)
    first = create(model, (1, 3, 3), 2, seed=5).state_dict()
    torch.rand(3)
    second = create(model, (1, 3, 3), 2, seed=5).state_dict()
    other = create(model, (1, 3, 3), 2, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["blocks.0.weight"], other["blocks.0.weight"])
