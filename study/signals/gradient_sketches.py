"""Short stand-ins for per-example gradients.  in: a frozen network, gradients of its logits   out: (n, k) sketches

A sketch keeps inner products on average: E <s, s'> = <g, g'>, with a standard deviation of about sqrt(2 / k) |g| |g'|
(sqrt(8 / k) at most for one linear layer of an MLP, whose sketch is a product of two).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from study.kernels.gradient_kde import Factor
from study.signals.derivatives import (
    BUDGET,
    ROWS,
    Frozen,
    LogitGradients,
    mlp_factors,
    per_example_gradients,
    weight_bytes,
)

Stream = Callable[..., np.random.Generator]
TOGETHER = (
    8  # examples whose gradients should fit a block, else the gradients of their logits are taken a few at a time
)


def sketches(
    frozen: Frozen, n: int, logit_gradients: LogitGradients, dimension: int, stream: Stream, *, share: float = 1.0
) -> Tensor:
    """Sketch the gradients of the first n examples with respect to all trained weights.

    Args:
        frozen: the network.
        n: examples.
        logit_gradients: by example and label; with several, inner products are summed over them.
        dimension: k.
        stream: named random numbers; the same for every checkpoint, so sketches of two checkpoints can be compared.
        share: of the progress that this is.

    Returns:
        (n, k), in the network's precision.
    """
    sums = torch.zeros(n, dimension, dtype=frozen.dtype, device=frozen.device)
    layers, labels = frozen.layers(), frozen.examples.labels
    sketch = _Products(frozen, dimension, stream) if layers else _Buckets(frozen, dimension, stream)
    count = len(_first_gradients(frozen, logit_gradients))
    each = 3 * weight_bytes(frozen)  # the gradient, its signed copy, and that in the order of the buckets
    few = count if layers else max(1, min(count, BUDGET // (TOGETHER * each)))
    bytes_each = frozen.image_bytes() * 4 if layers else frozen.image_bytes() * (1 + few) + few * each
    for rows, images in frozen.blocks(n, max(bytes_each, BUDGET // ROWS), share=share):
        for first in range(0, count, few):
            sketch.add(sums[rows], images, labels[rows], logit_gradients, slice(first, min(first + few, count)))
    return sums


def _first_gradients(frozen: Frozen, logit_gradients: LogitGradients) -> Tensor:
    """(s, 1, c), the gradients of the first example."""
    with torch.no_grad():
        return logit_gradients(frozen(frozen.examples.block(0, 1).to(frozen.dtype)), frozen.examples.labels[:1])


class _Products:
    """An outer product d a^T, times random signs from both sides: (U d) (V a), element by element, over sqrt(k)."""

    def __init__(self, frozen: Frozen, dimension: int, stream: Stream) -> None:
        self.frozen, self.dimension, self.stream = frozen, dimension, stream
        self.drawn: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def add(
        self, total: Tensor, images: Tensor, labels: Tensor, logit_gradients: LogitGradients, chosen: slice
    ) -> None:
        """Add the sketches of the chosen gradients to (b, k) sums."""
        with torch.no_grad():
            wanted = logit_gradients(self.frozen(images), labels)[chosen]
        for index, gradient in enumerate(wanted, chosen.start):
            factors = mlp_factors(self.frozen.layers(), images, lambda logits, gradient=gradient: gradient)
            total += self.of_factors(factors, index)

    def of_factors(self, factors: list[Factor], index: int) -> Tensor:
        """(b, k) sketches of outer products; every gradient of the logits has other signs."""
        total = torch.zeros(len(factors[0].inputs), self.dimension, dtype=self.frozen.dtype, device=self.frozen.device)
        for layer, (inputs, gradients, _) in enumerate(factors):
            left, right = self._signs(layer, index, gradients.shape[1], inputs.shape[1])
            total.addcmul_(gradients @ left, torch.addmm(right[-1], inputs, right[:-1]))
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

    def add(
        self, total: Tensor, images: Tensor, labels: Tensor, logit_gradients: LogitGradients, chosen: slice
    ) -> None:
        """Add the sketches of the chosen gradients to (b, k) sums."""
        gradients = per_example_gradients(self.frozen, images, labels, lambda *one: logit_gradients(*one)[chosen])
        for place, index in enumerate(range(chosen.start, chosen.stop)):
            total += self.of_gradients({name: each[:, place] for name, each in gradients.items()}, index)

    def of_gradients(self, gradients: dict[str, Tensor], index: int) -> Tensor:
        """(b, k) sketches of gradients (b, *weight); every gradient of the logits has other signs."""
        total = 0
        for name, gradient in gradients.items():
            flat = gradient.flatten(1)
            if (name, index) not in self.signs:
                signs = _signs(self.stream("sketch", name, index), flat.shape[1], self.frozen)
                self.signs[name, index] = signs.to(torch.int8)
            signed = torch.nn.functional.pad(flat * self.signs[name, index], (0, 1))
            total = total + signed.index_select(1, self.places[name]).view(len(flat), self.dimension, -1).sum(dim=2)
        # rolled by another shift for each gradient of the logits, so that a weight does not meet itself in all sums
        return total.roll(int(self.shifts[index % self.dimension]), dims=1)


def _signs(rng: np.random.Generator, size: int, frozen: Frozen) -> Tensor:
    signs = torch.from_numpy(rng.integers(0, 2, size, dtype=np.int8))
    return signs.to(frozen.device).to(frozen.dtype).mul_(2).sub_(1)
