"""SGD of a stack in one pass over memory, for a GPU.  in: weights, velocity, gradient, rates   out: all moved, in place

The update of a small network is bound by memory, and as torch's operations it reads and writes 36 bytes for each
float32 weight with a bfloat16 copy.  One kernel needs 20.  Where there is no Triton, torch's operations do it.
"""

from functools import cache

import torch
from torch import Tensor

from study.progress import say

try:
    import triton
    from triton import language as tl
except ImportError:  # torch brings it where there is CUDA
    triton = None

BLOCK = 1024  # numbers of one row that one program moves


def can_move(weights: Tensor) -> bool:
    """Whether the kernel is for these weights, float32 on a GPU, a row for each network, and works on that GPU."""
    return weights.is_cuda and weights.dtype == torch.float32 and weights.dim() == 2 and _works(weights.device)


@cache
def _works(device: torch.device) -> bool:
    """Try one step whose result is known: Triton compiles on the machine it runs on, and not every machine can."""
    if triton is None:
        return False
    weights, velocity, gradient = (torch.full((2, 8), value, device=device) for value in (1.0, 2.0, 3.0))
    rates = torch.tensor([0.1, 0.2], device=device)
    try:
        move(weights, velocity, gradient, None, rates, momentum=0.5, decay=0.0, nesterov=False)
        moved = weights[:, 0].tolist()
    except Exception as error:  # whatever compilers and drivers raise
        say(f"weights are updated by torch's operations, for Triton says: {str(error).splitlines()[0]}")
        return False
    return max(abs(a - b) for a, b in zip(moved, (0.6, 0.2), strict=True)) < 1e-5


def move(
    weights: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    used: Tensor | None,
    rates: Tensor,
    *,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    """One step of SGD as `optimizers.SGD` defines it, and the copy in which the products are computed.

    Args:
        weights, velocity: (K, p) float32, contiguous.
        gradient: (K, p) float32 or bfloat16, contiguous.
        used: (K, p), what becomes a rounded copy of the weights; None where the products take the weights.
        rates: (K,) of this step.
        momentum, decay, nesterov: of all rows.
    """
    rows, p = weights.shape
    copy = weights if used is None else used
    kinds = {"NESTEROV": nesterov, "COPIED": used is not None, "BLOCK": BLOCK}
    rates = rates.to(torch.float32)
    _move[(triton.cdiv(p, BLOCK), rows)](weights, velocity, gradient, copy, rates, p, momentum, decay, **kinds)


if triton is not None:

    @triton.jit
    def _move(
        weights,
        velocity,
        gradient,
        used,
        rates,
        p,
        momentum,
        decay,
        NESTEROV: tl.constexpr,
        COPIED: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(1)
        inside = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = inside < p
        at = row.to(tl.int64) * p + inside
        rate = tl.load(rates + row)
        weight = tl.load(weights + at, mask=mask)
        grad = tl.load(gradient + at, mask=mask).to(tl.float32) + decay * weight
        speed = momentum * tl.load(velocity + at, mask=mask) + grad
        direction = speed
        if NESTEROV:
            direction = grad + momentum * speed
        weight = weight - rate * direction
        tl.store(velocity + at, speed, mask=mask)
        tl.store(weights + at, weight, mask=mask)
        if COPIED:
            tl.store(used + at, weight.to(used.dtype.element_ty), mask=mask)
