"""What a network starts from: initial weights, weights that depend on the data, weights that never move."""

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, Member, TinyConvolutions, fit, members, torch_rule
from timm.models import register_model
from torch import nn
from torch.nn import functional
from toys import blobs, toy_recipe

from study.models.build import create
from study.models.spec import NetworkSpec
from study.recipe import Optimizer, Train
from study.training import learners
from study.training.device_data import Examples
from study.training.modules import ModuleLearner
from study.training.results import Hooks


class Prepared(TinyConvolutions):
    """A first convolution that is set from the data and then kept."""

    seen: "list[torch.Tensor]" = []  # noqa: RUF012  what every network of the test was shown

    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes, nn.BatchNorm2d)
        self.body[0].weight.requires_grad = False

    def prepare(self, images):
        """Keep the images, fill the filters with their mean."""
        self.seen.append(images.clone())
        self.body[0].weight.fill_(images.mean())


@register_model
def tiny_prepared(pretrained=False, *, in_chans=3, num_classes=10, **keys):
    """A network of the tests."""
    return Prepared(in_chans, num_classes)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_weights_stay_where_they_are(name):
    """Weight decay and momentum must not move what has no gradient; the others move as torch moves them."""
    settings = Optimizer(**OPTIMIZERS[name] | {"weight_decay": 1e-2})
    ours, theirs = (create(NetworkSpec(name="tiny_prepared"), (1, 6, 6), 3, seed=1).double() for _ in range(2))
    frozen = ours.body[0].weight.clone()
    learner = ModuleLearner(ours, settings, "cpu", torch.float64, torch.float64)
    rule = torch_rule(settings, [each for each in theirs.parameters() if each.requires_grad])
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        images = torch.rand(8, 1, 6, 6, dtype=torch.float64, generator=generator)
        labels = torch.randint(0, 3, (8,), generator=generator)
        learner.step(images, labels, settings.lr)
        rule.zero_grad()
        functional.cross_entropy(theirs(images), labels).backward()
        rule.step()
    assert torch.equal(ours.body[0].weight, frozen)
    assert learner.weights.numel() == sum(each.numel() for each in theirs.parameters() if each.requires_grad)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("train", [{}, {"pad": 2, "flip": True}, {"input_noise": 3.0}], ids=str)
def test_a_network_is_prepared_with_its_own_training_images(monkeypatch, train):
    """Once, before the first step: rows spread over its sorted subset, normalized, without augmentation or noise."""
    monkeypatch.setattr(Prepared, "seen", [])
    monkeypatch.setattr(learners, "PREPARE_ROWS", 40)
    dataset = blobs()
    recipe = toy_recipe(model={"name": "tiny_prepared", "settings": {}}, train={"normalize": "standard"} | train)
    group = members(dataset, count=2)
    examples = Examples(dataset, recipe.train, "cpu", torch.float64)
    kept = {member.name: [] for member in group}

    def keep(member, epoch, evaluation):
        kept[member.name].append(evaluation.network().body[0].weight.clone())

    list(fit(group, dataset, recipe, EXACT, Hooks(after_epoch=keep)))
    assert len(Prepared.seen) == 2
    for member, seen in zip(group, Prepared.seen, strict=True):
        expected = examples.block(0, dataset.n)[member.rows[np.linspace(0, 59, 40).astype(int)]]
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-12)
        assert len(kept[member.name]) == 1 + recipe.train.epochs
        for weight in kept[member.name]:
            torch.testing.assert_close(weight, torch.full_like(weight, float(expected.mean())))


def test_what_is_held_out_decides_on_no_weight():
    """Whitening from all images would let held-out examples into the network that is asked about them."""
    dataset = blobs()
    subset = np.arange(0, 60)
    other = np.array(dataset.images)
    other[60:] = 255 - other[60:]
    recipe = toy_recipe(model={"name": "tiny_prepared", "settings": {}})
    outcomes = [
        next(fit([Member(("one",), subset)], each, recipe, EXACT))
        for each in (dataset, type(dataset)(**{**dataset.__dict__, "images": other}))
    ]
    np.testing.assert_array_equal(outcomes[0].confidence[:60], outcomes[1].confidence[:60])


def test_the_fast_network_trains_through_the_same_door():
    """Whitening and frozen filters, as `study` trains it."""
    dataset = blobs(shape=(3, 8, 8))
    recipe = toy_recipe(
        model={"name": "speednet", "settings": {"widths": [8, 8, 8]}},
        optimizer={"lr": 0.5},
        train={"epochs": 8, "batch_size": 16, "normalize": "standard"},
    )
    outcome = next(fit(members(dataset, count=1), dataset, recipe, EXACT))
    assert not outcome.diverged
    assert outcome.losses[-1] < 0.7 * outcome.losses[0]


def test_initial_weights_depend_on_the_seed_alone():
    """Same seed, same bits; torch's global generator plays no part."""
    model = NetworkSpec(name="mlp", settings={"widths": (4,)})
    torch.rand(3)
    first = create(model, (1, 3, 3), 2, seed=5).state_dict()
    torch.rand(3)
    second = create(model, (1, 3, 3), 2, seed=5).state_dict()
    other = create(model, (1, 3, 3), 2, seed=6).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["blocks.0.weight"], other["blocks.0.weight"])


def test_standardized_inputs_have_mean_0_and_deviation_1():
    """Over the training split, channel by channel; test examples are scaled by the same numbers."""
    dataset = blobs(shape=(3, 6, 6))
    images = Examples(dataset, Train(normalize="standard"), "cpu", torch.float64).block(0, dataset.n_train)
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    deviation = images.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
