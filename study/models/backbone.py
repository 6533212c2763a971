"""Pretrained networks that give features.  in: a timm name, weights   out: a module without classifier, its images"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.errors import RecipeError, did_you_mean

ANTIALIASED = ("bilinear", "bicubic")
OF_CLASSIFIER = 2  # tensors at the end of a file that a network without classifier has no place for


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network in evaluation mode and how it wants its images.

    module: (b, 3, side, side) to (b, d).
    side: height and width in pixels.
    mean, deviation: of each channel, for pixels from 0 to 1.
    interpolation: by which images are brought to that size, "bilinear" or "bicubic".
    """

    module: nn.Module
    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    interpolation: str

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """(b, d) float32, of images (b, 1 or 3, h, w) from 0 to 1, on the images' device."""
        images = images.expand(-1, len(self.mean), -1, -1)
        if images.shape[2:] != (self.side, self.side):
            size = (self.side, self.side)
            images = nn.functional.interpolate(images, size, mode=self.interpolation, antialias=True).clamp(0, 1)
        mean, deviation = (images.new_tensor(each).reshape(-1, 1, 1) for each in (self.mean, self.deviation))
        images = (images - mean) / deviation
        if images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        return self.module(images).float()


def load_backbone(
    name: str, weights: Mapping[str, Tensor] | None = None, *, side: int | None = None, device: str = "cpu"
) -> Backbone:
    """One of timm's networks with its pretrained weights, without its classifier.

    Args:
        name: of timm's, such as "resnet18.a1_in1k".
        weights: tensors by name; None: timm fetches the published ones from the hub.  Tensors that another package
            names otherwise go by their order, if all shapes agree.
        side: pixels; None: as the network was pretrained.
        device: where.

    Raises:
        RecipeError: no such network, weights that cannot be fetched or do not fit.
    """
    import timm
    from timm.data.config import resolve_model_data_config

    if not timm.is_model(name):
        raise RecipeError(f"model: timm has no network {name!r}{did_you_mean(name, timm.list_models())}")
    try:
        module = timm.create_model(name, pretrained=weights is None, num_classes=0)
    except Exception as error:  # whatever the hub's client raises: no network, no such repository, a proxy
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise RecipeError(f"weights of {name} cannot be fetched ({line}); give a file with --weights") from None
    if weights is not None:
        _fill(name, module, weights)
    wanted = resolve_model_data_config(module)
    interpolation = wanted["interpolation"] if wanted["interpolation"] in ANTIALIASED else "bicubic"
    side = side or int(wanted["input_size"][-1])
    module = module.eval().to(device)
    if device == "cpu":  # its convolutions are 1.7 times as fast in this layout
        module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Backbone(module, side, tuple(wanted["mean"]), tuple(wanted["std"]), interpolation)


def _fill(name: str, module: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Load weights into a network without classifier."""
    wanted = module.state_dict()
    if not set(wanted) <= set(given):
        left = len(given) - len(wanted)
        given = dict(zip(wanted, given.values(), strict=False)) if 0 <= left <= OF_CLASSIFIER else {}
    if any(key not in given or given[key].shape != tensor.shape for key, tensor in wanted.items()):
        raise RecipeError(f"the file holds no weights of {name}; take one that was made for it")
    module.load_state_dict({key: given[key] for key in wanted})
