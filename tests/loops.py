"""Training as a user would write it, in float64: torch.optim, autograd, one image after another."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional

from study.data import Dataset
from study.data.augment import draw_crop_flip
from study.models.build import create
from study.recipe import Optimizer, Recipe, Train
from study.runs.jobs import template_of
from study.training import fit as training
from study.training.device_data import Examples
from study.training.engines import stacked
from study.training.mlp import MLPLearner
from study.training.placement import Placement
from study.training.results import Hooks, Outcome
from study.training.schedules import rate_factor
from study.training.types import Job

EXACT = Placement("cpu", "float64", "highest", threads=1, cores=1, stack=1)
OPTIMIZERS = {
    "sgd": {"name": "sgd", "momentum": 0.9},
    "plain": {"name": "sgd", "momentum": 0.0, "weight_decay": 1e-2},
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "adam": {"name": "adam", "lr": 0.003, "weight_decay": 1e-2},
    "adamax": {"name": "adamax", "lr": 0.003, "weight_decay": 1e-2},
    "adagrad": {"name": "adagrad", "lr": 0.02, "weight_decay": 1e-2},
}
SCHEDULES = {
    "constant": {},
    "triangular": {"name": "triangular"},
    "step": {"name": "step", "milestones": [2, 4]},
    "steps": {"name": "step", "milestones": [7, 13], "unit": "steps", "factor": 0.2},
    "ramp": {"name": "ramp", "milestones": [0.3, 0.6, 0.9], "unit": "share"},
    "cosine": {"name": "cosine"},
}


class TinyConvolutions(nn.Module):
    """Two convolutions with a normalization after each; small enough for 20 steps in a blink."""

    def __init__(self, channels: int, num_classes: int, norm: object) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1, bias=False), norm(4), nn.ReLU(), nn.Conv2d(4, 6, 3), norm(6), nn.ReLU()
        )
        self.classifier = nn.Linear(6, num_classes)

    def get_classifier(self) -> nn.Linear:
        """As timm's networks have it."""
        return self.classifier

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, h, w) to (b, c)."""
        return self.classifier(self.body(images).mean(dim=(2, 3)))


@register_model
def tiny_batchnorm(pretrained=False, *, in_chans=3, num_classes=10, **keys):
    """A network of the tests."""
    return TinyConvolutions(in_chans, num_classes, nn.BatchNorm2d)


@register_model
def tiny_groupnorm(pretrained=False, *, in_chans=3, num_classes=10, **keys):
    """A network of the tests."""
    return TinyConvolutions(in_chans, num_classes, lambda width: nn.GroupNorm(2, width))


@dataclass(frozen=True)
class Member:
    """A job without its recipe: its name in the random streams, its rows."""

    name: tuple
    rows: np.ndarray


def jobs(group: Iterable[Member], recipe: Recipe) -> Iterator[Job]:
    """What a recipe makes of members."""
    template = template_of(recipe)
    return (template.job(member.name, member.rows) for member in group)


def fit(
    group: Iterable[Member], dataset: Dataset, recipe: Recipe, placement: Placement, hooks: Hooks | None = None
) -> Iterator[Outcome]:
    """Train members as a recipe says."""
    return training.fit(jobs(group, recipe), dataset, placement, hooks)


def members(dataset: Dataset, count: int = 4, size: int = 60) -> list[Member]:
    """Random subsets of one size."""
    rng = np.random.default_rng(1)
    return [
        Member(("member", index), np.sort(rng.choice(dataset.n_train, size, replace=False))) for index in range(count)
    ]


def at_their_ends(monkeypatch, kept: Callable[[MLPLearner, Examples], Any]) -> dict[tuple, Any]:
    """What `kept` makes of each row of a stack when its member's training is over; by the member's words."""
    kept_of, finish = {}, stacked.Stack._finish

    def finished(stack, index, row):
        kept_of[row.job.name] = kept(stack.learner.row(index), stack.examples)
        return finish(stack, index, row)

    monkeypatch.setattr(stacked.Stack, "_finish", finished)
    return kept_of


def torch_rule(optimizer: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The same rule of torch's."""
    lr, decay, betas = optimizer.lr, optimizer.weight_decay, (optimizer.momentum, optimizer.beta2)
    if optimizer.name == "adagrad":
        return torch.optim.Adagrad(parameters, lr, weight_decay=decay, eps=optimizer.eps)
    if optimizer.name == "sgd":
        return torch.optim.SGD(parameters, lr, optimizer.momentum, nesterov=optimizer.nesterov, weight_decay=decay)
    kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}[optimizer.name]
    return kind(parameters, lr, betas, optimizer.eps, decay)


def hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """B-hinge as a double loop, for autograd."""
    total = logits.new_zeros(())
    for row, label in zip(logits, labels.tolist(), strict=True):
        total = total + sum(torch.relu(row[j] - row[label]) for j in range(len(row)) if j != label)
    return total / len(labels)


def scaled(dataset: Dataset, train: Train) -> Tensor:
    """(n, channels, h, w) float64, normalized as the recipe says."""
    images = dataset.images / dataset.maximum
    if train.normalize == "standard":
        train_images = images[: dataset.n_train]
        images = (images - train_images.mean(axis=(0, 2, 3), keepdims=True)) / train_images.std(
            axis=(0, 2, 3), keepdims=True
        )
    return torch.from_numpy(images)


def cropped(dataset: Dataset, recipe: Recipe, member: Member, epoch: int, order: np.ndarray) -> Tensor:
    """The pass's images in order, each cut from its padded self and mirrored, one by one; zeros are black pixels."""
    pad = recipe.train.pad
    rng = recipe.stream("augment", *member.name, epoch)
    dy, dx, mirrored = draw_crop_flip(len(order), pad, recipe.train.flip, rng)
    height, width = dataset.shape[1:]
    padded = np.pad(dataset.images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    cut = dataset.images[order].copy()
    for place, row in enumerate(order):
        window = padded[row, :, dy[place] : dy[place] + height, dx[place] : dx[place] + width]
        cut[place] = window[:, :, ::-1] if mirrored[place] else window
    images = np.concatenate([dataset.images[: dataset.n_train], cut])
    return scaled(replace(dataset, images=images), recipe.train)[dataset.n_train :]


@dataclass
class Plain:
    """What came out: logits (n, c) at the end, what was right in passing per pass, learning rates, batch sizes."""

    logits: Tensor
    online: list[np.ndarray] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def confidence(self) -> np.ndarray:
        """(n, c) softmax."""
        return torch.softmax(self.logits, dim=1).numpy()


def plain_loop(dataset: Dataset, recipe: Recipe, member: Member) -> Plain:
    """The training of one member, step by step."""
    seed = int(recipe.stream("init", *member.name).integers(2**63))
    network = create(recipe.model.spec(), dataset.shape, dataset.n_classes, seed=seed).double()
    rule = torch_rule(recipe.optimizer, list(network.parameters()))
    images, labels = scaled(dataset, recipe.train), torch.from_numpy(dataset.labels)
    loss_of = {"cross_entropy": functional.cross_entropy, "zero_hinge": hinge}[recipe.train.loss]
    edges, inputs = recipe.train.edges(len(member.rows)), Plain(images)
    per_pass = len(edges) - 1
    steps = recipe.train.steps or recipe.train.epochs * per_pass
    for step in range(steps):
        epoch, index = divmod(step, per_pass)
        if index == 0:
            order = recipe.stream("order", *member.name, epoch).permutation(member.rows)
            inputs.online.append(np.zeros(dataset.n, bool))
            augmented = recipe.train.pad or recipe.train.flip
            seen = cropped(dataset, recipe, member, epoch, order) if augmented else images[order]
        rows, batch = order[edges[index] : edges[index + 1]], seen[edges[index] : edges[index + 1]]
        rate = recipe.optimizer.lr * rate_factor(recipe.schedule, step, steps, per_pass)
        rule.param_groups[0]["lr"] = rate
        rule.zero_grad()
        logits = network(batch)
        loss = loss_of(logits, labels[rows])
        loss.backward()
        rule.step()
        for row, prediction in zip(rows, logits.argmax(dim=1).tolist(), strict=True):
            inputs.online[-1][row] = prediction == dataset.labels[row]
        inputs.rates.append(rate)
        inputs.sizes.append(len(rows))
        inputs.losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        inputs.logits = network(images)
    return inputs
