"""Multi-layer perceptrons of the papers: MNIST's 512-256 (J-tab2), 7 x 2048 (B-models); linear heads of features."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.models.layers import start
from study.models.registry import register_model


class MLP(nn.Module):
    """Flatten, then linear layers with ReLU between.

    J-tab2 does not say how the authors' weights start; their released code starts them as Glorot and Bengio 2010.

    Args:
        image_shape: (channels, height, width).
        num_classes: number of logits.
        widths: of the hidden layers; none for a linear classifier.
        init: "torch", "he" or "glorot", see `layers.start`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_classes: int = 10,
        widths: Sequence[int] = (512, 256),
        init: str = "torch",
    ) -> None:
        super().__init__()
        sizes = [math.prod(image_shape), *widths]
        self.blocks = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.classifier = nn.Linear(sizes[-1], num_classes)
        self.num_features = sizes[-1]
        start(self, init)

    @property
    def probes(self) -> tuple[str, ...]:
        """After the dense operations, before their ReLU (B-depth, A.5); the logits' own is left out, as in A.9."""
        return tuple(f"blocks.{index}" for index in range(len(self.blocks)))

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


class DropoutMLP(nn.Module):
    """An MLP whose hidden units are set to 0 with a probability while it trains, after each ReLU (A-reg).

    No `MLP` by class: its training pass draws random numbers, so the stacked form does not hold for it.  Its initial
    weights are those of the MLP without dropout.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int],
        dropout: float,
        init: str = "torch",
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a share from 0 to below 1, got {dropout}")
        plain = MLP(image_shape, num_classes, widths, init)
        self.blocks, self.classifier, self.num_features = plain.blocks, plain.classifier, plain.num_features
        self.probes = plain.probes
        self.dropout = float(dropout)

    def get_classifier(self) -> nn.Linear:
        """The last layer; its input is the penultimate representation."""
        return self.classifier

    def forward_features(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, d), the penultimate layer after its ReLU and dropout."""
        hidden = images.flatten(1)
        for block in self.blocks:
            hidden = functional.dropout(torch.relu(block(hidden)), self.dropout, self.training)
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, c) logits."""
        return self.classifier(self.forward_features(images))


@register_model(
    "linear layers and ReLU; 7 x 2048 in B-models",
    source="J-tab2, B-models, A-reg",
    image=(1, 28, 28),
    later={"init": "torch"},
)
def mlp(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    widths: Sequence[int] = (512, 256),
    dropout: float = 0.0,
    init: str = "torch",
) -> MLP | DropoutMLP:
    """MLP 512-256 by default: 535,818 parameters on 28 x 28 with 10 classes (J-tab2).

    `widths = [2048, 2048, 2048, 2048, 2048, 2048, 2048]` is Baldock's.  Arpit's dropout is a probability that the notes
    on the paper do not tell; 0 is none.  `init = "glorot"` is the start of the authors' code of J-tab2.
    """
    if not (isinstance(widths, Sequence) and widths) or any(type(width) is not int or width < 1 for width in widths):
        raise ValueError(
            f"widths must be one or more whole numbers above 0, such as [512, 256], got {widths}; "
            "without a hidden layer take model.name = 'linear'"
        )
    if dropout == 0 and not isinstance(dropout, bool):
        return MLP(image_shape, num_classes, widths, init)
    return DropoutMLP(image_shape, num_classes, widths, dropout, init)


@register_model("one linear layer, for features and tables", source="logistic regression", image=(1280, 1, 1))
def linear(image_shape: Sequence[int], num_classes: int, *, init: str = "torch") -> MLP:
    """Multinomial logistic regression: an MLP without hidden layers, stacked as MLPs are."""
    return MLP(image_shape, num_classes, (), init)
