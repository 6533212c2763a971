"""Small networks a few steps into their training, as sources see them."""

from itertools import starmap

import torch
from torch import Tensor, nn
from toys import blobs

from study.data import Dataset
from study.models.build import create
from study.models.spec import NetworkSpec
from study.recipe import Optimizer, Train, parse
from study.signals.registry import Checkpoint
from study.training.device_data import Examples
from study.training.evaluation import Snapshot
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner


class SmallConv(nn.Module):
    """Convolution, BatchNorm, in-place ReLU, mean, linear; the first filter is not trained."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 5, 3)
        self.act = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(5, classes)
        self.first.weight.requires_grad_(False)

    def get_classifier(self) -> nn.Linear:
        return self.classifier

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.act(self.norm(self.first(images)))
        return self.classifier(self.act(self.second(hidden)).mean(dim=(2, 3)))


def toy_checkpoint(
    kind: str = "mlp",
    dataset: Dataset | None = None,
    *,
    steps: int = 4,
    epoch: int = 1,
    dtype: torch.dtype = torch.float64,
    train: Train | None = None,
) -> Checkpoint:
    """A look at an MLP 16-8 or a small convolutional network, after a few steps on all training examples."""
    dataset = dataset or blobs(40, 10)
    examples = Examples(dataset, train or Train(), "cpu", dtype)
    rule = Optimizer(lr=0.3)
    if kind == "mlp":
        network = create(NetworkSpec(settings={"widths": (16, 8)}), dataset.shape, dataset.n_classes, seed=3)
        learner = MLPLearner([network], rule, "cpu", dtype, dtype)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            network = SmallConv(dataset.shape[0], dataset.n_classes)
        for frozen in [weight for weight in network.parameters() if not weight.requires_grad]:
            frozen.requires_grad_(True)  # the learner's flat block takes them all
        learner = ModuleLearner(network, rule, "cpu", dtype, dtype)
        network.first.weight.requires_grad_(False)
    for _ in range(steps):
        learner.step(examples.block(0, dataset.n_train), examples.labels[: dataset.n_train], 0.3)
    if kind != "mlp":
        network.zero_grad(set_to_none=False)
    stream = parse({"data": {"name": "digits"}}, "toy").stream
    return Checkpoint(dataset, epoch, Snapshot(learner, examples), "cpu", stream)


def images_of(checkpoint: Checkpoint) -> list[tuple[Tensor, Tensor]]:
    """(1, channels, h, w) and (1,) label of every example, for loops that take them one at a time."""
    examples = checkpoint.snapshot.examples
    pairs = ((index, index + 1) for index in range(examples.n))
    images = list(starmap(examples.block, pairs))
    return list(zip(images, examples.labels.split(1), strict=True))


def state_of(network: nn.Module) -> dict[str, object]:
    """Everything of a network that a source must leave alone."""
    kept: dict[str, object] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept |= {f"{name}.requires_grad": weight.requires_grad for name, weight in network.named_parameters()}
    kept |= {
        f"{name}.grad": None if weight.grad is None else weight.grad.clone()
        for name, weight in network.named_parameters()
    }
    kept |= {f"{name}.hooks": len(module._forward_pre_hooks) for name, module in network.named_modules()}
    return kept
