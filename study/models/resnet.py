"""Residual networks for small images: ResNet-18 (J-speed-recipe, B-models), 20, 32, 110 (Z-recipe, Z-tab2) and 8."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.layers import StandardizedConv2d, group_norm, start
from study.models.registry import register_model

Norm = Callable[[int], nn.Module]


class Padded(nn.Module):
    """A shortcut without parameters: every second pixel, zeros for the new channels (He et al. 2016, option A)."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, channels + more, height', width')."""
        return functional.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, added, then ReLU.

    `sum` passes the sum on as it is before the ReLU, where B-depth has its probes.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Norm, conv: type[nn.Conv2d], projection: bool
    ) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(outputs)
        if stride == 1 and inputs == outputs:
            self.shortcut: nn.Module = nn.Identity()
        elif projection:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm(outputs))
        else:
            self.shortcut = Padded(outputs - inputs)
        self.sum = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(b, inputs, height, width) to (b, outputs, height', width')."""
        hidden = torch.relu(self.norm1(self.conv1(images)))
        return torch.relu(self.sum(self.norm2(self.conv2(hidden)) + self.shortcut(images)))


class ResNet(nn.Module):
    """A 3 x 3 convolution, stages of residual blocks, the mean over the pixels, a linear layer.

    The first block of every stage but the first halves the image.  Convolutions start as He et al. propose.

    Args:
        channels: of the images.
        num_classes: number of logits.
        widths: of the stages.
        blocks: in each stage.
        norm: makes the normalization of a width.
        conv: class of the convolutions.
        projection: whether a shortcut to another width is a 1 x 1 convolution (option B) or padded (option A).
        init: of the weights, see `layers.start`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        widths: Sequence[int],
        blocks: int,
        *,
        norm: Norm = nn.BatchNorm2d,
        conv: type[nn.Conv2d] = nn.Conv2d,
        projection: bool = True,
        init: str = "he",
    ) -> None:
        super().__init__()
        self.conv = conv(channels, widths[0], 3, padding=1, bias=False)
        self.norm = norm(widths[0])
        self.blocks = nn.Sequential()
        width = widths[0]
        for stage, wider in enumerate(widths):
            for index in range(blocks):
                stride = 2 if stage and not index else 1
                self.blocks.append(ResidualBlock(width, wider, stride, norm, conv, projection))
                width = wider
        self.classifier = nn.Linear(width, num_classes)
        self.num_features = width
        start(self, init)

    @property
    def probes(self) -> tuple[str, ...]:
        """After the initial normalization and the sums at the end of each block, before their ReLU (B-depth, A.5)."""
        return "norm", *(f"blocks.{index}.sum" for index in range(len(self.blocks)))

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d, height', width'), the last block after its ReLU."""
        return self.blocks(torch.relu(self.norm(self.conv(images))))

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images).mean(dim=(2, 3)))


@register_model(
    "ResNet-8, projections; for ensembles on a CPU", source="Banbury et al. 2021, MLPerf Tiny", later={"init": "he"}
)
def resnet8(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> ResNet:
    """Three blocks of 16, 32 and 64 channels: 78,042 parameters, 25 MFLOP on 3 x 32 x 32."""
    return ResNet(image_shape[0], num_classes, (16, 32, 64), 1, init=init)


@register_model("ResNet-20, padded shortcuts", source="Z-tab2; He et al. 2016, Sec. 4.2", later={"init": "he"})
def resnet20(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> ResNet:
    """He's network for CIFAR with n = 3: 269,722 parameters (published: 0.27 M).

    Z-tab2 does not say which shortcuts; He et al. use padded ones (option A) on CIFAR, and so do we.
    """
    return ResNet(image_shape[0], num_classes, (16, 32, 64), 3, projection=False, init=init)


@register_model("ResNet-32, padded shortcuts", source="Z-tab2; He et al. 2016, Sec. 4.2", later={"init": "he"})
def resnet32(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> ResNet:
    """He's network for CIFAR with n = 5: 464,154 parameters (published: 0.46 M)."""
    return ResNet(image_shape[0], num_classes, (16, 32, 64), 5, projection=False, init=init)


@register_model("ResNet-110, padded shortcuts", source="Z-recipe; He et al. 2016, Sec. 4.2", later={"init": "he"})
def resnet110(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> ResNet:
    """He's network for CIFAR with n = 18: 1,727,962 parameters (published: 1.7 M)."""
    return ResNet(image_shape[0], num_classes, (16, 32, 64), 18, projection=False, init=init)


@register_model(
    "ResNet-18 with BatchNorm, stem of one 3 x 3 convolution", source="J-speed-recipe", later={"init": "he"}
)
def resnet18_small(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> ResNet:
    """ResNet-18 whose stem has neither stride nor pooling: 11,173,962 parameters with 3 channels and 10 classes."""
    return ResNet(image_shape[0], num_classes, (64, 128, 256, 512), 2, init=init)


@register_model("ResNet-18 with GroupNorm and weight standardization", source="B-models", later={"init": "he"})
def resnet18_groupnorm(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> ResNet:
    """As resnet18_small, every normalization a GroupNorm of 32 groups, every convolution with standardized filters.

    B-models takes both from Kolesnikov et al. 2020, who have 32 groups, and does not repeat the number.
    """
    return ResNet(
        image_shape[0], num_classes, (64, 128, 256, 512), 2, norm=group_norm, conv=StandardizedConv2d, init=init
    )
