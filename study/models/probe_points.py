"""Where probes of the prediction depth sit.  in: a NetworkSpec, image shape   out: names of submodules, in order

A network may say it itself, as `probes`.  For all others a rule reads one pass: the stem's normalization, then
every block; a network without blocks has a probe after every convolution, one without convolutions after every
hidden linear layer.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.errors import RecipeError
from study.models.build import NORMS, without_weights
from study.models.classifier import classifier_of
from study.models.spec import NetworkSpec

CHAINS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # these only hold what follows one another
NORM = tuple(kind for kinds in NORMS.values() for kind in kinds)
PRODUCT = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Passage:
    """One submodule that a pass goes through once, tensor in, tensor out; times count calls and returns."""

    name: str
    module: nn.Module
    taken: Tensor
    given: Tensor
    begin: int
    end: int


def placements(spec: NetworkSpec, image_shape: tuple[int, int, int], n_classes: int) -> tuple[str, ...]:
    """Placements of the k-NN probes, besides the input and the softmax (B-depth, A.5).

    Args:
        spec: name and settings, or a builder.
        image_shape: (channels, height, width) of an image.
        n_classes: number of logits.

    Returns:
        Names as in `named_modules`, in the order of a pass; each fires once in a pass, with the images in the order of
        the batch on the first axis.  Take what it gives within the hook: timm's ReLUs write over it afterwards.

    Raises:
        RecipeError: no submodule that a pass goes through once.

    Source: Baldock et al. 2021, A.5: "in MLP ... after the dense operations", in VGG16 "after the convolutions", in
        ResNet18 "after the initial Group Norm operation, the sum operations at the end of each block".  They chose the
        operations before a ReLU, and so do the probes of own networks.  The sum in a block of timm's is no
        submodule: there the probe sees what the block returns, in residual networks after the ReLU.
    """
    network, device = without_weights(spec, image_shape, n_classes)
    if hasattr(network, "probes"):
        return tuple(network.probes)
    passages = _passages(network, image_shape, device)
    blocks = sorted(_blocks(network, passages), key=lambda passage: passage.end)
    if not blocks:
        blocks = [passage for passage in passages.values() if isinstance(passage.module, nn.Conv2d)]
        blocks = blocks or _hidden_layers(network, passages)
        stem = []
    else:
        stem = _stem(passages, min(passage.begin for passage in blocks))
    names = tuple(passage.name for passage in (*stem, *blocks))
    if not names:
        raise RecipeError(f"model {spec.name!r} has neither blocks nor convolutions to place probes at; take another")
    return names


def _passages(network: nn.Module, shape: tuple[int, int, int], device: str) -> dict[str, Passage]:
    """{name: Passage} of one pass, in the order in which the submodules return."""
    clock = itertools.count()
    begins: dict[str, list[int]] = defaultdict(list)
    passages: dict[str, Passage] = {}
    b = 3  # unlike most widths, so that a first axis of 3 is the batch's

    def enter(name: str) -> None:
        begins[name].append(next(clock))

    def leave(name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        ends = (*inputs[:1], output)
        if all(isinstance(each, Tensor) and each.ndim >= 2 and len(each) == b for each in ends):
            passages[name] = Passage(name, module, inputs[0], output, begins[name][0], next(clock))

    for name, module in network.named_modules():
        if name:
            module.register_forward_pre_hook(lambda _, inputs, name=name: enter(name))
            module.register_forward_hook(lambda module, inputs, output, name=name: leave(name, module, inputs, output))
    with torch.no_grad():
        network(torch.zeros(b, *shape, device=device))
    return {name: passage for name, passage in passages.items() if len(begins[name]) == 1}


def _hidden_layers(network: nn.Module, passages: dict[str, Passage]) -> list[Passage]:
    """Every linear layer but the one that gives the logits."""
    linear = [passage for passage in passages.values() if isinstance(passage.module, nn.Linear)]
    return [passage for passage in linear if passage.module is not classifier_of(network)]


def _blocks(network: nn.Module, passages: dict[str, Passage], name: str = "") -> Iterator[Passage]:
    """The innermost repeated parts below a submodule.

    Parts are repeated when two are of one class and, below the top, one takes what another gives: the two branches of a
    mixer's block are none.  A part of one convolution or linear layer is a layer and no block.  Where a part holds
    repeated parts itself, these are taken in its place.
    """
    parts = [passages[each] for each in _parts(network, name) if each in passages]
    parts = [part for part in parts if _products(part.module) > 1]
    if not name and len(parts) == 1:
        yield from _blocks(parts[0].module, passages, parts[0].name)
    if len({type(part.module) for part in parts}) == len(parts):
        return
    if name and not any(after.taken is before.given for before, after in itertools.pairwise(parts)):
        return
    for part in parts:
        inner = list(_blocks(part.module, passages, part.name))
        yield from inner or [part]


def _parts(module: nn.Module, name: str) -> Iterator[str]:
    """Names of the children, through what only holds them."""
    for key, child in module.named_children():
        full = f"{name}.{key}" if name else key
        if type(child) in CHAINS:
            yield from _parts(child, full)
        else:
            yield full


def _products(module: nn.Module) -> int:
    return sum(isinstance(each, PRODUCT) for each in module.modules())


def _stem(passages: dict[str, Passage], before: int) -> list[Passage]:
    """The last normalization that returns before the first block begins, else the last convolution or linear layer."""
    early = [passage for passage in passages.values() if passage.end < before]
    for kinds in (NORM, PRODUCT):
        matching = [passage for passage in early if isinstance(passage.module, kinds)]
        if matching:
            return matching[-1:]
    return []
