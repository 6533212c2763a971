"""Multi-layer perceptrons of the papers: MNIST's 512-256 (J-tab2), 7 x 2048 (B-models)."""

import itertools
import math
from collections.abc import Sequence

import torch
from timm.models import register_model
from torch import Tensor, nn


class MLP(nn.Module):
    """Flatten, then linear layers with ReLU between.

    Weights start as torch's `nn.Linear` starts them.  J-tab2 does not say how the authors' did; their released
    demonstration uses Glorot, which differs in scale by a constant.

    Args:
        image_shape: (channels, height, width).
        num_classes: number of logits.
        widths: of the hidden layers.
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int = 10, widths: Sequence[int] = (512, 256)) -> None:
        super().__init__()
        if not (isinstance(widths, Sequence) and widths) or any(
            type(width) is not int or width < 1 for width in widths
        ):
            raise ValueError(f"widths must be one or more whole numbers above 0, such as [512, 256], got {widths}")
        sizes = [math.prod(image_shape), *widths]
        self.blocks = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.classifier = nn.Linear(sizes[-1], num_classes)
        self.num_features = sizes[-1]

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d), the penultimate layer after its ReLU."""
        hidden = images.flatten(1)
        for block in self.blocks:
            hidden = torch.relu(block(hidden))
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images))


@register_model
def study_mlp(
    pretrained: bool = False,
    *,
    image_shape: Sequence[int],
    in_chans: int = 1,
    num_classes: int = 10,
    widths: Sequence[int] = (512, 256),
    **timm_keys: object,
) -> MLP:
    """MLP 512-256 by default: 535,818 parameters on 28 x 28 with 10 classes (J-tab2)."""
    refuse_unknown(timm_keys)
    return MLP(image_shape, num_classes, widths)


def refuse_unknown(keys: dict[str, object]) -> None:
    """Timm hands every constructor some keys of its own; anything beyond these is a recipe's mistake."""
    unknown = sorted(set(keys) - {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})
    if unknown:
        raise TypeError(f"unknown setting {unknown[0]!r}")
