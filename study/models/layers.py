"""What several networks are made of.  in: settings   out: layers, and how their weights start"""

from collections.abc import Sequence

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
    """GroupNorm with 32 groups; its answer for an image does not depend on the batch."""
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
