"""The last layer of any network.  in: a module   out: the layer whose input is the penultimate representation"""

import torch
from torch import Tensor, nn

from study.errors import RecipeError

NAME = "_classifier_name"  # attribute of a network that has no `get_classifier`: name of its last layer


def classifier_of(network: nn.Module) -> nn.Module:
    """The layer that gives the logits; its input is the penultimate layer (J-kde-hidden).

    Raises:
        RecipeError: `locate_classifier` was not called for a network without timm's `get_classifier`.
    """
    get_classifier = getattr(network, "get_classifier", None)
    if callable(get_classifier):
        return get_classifier()
    name = getattr(network, NAME, None)
    if name is None:
        raise RecipeError(f"{type(network).__name__} has no get_classifier(); build it with study.models.build.create")
    return network.get_submodule(name)


def locate_classifier(network: nn.Module, logits_of: Tensor) -> Tensor:
    """Pass two images through a network and remember its last layer by name.

    That is the last `nn.Linear` that gives (2, c), as the logits are shaped; without one the last layer with weights
    that does.

    Args:
        network: in evaluation mode.
        logits_of: (2, channels, height, width) images.

    Returns:
        (2, c) logits.

    Raises:
        RecipeError: no layer gives the logits.
    """
    outputs: list[tuple[str, nn.Module, torch.Size]] = []

    def record(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append((name, module, output.shape))

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: record(name, module, output))
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    try:
        with torch.no_grad():
            logits = network(logits_of)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor):
        raise RecipeError(f"gives a {type(logits).__name__}, not a tensor of logits")
    fitting = [(name, module) for name, module, shape in outputs if shape == logits.shape]
    linear = [name for name, module in fitting if isinstance(module, nn.Linear)]
    names = linear or [name for name, _ in fitting]
    if not names:
        raise RecipeError(f"no layer gives its {tuple(logits.shape)} logits; let it end in an nn.Linear")
    setattr(network, NAME, names[-1])
    return logits
