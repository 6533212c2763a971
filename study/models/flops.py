"""Counts the FLOPs of torch and of the own kernels.  in: work in a `with`   out: how many, two per multiply-add

Matrix products, convolutions and attention by torch's own formulas, but for the backward passes of convolutions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from study.kernels import native


class FlopCounter(TorchDispatchMode):
    """Sees the operations of one thread and its backward passes; `flops` is the count so far.

    torch's own FlopCounterMode takes three times as long at each operation, and hooks every module of the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __enter__(self) -> Self:
        self._before = native.counted_flops()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        self.flops += native.counted_flops() - self._before
        super().__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """To guard against a compiler that nobody calls, torch would import it: seconds at the first operation."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def convolution_backward(
    gradient: Tensor, inputs: Tensor, weight: Tensor, *args: Any, out_val: Sequence[Tensor | None], **kwargs: Any
) -> int:
    """FLOPs of aten's convolution_backward: the gradients of input and weight each take what the forward pass takes.

    Every number that the convolution gives, or takes if it is transposed, meets one filter of weight[0].numel()
    numbers, whatever the number of groups.  torch's formula for the weight lets all channels meet across the groups;
    per-example gradients are one group per example, so it finds them dearer by the number of examples in a block.
    """
    transposed = kwargs["transposed"] if "transposed" in kwargs else args[4]
    once = 2 * (inputs if transposed else gradient).numel() * weight[0].numel()
    return once * sum(each is not None for each in out_val[:2])


FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: convolution_backward,
    torch.ops.aten._int_mm: flop_registry[torch.ops.aten.mm],  # of whole numbers: images' distances
}
