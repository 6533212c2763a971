"""Residual networks for small images, from timm's own blocks."""

from collections.abc import Sequence

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from study.networks.mlp import refuse_unknown


@register_model
def study_resnet18_small(
    pretrained: bool = False,
    *,
    image_shape: Sequence[int],
    in_chans: int = 3,
    num_classes: int = 10,
    **timm_keys: object,
) -> ResNet:
    """ResNet-18 with BatchNorm whose stem is one 3 x 3 convolution without stride or pooling (J-speed-recipe).

    11,173,962 parameters with 3 channels and 10 classes; timm's `zero_init_last` is off, as in the original network.
    """
    refuse_unknown(timm_keys)
    network = ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, in_chans=in_chans, zero_init_last=False)
    network.conv1 = nn.Conv2d(in_chans, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
