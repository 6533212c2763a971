"""What several networks are made of.  in: settings   out: layers, and how their weights start"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

GROUPS = 32  # of GroupNorm, as in Kolesnikov et al. 2020


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and deviation 1 (weight standardization, B-models).

    The filters are standardized in every pass, over inputs, height and width; gradients go through that.

    Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", Eq. 5;
        with the 1e-10 of Kolesnikov et al. 2020, whom B-models follows.
    """

    def standardized(self) -> Tensor:
        """The filters as they are used, shaped as `weight`."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (self.weight - mean) * torch.rsqrt(variance + 1e-10)

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels, height, width) to (b, filters, height', width')."""
        return self._conv_forward(images, self.standardized(), self.bias)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups; its output for an image does not depend on the batch."""
    return nn.GroupNorm(GROUPS, channels)


def he_start(network: nn.Module) -> None:
    """Convolutions start as He et al. 2015 propose for ReLU: normal, variance 2 over the inputs of a filter, bias 0.

    Linear layers and normalizations start as torch starts them.  The papers do not say how theirs did.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def glorot_start(network: nn.Module) -> None:
    """Linear layers and convolutions start as Glorot and Bengio 2010 propose: normal, bias 0.

    The variance is 2 over the sum of a layer's inputs and outputs.  The released code of Jiang et al. starts so.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start(network: nn.Module, init: str) -> None:
    """Set the initial weights.

    Args:
        network: with the weights that torch's layers start with.
        init: "torch" leaves them; "he" or "glorot", see above.

    Raises:
        ValueError: no such way.
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    way = INITS[init]
    if way is not None:
        way(network)


INITS: dict[str, Callable[[nn.Module], None] | None] = {"torch": None, "he": he_start, "glorot": glorot_start}


def at_least(image_shape: Sequence[int], pixels: int) -> None:
    """Refuse images that the network would halve away.

    Raises:
        ValueError: one line that names the cure.
    """
    if min(image_shape[1:]) < pixels:
        height, width = image_shape[1:]
        raise ValueError(
            f"images are {height} x {width}, it needs {pixels} x {pixels}; set data.size = {pixels} or more"
        )
