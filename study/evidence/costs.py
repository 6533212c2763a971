"""What evidence costs beyond the steps of the training.  in: a piece of work   out: seconds, FLOPs"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass
class Cost:
    """Seconds and FLOPs spent so far, and in how many goes.

    seconds: on the clock, of this machine with all else that it does.
    flops: of matrix products, convolutions and attention, 2 per multiplication and addition, as torch's flop counter
        has them, but for the backward passes of convolutions; elementwise work, matrix times vector and numpy's work
        are not counted.  Of the calling thread and its backward passes alone.
    """

    seconds: float = 0.0
    flops: int = 0
    times: int = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add what the work inside takes; work that fails does not count."""
        counter, begun = _Counter(), time.perf_counter()
        with counter:
            yield
        self.seconds += time.perf_counter() - begun
        self.flops += counter.flops
        self.times += 1

    def once(self) -> "Cost":
        """The mean of one go."""
        return Cost(self.seconds / self.times, self.flops // self.times, 1) if self.times else Cost()

    def __add__(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(self.seconds + other.seconds, self.flops + other.flops, self.times + other.times)


class _Counter(TorchDispatchMode):
    """Sees the operations of one thread.  torch's own FlopCounterMode takes three times as long at each of them, and
    hooks every module of the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def convolution_backward(
    slope: Tensor, inputs: Tensor, weight: Tensor, *args: Any, out_val: Sequence[Tensor | None], **kwargs: Any
) -> int:
    """FLOPs of aten's convolution_backward: the gradients of input and weight each take what the forward pass takes.

    Every number that the convolution gives, or takes if it is transposed, meets one filter of weight[0].numel()
    numbers, whatever the number of groups.  torch's formula for the weight lets all channels meet across the groups;
    per-example gradients are one group per example, so it finds them dearer by the number of examples in a block.
    """
    transposed = kwargs["transposed"] if "transposed" in kwargs else args[4]
    once = 2 * (inputs if transposed else slope).numel() * weight[0].numel()
    return once * sum(gradient is not None for gradient in out_val[:2])


FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: convolution_backward,
    torch.ops.aten._int_mm: flop_registry[torch.ops.aten.mm],  # of whole numbers: images' distances
}
