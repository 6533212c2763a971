"""Regularizers on the inputs (A-reg): what is drawn, from where, and that only training sees it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, fit, jobs, members
from torch.nn import functional
from toys import blobs, toy_recipe

from study.models.build import create
from study.recipe import Optimizer, Train
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.regularizers import generators, perturbed
from study.training.results import Hooks

GROUP = members(blobs(), count=2)
CPU = torch.device("cpu")


def drawn(train: Train, images: torch.Tensor, words: int = 1, epoch: int = 0) -> torch.Tensor:
    """A batch of `words` members, perturbed by their own generators; no network is asked."""
    recipe = toy_recipe(train=train.model_dump(exclude_none=True))
    sizes = [images.shape[1]] * words if words > 1 else None
    return perturbed(images, None, None, train, generators(list(jobs(GROUP[:words], recipe)), epoch, CPU), sizes)


def test_input_noise_is_gaussian_of_the_asked_deviation():
    """In units of the normalized inputs, with mean 0 and without a cut."""
    noise = drawn(Train(input_noise=0.3), torch.full((500, 1, 10, 10), 2.0)) - 2
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert float((noise.abs() < 0.3).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_input_dropout_keeps_the_mean():
    """A share of the inputs becomes 0 and the rest is scaled up: what evaluation sees, on average."""
    images = drawn(Train(input_dropout=0.2), torch.full((500, 1, 10, 10), 2.0))
    assert float((images == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(images[images != 0].unique(), torch.tensor([2 / 0.8]))
    assert float(images.mean()) == pytest.approx(2, rel=0.01)


def test_every_member_and_every_pass_draws_anew():
    """And a member draws in a stack what it draws alone."""
    train, one = Train(input_noise=0.3, input_dropout=0.1), torch.ones(4, 1, 3, 3)
    both = drawn(train, torch.stack([one, one]), words=2)
    assert not torch.equal(both[0], both[1])
    assert torch.equal(both[0], drawn(train, one))
    assert not torch.equal(drawn(train, one), drawn(train, one, epoch=1))


def test_nothing_is_drawn_when_nothing_is_asked():
    """The common training pays nothing and stays as it was."""
    images = torch.ones(2, 1, 3, 3)
    assert generators(list(jobs(GROUP, toy_recipe())), 0, CPU) == []
    assert perturbed(images, None, None, Train(), []) is images


@pytest.mark.parametrize("kind", ["mlp", "stack", "mlp as a module", "tiny_batchnorm"])
@pytest.mark.parametrize("loss", ["cross_entropy", "zero_hinge"])
def test_the_adversarial_step_follows_autograd(kind, loss):
    """Along the sign of the loss's gradient with respect to the inputs, whatever computes it."""
    settings = {"widths": [16, 8]} if kind in ("mlp", "stack") else {}
    recipe = toy_recipe(model={"name": "tiny_batchnorm" if kind == "tiny_batchnorm" else "mlp", "settings": settings})
    count = 3 if kind == "stack" else 1
    networks = [create(recipe.model.spec(), (1, 6, 6), 3, seed=seed).double() for seed in range(count)]
    build = MLPLearner if settings else ModuleLearner
    first = networks if settings else networks[0]
    learner = build(first, Optimizer(), "cpu", torch.float64, torch.float64, loss=loss)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 8, 1, 6, 6, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (count, 8), generator=generator)
    if count == 1:
        images, labels = images[0], labels[0]
    buffers = [buffer.clone() for buffer in networks[0].buffers()]
    result = perturbed(images, labels, learner, Train(adversarial=0.05), [])
    for before, after in zip(buffers, networks[0].buffers(), strict=True):
        assert torch.equal(before, after), "running statistics saw a batch twice"

    leaves = images.clone().requires_grad_()
    for row, network in enumerate(networks):
        network.train()
        batch, targets = (leaves, labels) if count == 1 else (leaves[row], labels[row])
        logits = network(batch)
        excess = (logits - logits.gather(1, targets[:, None])).clamp(min=0).sum()
        (functional.cross_entropy(logits, targets) if loss == "cross_entropy" else excess).backward()
    torch.testing.assert_close(result, images + 0.05 * leaves.grad.sign(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("train", [{"input_noise": 0.5}, {"input_dropout": 0.3}, {"adversarial": 0.1}])
@pytest.mark.parametrize("network", ["mlp", "tiny_batchnorm"])
def test_a_regularized_training_does_not_depend_on_its_placement(train, network):
    """Two at a time, in another order: the same bits; and it is another training than without."""
    model = {"name": network, "settings": {"widths": [16]} if network == "mlp" else {}}
    recipe, plain = (toy_recipe(model=model, train={"epochs": 2} | each) for each in (train, {}))
    dataset = blobs()
    group = members(dataset, count=3)
    alone = [each.confidence for each in fit(group, dataset, recipe, EXACT)]
    side_by_side = [each.confidence for each in fit(group[::-1], dataset, recipe, replace(EXACT, threads=2))][::-1]
    np.testing.assert_array_equal(alone, side_by_side)
    without = next(fit(group, dataset, plain, EXACT)).confidence
    assert np.abs(without - alone[0]).max() > 1e-3


def test_a_look_sees_the_images_as_they_are():
    """Regularizers belong to training: what is scored is the image."""
    dataset = blobs()
    recipe = toy_recipe(train={"input_noise": 5.0, "input_dropout": 0.9, "adversarial": 5.0}, optimizer={"lr": 1e-12})
    evaluations = []

    def keep(member, epoch, evaluation):
        evaluations.append((evaluation.outcome().confidence, evaluation.examples.block(0, dataset.n).clone()))

    next(fit(members(dataset, count=1), dataset, recipe, EXACT, Hooks(after_epoch=keep)))
    np.testing.assert_allclose(evaluations[0][0], evaluations[-1][0], atol=1e-6)
    np.testing.assert_allclose(evaluations[-1][1].numpy(), dataset.images / 255, atol=1e-12)
