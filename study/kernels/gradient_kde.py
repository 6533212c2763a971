"""Kernel sums among per-example gradients that are never written out.  in: factors per layer   out: (n, c) sums

The gradient of a linear layer is the outer product of its output gradient d and its input (a, 1), so the inner product
of two examples' gradients is (d . d') (a . a' + 1): two small products per tile in place of one of all weights.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.errors import DataError

EXACT = 20_000  # up to so many examples the mean distance is over all pairs
SAMPLED = 1_000_000  # pairs beyond
Progress = Callable[[float], None]


class Factor(NamedTuple):
    """One linear layer's per-example gradients, as outer products of an output gradient and an input.

    inputs: (n, a), what the layer reads.
    gradients: (n, b), the gradient with respect to what it gives; None for plain features, whose inner products are
        those of `inputs`.
    bias: whether the layer has one; its gradient is the output gradient itself.
    """

    inputs: Tensor
    gradients: Tensor | None = None
    bias: bool = True

    def squares(self, rows: slice | Tensor) -> Tensor:
        """Squared norms of the gradients of some examples, (rows,)."""
        squares = self.inputs[rows].square().sum(dim=1)
        return squares if self.gradients is None else (squares + self.bias) * self.gradients[rows].square().sum(dim=1)

    def products(self, i: slice, j: slice) -> Tensor:
        """Inner products of the gradients of two slices of examples, (i, j)."""
        products = self.inputs[i] @ self.inputs[j].T
        return (
            products
            if self.gradients is None
            else products.add_(self.bias).mul_(self.gradients[i] @ self.gradients[j].T)
        )

    def paired(self, i: Tensor, j: Tensor) -> Tensor:
        """Inner products of the gradients of pairs of examples, (pairs,)."""
        products = torch.linalg.vecdot(self.inputs[i], self.inputs[j])
        if self.gradients is None:
            return products
        return (products + self.bias) * torch.linalg.vecdot(self.gradients[i], self.gradients[j])


def gradient_class_sums(
    factors: Sequence[Factor],
    labels: Tensor,
    n_classes: int,
    *,
    factor: float = 0.5,
    tile: int = 1024,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Sum an RBF kernel on gradients over the examples of each class: exp(-|g - g'|^2 / h^2), itself included.

    Args:
        factors: the layers whose gradients count, each over the same n examples.
        labels: (n,) classes 0..c-1, where the factors are.
        n_classes: c.
        factor: h is `factor` times the mean pairwise Euclidean distance between gradients.
        tile: examples per side of a tile.  Memory: a few tiles.
        progress: called with the share done, 0 to 1, after each row of tiles.

    Returns:
        (n, c) sums over N, so that a row adds up to the class-independent density; and h, in units of the gradients.

    Raises:
        DataError: fewer than two examples, gradients that are not finite, or all the same.

    Late in training most gradients are all but 0.  What is summed, in float64, is exp - 1, to which the number of
    examples is added, so that their densities just below 1 do not tie.

    Source: Jiang, App. C (J-kde-gradient); h as in App. A.
    """
    n = len(labels)
    _check(factors, n)
    bandwidth = factor * mean_gradient_distance(factors, tile=tile)
    one_hot = torch.nn.functional.one_hot(labels, n_classes)
    counts = one_hot.sum(dim=0, dtype=torch.float64)
    one_hot = one_hot.to(torch.float64)
    sums = counts.repeat(n, 1)
    for i, j, squared in _tiles(factors, n, tile, progress):
        missing = squared.mul_(-1 / bandwidth**2).expm1_().double()
        sums[i] += missing @ one_hot[j]
        if i != j:
            sums[j] += missing.T @ one_hot[i]
    return (sums / n).cpu().numpy(), bandwidth


def mean_gradient_distance(factors: Sequence[Factor], *, tile: int = 1024) -> float:
    """Mean Euclidean distance between the gradients of two different examples; of a million pairs beyond 20,000.

    Raises:
        DataError: all gradients are the same.
    """
    n = len(factors[0].inputs)
    if n > EXACT:
        mean = _sampled_distance(factors, n)
    else:
        total = 0.0
        for i, j, squared in _tiles(factors, n, tile, None):
            total += float(squared.sqrt_().sum(dtype=torch.float64)) * (1 if i == j else 2)
        mean = total / (n * (n - 1))
    if not mean > 0:
        raise DataError(
            f"all {n} gradients are the same, so there is no distance to set a bandwidth by; take an earlier epoch"
        )
    return mean


def _check(factors: Sequence[Factor], n: int) -> None:
    if n < 2:
        raise DataError(f"distances need two examples or more, there are {n}")
    finite = torch.stack([torch.isfinite(factor.squares(slice(None))) for factor in factors]).all(dim=0)
    if not bool(finite.all()):
        raise DataError(
            f"{int((~finite).sum())} of {n} gradients are not finite, the first in row {int(finite.int().argmin())}; "
            "has the training diverged? lower optimizer.lr"
        )


def _sampled_distance(factors: Sequence[Factor], n: int) -> float:
    rng = np.random.default_rng(0)  # fixed: the same gradients give the same bandwidth
    first = torch.as_tensor(rng.integers(n, size=SAMPLED))
    second = (first + torch.as_tensor(rng.integers(1, n, size=SAMPLED))) % n  # any other example, each as likely
    widest = max(factor.inputs.shape[1] for factor in factors)
    total = 0.0
    for i, j in zip(*(side.split(max(1, 2**21 // widest)) for side in (first, second)), strict=True):
        i, j = i.to(factors[0].inputs.device), j.to(factors[0].inputs.device)
        squared = sum(factor.squares(i) + factor.squares(j) - 2 * factor.paired(i, j) for factor in factors)
        total += float(squared.clamp_(min=0).sqrt_().sum(dtype=torch.float64))
    return total / SAMPLED


def _tiles(
    factors: Sequence[Factor], n: int, tile: int, progress: Progress | None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances between the gradients of two slices of examples, the second not before the first."""
    slices = [slice(low, min(low + tile, n)) for low in range(0, n, tile)]
    squares = sum(factor.squares(slice(None)) for factor in factors)
    for done, i in enumerate(slices):
        for j in slices[done:]:
            squared = factors[0].products(i, j)
            for factor in factors[1:]:
                squared.add_(factor.products(i, j))
            squared.mul_(-2).add_(squares[i, None]).add_(squares[j]).clamp_(min=0)
            if i == j:
                squared.fill_diagonal_(0)
            yield i, j, squared
        if progress:
            progress(1 - (len(slices) - done - 1) * (len(slices) - done) / (len(slices) * (len(slices) + 1)))
