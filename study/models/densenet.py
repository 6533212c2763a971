"""Densely connected networks for CIFAR (Z-tab2): Huang et al. 2017 with bottlenecks and compression (DenseNet-BC)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.layers import at_least, start
from study.models.registry import register_model


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, Conv(1 x 1, 4 k), BatchNorm, ReLU, Conv(3 x 3, k); its k channels join its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(b, inputs, height, width) to (b, inputs + growth, height, width)."""
        hidden = self.conv1(torch.relu(self.norm1(images)))
        return torch.cat([images, self.conv2(torch.relu(self.norm2(hidden)))], dim=1)


class Transition(nn.Module):
    """BatchNorm, ReLU, Conv(1 x 1) to half the channels, the mean of 2 x 2 pixels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(b, inputs, height, width) to (b, inputs // 2, height // 2, width // 2)."""
        return functional.avg_pool2d(self.conv(torch.relu(self.norm(images))), 2)


class DenseNet(nn.Module):
    """A 3 x 3 convolution to 2 k channels, three dense blocks with transitions between, the mean, a linear layer.

    Args:
        channels: of the images.
        num_classes: number of logits.
        depth: convolutions and the linear layer; 6 n + 4 for n layers in a block.
        growth: k, the channels that each layer adds.
    """

    def __init__(self, channels: int, num_classes: int, depth: int, growth: int, init: str = "he") -> None:
        super().__init__()
        width = 2 * growth
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        for stage in range(3):
            if stage:
                self.stages.append(Transition(width))
                width //= 2
            block = nn.Sequential()
            for _ in range((depth - 4) // 6):
                block.append(DenseLayer(width, growth))
                width += growth
            self.stages.append(block)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, num_classes)
        self.num_features = width
        start(self, init)

    @property
    def probes(self) -> tuple[str, ...]:
        """After the initial convolution, each dense block and each transition; for the last block, its normalization.

        B-depth does not treat DenseNet.  Single layers are left out: a layer's output is its input and k more channels.
        """
        return "conv", *(f"stages.{index}" for index in range(len(self.stages) - 1)), "norm"

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d, height', width'), after the last ReLU."""
        hidden = self.conv(images)
        for stage in self.stages:
            hidden = stage(hidden)
        return torch.relu(self.norm(hidden))

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images).mean(dim=(2, 3)))


@register_model(
    "DenseNet-BC, 100 layers, growth 12", source="Z-testset; Huang et al. 2017, Tab. 2", later={"init": "he"}
)
def densenet100(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> DenseNet:
    """769,162 parameters with 3 channels and 10 classes (published: 0.8 M).

    Zhang's Table 3 has "DenseNet100 x 12" and does not say whether with bottlenecks; see densenet160.
    """
    at_least(image_shape, 4)
    return DenseNet(image_shape[0], num_classes, depth=100, growth=12, init=init)


@register_model("DenseNet-BC, 160 layers, growth 24", source="Z-tab2, Z-testset", later={"init": "he"})
def densenet160(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> DenseNet:
    """DenseNet of Z-tab2, as far as the paper tells: 6,831,466 parameters with 3 channels and 10 classes.

    Zhang's text says that ResNet-32 saves 7.03 M parameters over it.  With the 0.47 M that public code counts for
    ResNet-32, that is a network of 7.5 M.  Of the two DenseNets in their Table 3 only this one can be it: it has 7.5 M
    with a third transition after the last block and with running statistics counted, as some public code has it; 100 x
    12 has 0.8 M, or 7.0 M without bottlenecks and compression.  Ours ends as Huang et al. do, without that transition.
    """
    at_least(image_shape, 4)
    return DenseNet(image_shape[0], num_classes, depth=160, growth=24, init=init)
