"""The small Inception of the C-scores of CIFAR-10 and CIFAR-100 (J-tab2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from study.models.layers import start
from study.models.registry import register_model

STAGES: tuple[
    tuple[tuple[tuple[int, int], ...], int], ...
] = (  # blocks (C_1, C_2), then the width of Conv(3 x 3, stride 2)
    (((32, 32), (32, 48)), 160),
    (((112, 48), (96, 64), (80, 80), (48, 96)), 240),
    (((176, 160), (176, 160)), 0),
)


class ConvNorm(nn.Module):
    """Convolution and BatchNorm; the ReLU of J-tab2's Conv is taken where the output is used."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(b, inputs, height, width) to (b, outputs, height', width')."""
        return self.norm(self.conv(images))


class Block(nn.Module):
    """Concat(Conv(1 x 1, C_1), Conv(3 x 3, C_2)), before its ReLU, which does the same to both."""

    def __init__(self, inputs: int, c_1: int, c_2: int) -> None:
        super().__init__()
        self.narrow = ConvNorm(inputs, c_1, 1)
        self.wide = ConvNorm(inputs, c_2, 3)

    def forward(self, images: Tensor) -> Tensor:
        """(b, inputs, height, width) to (b, c_1 + c_2, height, width)."""
        return torch.cat([self.narrow(images), self.wide(images)], dim=1)


class Inception(nn.Module):
    """Conv(3 x 3, 96), three stages of blocks, the maximum over the pixels, a linear layer (J-tab2).

    J-tab2 does not say how weights start or that convolutions are padded; ours start as He et al. propose, and 3 x 3
    convolutions keep the image's size.  Convolutions have no bias, which BatchNorm would take away.
    """

    def __init__(self, channels: int, num_classes: int, init: str = "he") -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(channels, 96, 3)]
        width = 96
        for blocks, then in STAGES:
            for c_1, c_2 in blocks:
                layers.append(Block(width, c_1, c_2))
                width = c_1 + c_2
            if then:
                layers.append(ConvNorm(width, then, 3, stride=2))
                width = then
        self.layers = nn.ModuleList(layers)
        self.classifier = nn.Linear(width, num_classes)
        self.num_features = width
        start(self, init)

    @property
    def probes(self) -> tuple[str, ...]:
        """After each convolution outside of blocks and each block, before their ReLU.

        B-depth does not treat Inception; this is its rule for ResNet, with the concatenation in place of the sum.
        """
        return tuple(f"layers.{index}" for index in range(len(self.layers)))

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d, height', width'), the last block after its ReLU."""
        hidden = images
        for layer in self.layers:
            hidden = torch.relu(layer(hidden))
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images).amax(dim=(2, 3)))


@register_model("small Inception with BatchNorm", source="J-tab2", later={"init": "he"})
def inception_small(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> Inception:
    """Each block as J-tab2 lists it: 1,895,786 parameters with 3 channels and 10 classes."""
    return Inception(image_shape[0], num_classes, init)
