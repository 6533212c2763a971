"""VGG16 without dense layers, BatchNorm and dropout (B-models)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.layers import at_least, start
from study.models.registry import register_model

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Five stages of 3 x 3 convolutions with ReLU, each followed by the maximum of 2 x 2 pixels; a linear layer.

    A pool at an odd edge takes the pixels that are there, so images of 28 x 28 fit too; on 32 x 32 every size is even.
    What is left of larger images after five pools is averaged.  Images below 16 x 16 are refused: filters that see one
    pixel and padding lose two thirds of the signal in each layer, and nothing is learned.

    B-models does not say how weights started; ours start as He et al. propose.
    """

    def __init__(self, channels: int, num_classes: int, init: str = "he") -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        width = channels
        for wider in (wider for stage in STAGES for wider in stage):
            self.convs.append(nn.Conv2d(width, wider, 3, padding=1))
            width = wider
        self.classifier = nn.Linear(width, num_classes)
        self.num_features = width
        start(self, init)

    @property
    def probes(self) -> tuple[str, ...]:
        """After the convolutions, before their ReLU (B-depth, A.5): with input and softmax, depths 0 to 14."""
        return tuple(f"convs.{index}" for index in range(len(self.convs)))

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d, height', width'), after the last pool."""
        hidden = images
        convs = iter(self.convs)
        for stage in STAGES:
            for _ in stage:
                hidden = torch.relu(next(convs)(hidden))
            hidden = functional.max_pool2d(hidden, 2, ceil_mode=True)
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images).mean(dim=(2, 3)))


@register_model("VGG16 without dense layers, normalization and dropout", source="B-models", later={"init": "he"})
def vgg16_small(image_shape: Sequence[int], num_classes: int, *, init: str = "he") -> VGG:
    """13 convolutions with biases: 14,719,818 parameters with 3 channels and 10 classes.

    B-models removes "the final three dense layers"; one linear layer to the classes is left, as everywhere here.
    """
    at_least(image_shape, 16)
    return VGG(image_shape[0], num_classes, init)
