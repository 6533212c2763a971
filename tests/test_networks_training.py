"""Own networks learn, and a member comes out the same alone and beside others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import Member, fit
from toys import blobs, toy_recipe

from study.data.dataset import Dataset
from study.models import build
from study.training.device_data import Examples
from study.training.placement import Placement
from study.training.results import Hooks

LEARNS = {  # name: (settings, Adam's learning rate, epochs of 8 steps, pixels on a side)
    "densenet100": ({}, 0.003, 6, 4),
    "inception_small": ({}, 0.001, 4, 6),
    "linear": ({}, 0.003, 8, 8),
    "mlp": ({"widths": [32], "dropout": 0.2}, 0.003, 8, 8),
    "resnet18_groupnorm": ({}, 0.0003, 3, 4),
    "resnet18_small": ({}, 0.0003, 3, 4),
    "resnet20": ({}, 0.005, 8, 4),
    "resnet8": ({}, 0.01, 5, 8),
    "speednet": ({"widths": [16, 32, 32]}, 0.01, 5, 8),
    "vgg16_small": ({}, 0.0001, 3, 16),
}
COLORS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [160, 160, 160]])
DATA = blobs(64, 16, n_classes=4, shape=(1, 4, 4))
EVERYTHING = np.arange(128)


def placed(threads: int = 1) -> Placement:
    """In float32 on the CPU, one core for each network."""
    return Placement("cpu", "float32", "highest", threads, 1, 1, threads)


def recipe(name: str, settings: dict, lr: float, epochs: int, optimizer: str = "sgd", **train: object):
    """One network, batches of 16."""
    return toy_recipe(
        model={"name": name, "settings": settings},
        optimizer={"name": optimizer, "lr": lr},
        train={"epochs": epochs, "batch_size": 16, "normalize": "standard", **train},
    )


def colors(n_train: int, n_test: int, pixels: int, seed: int = 0) -> Dataset:
    """Four classes, each of one color under strong noise: a network of any depth learns them in some twenty steps."""
    data = blobs(n_train, n_test, n_classes=4, shape=(3, pixels, pixels))
    noise = np.random.default_rng(seed).normal(0, 60, data.images.shape)
    images = np.clip(COLORS[data.labels][:, :, None, None] + noise, 0, 255).astype(np.uint8)
    return replace(data, images=images, digest=f"colors-{pixels}-{seed}")


def test_every_own_network_has_to_learn():
    """A network that is added must be trained here, or be a deeper one of the same builder."""
    assert sorted([*LEARNS, "densenet160", "resnet110", "resnet32"]) == build.names()


@pytest.mark.parametrize("name", LEARNS)
def test_it_learns(name):
    """Far above the quarter that guessing gets, on unseen rows too, on any processor.

    Adam, whose steps do not depend on the scale of the gradients: with SGD one seed in three of VGG16 learned nothing.
    With these settings 5 seeds gave .98 to 1 of the training rows and .72 to 1 of the unseen ones.
    """
    settings, lr, epochs, pixels = LEARNS[name]
    data = colors(128, 32, pixels)
    (outcome,) = fit([Member(("a",), EVERYTHING)], data, recipe(name, settings, lr, epochs, "adam"), placed())
    right = outcome.prediction == data.labels
    assert right[:128].mean() > 0.6
    assert right[128:].mean() > 0.5


CROPPED = {"pad": 1, "flip": True}


@pytest.mark.parametrize(
    ("name", "settings", "train"),
    [
        ("resnet8", {}, {}),
        ("resnet8", {}, CROPPED),
        ("resnet18_groupnorm", {}, CROPPED),
        ("mlp", {"widths": [16], "dropout": 0.3}, {}),
        ("speednet", {"widths": [8, 8], "flip": True}, CROPPED),
    ],
    ids=["BatchNorm", "augmentation", "GroupNorm", "dropout", "speednet"],
)
def test_a_member_is_the_same_alone_and_beside_others(name, settings, train):
    """Running statistics, crops and dropped units are a member's own, in whatever order and on whatever thread."""
    members = [Member((word,), EVERYTHING[low : low + 32]) for word, low in (("a", 0), ("b", 20))]
    spec = recipe(name, settings, 0.05, 1, **train)
    together = list(fit(members, DATA, spec, placed(threads=2)))
    alone = [next(fit([member], DATA, spec, placed())) for member in reversed(members)]
    for first, second in zip(together, reversed(alone), strict=True):
        assert np.array_equal(first.prediction, second.prediction)
        assert np.array_equal(first.confidence, second.confidence)
    assert not np.array_equal(together[0].confidence, together[1].confidence)


def test_the_training_prepares_the_whitening():
    """From the member's own training rows: what is held out must not decide on a weight."""
    seen: list[torch.Tensor] = []
    spec = recipe("speednet", {"widths": [8]}, 0.05, 1)
    hooks = Hooks(
        after_epoch=lambda member, epoch, evaluation: seen.append(evaluation.network().whitening.weight.clone())
    )
    list(fit([Member(("a",), EVERYTHING[:32])], DATA, spec, placed(), hooks))
    examples = Examples(DATA, spec.train, "cpu", torch.float32)
    network = build.create(spec.model.spec(), DATA.shape, DATA.n_classes)
    network.prepare(examples.batch(torch.arange(32)))
    assert torch.equal(seen[0], network.whitening.weight)
    assert torch.equal(seen[0], seen[-1])
