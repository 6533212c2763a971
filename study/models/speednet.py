"""A network for many members on a GPU: learns CIFAR-10 in a few epochs.

What makes it fast is known from the public speed records on CIFAR-10 (Coleman et al. 2017, DAWNBench; Page 2018; Jordan
2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU"): a first layer that whitens patches and is not trained, few and
wide convolutions, the maximum over the last pixels, filters that start by passing their input on, large rates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.layers import at_least
from study.models.registry import register_model

PATCH = 2  # pixels on a side, of what is whitened
SMALLEST = 5e-4  # added to the variances of the patches; those of a flat image direction are some 1e-4
KEEP = 0.4  # weight of a new batch in BatchNorm's running statistics; a short training has few batches
SHRINK = 1 / 9  # of the penultimate layer: keeps the first logits small where features are maxima


def patch_covariance(images: Tensor) -> Tensor:
    """(n, channels, height, width) to the (4 channels, 4 channels) covariance of their 2 x 2 patches, in float64."""
    count, total, products = 0, 0.0, 0.0
    for block in images.split(256):
        patches = functional.unfold(block.double(), PATCH).transpose(1, 2).flatten(0, 1)
        count += len(patches)
        total = total + patches.sum(dim=0)
        products = products + patches.T @ patches
    mean = total / count
    return products / count - torch.outer(mean, mean)


class Whitening(nn.Module):
    """2 x 2 patches seen along the principal directions of the training images' patches, each at variance 1.

    A buffer, not a parameter: no optimizer touches it.  Before `fit` it is a random rotation.  There are two filters
    for each of the directions, with either sign, so that an activation afterwards loses nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = channels * PATCH**2
        rotation = torch.empty(size, size)
        nn.init.orthogonal_(rotation)
        self.register_buffer("weight", self._filters(rotation, channels))

    @staticmethod
    def _filters(directions: Tensor, channels: int) -> Tensor:
        return torch.cat([directions, -directions]).reshape(-1, channels, PATCH, PATCH)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the directions from (n, channels, height, width) normalized images, a few thousand of them."""
        channels = images.shape[1]
        variances, directions = torch.linalg.eigh(patch_covariance(images))
        peak = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
        directions = directions * peak.sign()  # eigh leaves the signs open
        whitened = (directions / torch.sqrt(variances.clamp(min=0) + SMALLEST)).T
        self.weight.copy_(self._filters(whitened, channels))

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, 8 channels, height - 1, width - 1)."""
        return functional.conv2d(images, self.weight)


class Pair(nn.Module):
    """Convolution, maximum of 2 x 2 pixels, BatchNorm, GELU; convolution, BatchNorm, GELU, added to what came before.

    `first` and `second` pass on what the GELUs get, of the images as they are and not of their mirror images.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, outputs, 3, padding=1, bias=False) for width in (inputs, outputs))
        self.norm1, self.norm2 = (nn.BatchNorm2d(outputs, momentum=KEEP) for _ in range(2))
        self.first, self.second = nn.Identity(), nn.Identity()
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight[: conv.in_channels].data)

    def forward(self, images: Tensor, b: int) -> Tensor:
        """(b or 2 b, inputs, height, width) to (the same, outputs, height / 2, width / 2), rounded up."""
        hidden = self.norm1(functional.max_pool2d(self.conv1(images), 2, ceil_mode=True))
        self.first(hidden[:b])
        hidden = functional.gelu(hidden)
        added = self.norm2(self.conv2(hidden))
        self.second(added[:b])
        return hidden + functional.gelu(added)


class SpeedNet(nn.Module):
    """Whitening, GELU, three pairs of convolutions, the maximum over the pixels, a linear layer.

    Filters start as torch's, but the first ones of each convolution pass one input channel on unchanged.

    Args:
        image_shape: (channels, height, width), at least 2 x 2 pixels.
        num_classes: number of logits.
        widths: of the pairs.
        flip: in evaluation, average an image's penultimate layer, and so its logits, with those of its mirror image.
            For images that are also mirrored in training (`train.flip`); it would harm digits.
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int, widths: Sequence[int], flip: bool) -> None:
        super().__init__()
        if not (isinstance(widths, Sequence) and widths) or any(
            type(width) is not int or width < 1 for width in widths
        ):
            raise ValueError(f"widths must be one or more whole numbers above 0, such as [64, 256, 256], got {widths}")
        if not isinstance(flip, bool):
            raise ValueError(f"flip must be true or false, got {flip}")
        at_least(image_shape, PATCH)
        self.flip = flip
        self.whitening = Whitening(image_shape[0])
        sizes = [len(self.whitening.weight), *widths]
        self.pairs = nn.ModuleList(Pair(a, b) for a, b in zip(sizes, widths, strict=False))
        self.whitened = nn.Identity()
        self.classifier = nn.Linear(widths[-1], num_classes)
        self.num_features = widths[-1]

    @property
    def probes(self) -> tuple[str, ...]:
        """After the whitening and each normalization, before their GELU: B-depth's rule for convolutional networks.

        With `flip` a probe sees the image as it is; the logits are of the image and its mirror image.
        """
        pairs = (f"pairs.{index}.{name}" for index in range(len(self.pairs)) for name in ("first", "second"))
        return "whitened", *pairs

    def prepare(self, images: Tensor) -> None:
        """Set the whitening from normalized training images, before the first step.

        Args:
            images: (n, channels, height, width), a few thousand of those that this network trains on, no others: what
                is held out must not decide on a weight.
        """
        self.whitening.fit(images)

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d), the penultimate layer."""
        b, mirrored = len(images), self.flip and not self.training
        hidden = self.whitening(torch.cat([images, images.flip(3)]) if mirrored else images)
        self.whitened(hidden[:b])
        hidden = functional.gelu(hidden)
        for pair in self.pairs:
            hidden = pair(hidden, b)
        features = hidden.amax(dim=(2, 3)) * SHRINK
        return (features[:b] + features[b:]) / 2 if mirrored else features

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images))


@register_model(
    "whitening, three pairs of convolutions with BatchNorm; for a GPU", source="this project, after Jordan 2024"
)
def speednet(
    image_shape: Sequence[int], num_classes: int, *, widths: Sequence[int] = (64, 256, 256), flip: bool = False
) -> SpeedNet:
    """A member of CIFAR ensembles that needs some ten epochs."""
    return SpeedNet(image_shape, num_classes, widths, flip)
