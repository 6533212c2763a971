"""Short stand-ins for per-example gradients.  in: a frozen network, slopes of its logits   out: (n, k) sketches

A sketch keeps inner products on average: E <s, s'> = <g, g'>, with a standard deviation of about sqrt(2 / k) |g| |g'|
(sqrt(8 / k) at most for one linear layer of an MLP, whose sketch is a product of two).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from study.evidence.derivatives import BUDGET, ROWS, Frozen, mlp_factors, per_example_gradients, weight_bytes
from study.proxies.gradient_tiles import Factor

Stream = Callable[..., np.random.Generator]
Slopes = Callable[[Tensor, slice], list[Tensor]]
"""Logits (b, c) and the rows of a block, to the slopes (b, c) whose gradients are wanted, one for each of their sum."""


def sketches(frozen: Frozen, n: int, slopes: Slopes, dimension: int, stream: Stream, *, share: float = 1.0) -> Tensor:
    """Sketch the gradients of the first n examples with respect to all trained weights.

    Args:
        frozen: the network.
        n: examples.
        slopes: of the logits; with several, inner products are summed over them.
        dimension: k.
        stream: named random numbers; the same for every moment, so sketches of two moments can be compared.
        share: of the progress that this is.

    Returns:
        (n, k), in the network's precision.
    """
    found = torch.empty(n, dimension, dtype=frozen.dtype, device=frozen.device)
    layers = frozen.layers()
    sketch = _Products(frozen, dimension, stream) if layers else _Buckets(frozen, dimension, stream)
    bytes_each = frozen.image_bytes() * (4 if layers else 2) + (0 if layers else 3 * weight_bytes(frozen))
    for rows, images in frozen.blocks(n, max(bytes_each, BUDGET // ROWS), share=share):
        found[rows] = 0
        with torch.no_grad():
            wanted = slopes(frozen(images), rows)
        for index, slope in enumerate(wanted):
            if layers:
                factors = mlp_factors(layers, images, lambda logits, slope=slope: slope)
                found[rows] += sketch.of_factors(factors, index)
            else:
                found[rows] += sketch.of_gradients(per_example_gradients(frozen, images, slope), index)
    return found


class _Products:
    """An outer product d a^T, times random signs from both sides: (U d) (V a), element by element, over sqrt(k)."""

    def __init__(self, frozen: Frozen, dimension: int, stream: Stream) -> None:
        self.frozen, self.dimension, self.stream = frozen, dimension, stream
        self.drawn: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def of_factors(self, factors: list[Factor], index: int) -> Tensor:
        total = torch.zeros(len(factors[0].inputs), self.dimension, dtype=self.frozen.dtype, device=self.frozen.device)
        for layer, (inputs, slopes, _) in enumerate(factors):
            left, right = self._signs(layer, index, slopes.shape[1], inputs.shape[1])
            total.addcmul_(slopes @ left, torch.addmm(right[-1], inputs, right[:-1]))
        return total.mul_(self.dimension**-0.5)

    def _signs(self, layer: int, index: int, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        if (layer, index) not in self.drawn:
            rng = self.stream("sketch", layer, index)
            self.drawn[layer, index] = tuple(
                _signs(rng, size * self.dimension, self.frozen).view(size, self.dimension)
                for size in (outputs, inputs + 1)
            )
        return self.drawn[layer, index]


class _Buckets:
    """Count sketch: every weight goes to one of k buckets with a random sign; buckets of one tensor are equally full.

    Weights are gathered bucket by bucket, not scattered into them, so that a GPU adds in the same order every time.
    """

    def __init__(self, frozen: Frozen, dimension: int, stream: Stream) -> None:
        self.frozen, self.dimension, self.stream = frozen, dimension, stream
        self.places = {name: self._places(name, weight.numel()) for name, weight in frozen.trained.items()}
        self.shifts = stream("shifts").permutation(dimension)
        self.signs: dict[tuple[str, int], Tensor] = {}

    def _places(self, name: str, size: int) -> Tensor:
        """For each slot of each bucket the weight that is in it; `size`, one behind the last, where there is none."""
        slots = -(-size // self.dimension) * self.dimension
        order = self.stream("buckets", name).permutation(slots)
        return torch.from_numpy(np.minimum(order, size)).to(self.frozen.device)

    def of_gradients(self, gradients: dict[str, Tensor], index: int) -> Tensor:
        total = 0
        for name, gradient in gradients.items():
            flat = gradient.flatten(1)
            if (name, index) not in self.signs:
                signs = _signs(self.stream("sketch", name, index), flat.shape[1], self.frozen)
                self.signs[name, index] = signs.to(torch.int8)
            signed = torch.nn.functional.pad(flat * self.signs[name, index], (0, 1))
            total = total + signed.index_select(1, self.places[name]).view(len(flat), self.dimension, -1).sum(dim=2)
        # another slope's gradient is turned by so many buckets: a weight must not meet itself in all slopes' sums
        return total.roll(int(self.shifts[index % self.dimension]), dims=1)


def _signs(rng: np.random.Generator, size: int, frozen: Frozen) -> Tensor:
    signs = torch.from_numpy(rng.integers(0, 2, size, dtype=np.int8))
    return signs.to(frozen.device).to(frozen.dtype).mul_(2).sub_(1)
