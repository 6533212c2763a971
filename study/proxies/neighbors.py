"""Distances between all examples, in tiles.  in: features (n, d), labels   out: class kernel sums (n, c), mean distance

Nothing n x n is held.  Squared distances come from matrix products of centred features for d > 32 (2e-6 relative
against float64), and from direct differences below, where products lose the near neighbours of softmax outputs.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.errors import DataError

Features = NDArray | Tensor
Progress = Callable[[float], None]
Device = str | torch.device | None

DIRECT = 32  # widths up to here take direct differences
EXACT = 20_000  # up to so many examples the mean distance is over all pairs
SAMPLED = 1_000_000  # pairs beyond: 1.5e-4 relative error, and 1e-2 of the bandwidth moves a ranking to Spearman .9998
CHUNK = 4096  # rows of a pass over the features
WHOLE = 2**28  # bytes of float32 rows that are converted at once, not tile by tile


def class_kernel_sums(
    features: Features,
    labels: NDArray,
    n_classes: int,
    *,
    factor: float = 0.5,
    bandwidth: float | None = None,
    device: Device = None,
    tile: int = 1024,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Sum an RBF kernel over the examples of each class: K(x, x') = exp(-|x - x'|^2 / h^2), itself included.

    Args:
        features: (n, d) or images (n, ...); uint8 or floats, numpy or torch.  Their scale does not matter.
        labels: (n,) classes 0..c-1.
        n_classes: c.
        factor: h is `factor` times the mean pairwise Euclidean distance.
        bandwidth: h itself, in units of the features; leaves `factor` unused.
        device: where to compute; by default where the features are.
        tile: examples per side of a tile.  Memory: a few tiles of floats, and 256 MiB at most for converted rows.
        progress: called with the share done, 0 to 1, after each row of tiles.

    Returns:
        (n, c) sums over N, so that a row adds up to the class-independent density (Eq. 5); and h.

    Raises:
        DataError: fewer than two examples, features that are not finite, or all the same.

    Source: Jiang, Eq. 3 to 5 and App. A (J-kde-input, J-kde-hidden).
    """
    features, labels = _flat(features, device), torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    if labels.shape != features.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= n_classes:
        raise ValueError(f"labels must be {len(features)} classes from 0 to {n_classes - 1}")
    bandwidth = factor * mean_distance(features, tile=tile) if bandwidth is None else bandwidth
    if not bandwidth > 0:
        raise ValueError(f"the bandwidth of a kernel is above 0, not {bandwidth}")
    one_hot = torch.nn.functional.one_hot(labels, n_classes).to(features.device, torch.float32)
    sums = torch.zeros(one_hot.shape, dtype=torch.float64, device=features.device)
    with exact_float32(features.device):
        for i, j, squared in _tiles(_Rows(features, 1 / bandwidth), tile, progress):
            kernel = squared.neg_().exp_()
            sums[i] += kernel @ one_hot[j]
            if i != j:
                sums[j] += kernel.T @ one_hot[i]
    return (sums / len(features)).cpu().numpy(), float(bandwidth)


def mean_distance(
    features: Features,
    *,
    rng: np.random.Generator | None = None,
    device: Device = None,
    tile: int = 1024,
    progress: Progress | None = None,
) -> float:
    """Mean Euclidean distance between two different examples.

    Args:
        features: (n, d) or (n, ...), as in `class_kernel_sums`.
        rng: draws the million pairs that stand for all of them beyond 20,000 examples; by default a fixed one, so that
            the same features give the same bandwidth.
        device, tile, progress: as in `class_kernel_sums`.

    Raises:
        DataError: fewer than two examples, features that are not finite, or all the same.
    """
    features = _flat(features, device)
    if not any(bool((part != features[0]).any()) for part in features.split(CHUNK)):
        raise DataError(
            f"all {len(features)} feature vectors are the same, so there is no distance to set a bandwidth by; "
            "if they come from a network, its training collapsed: lower optimizer.lr"
        )
    if len(features) > EXACT:
        return _sampled_distance(features, rng or np.random.default_rng(0))
    total = 0.0
    with exact_float32(features.device):
        for i, j, squared in _tiles(_Rows(features, 1.0), tile, progress):
            total += float(squared.sqrt_().sum(dtype=torch.float64)) * (1 if i == j else 2)
    return total / (len(features) * (len(features) - 1))


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Take the fastest matrix products that are true float32, and restore the caller's setting afterwards.

    The setting is that of the whole process, so networks that train beside this must have the same one.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(exact_routing(device))
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def exact_routing(device: torch.device | str) -> str:
    """The setting of torch under which float32 products are fast and true.

    On a CPU "medium" is twice as fast on some chips and rounds to bfloat16 on others: the error decides, not the name.
    On a GPU it always rounds, so products run at full precision there.
    """
    return "medium" if torch.device(device).type == "cpu" and _medium_is_exact() else "highest"


@functools.cache
def _medium_is_exact() -> bool:
    """Whether the largest error of a product under "medium" is below 1e-5 of its largest entry."""
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        product = a @ b
    finally:
        torch.set_float32_matmul_precision(before)
    exact = a.double() @ b.double()
    return float((product - exact).abs().max() / exact.abs().max()) < 1e-5


def _flat(features: Features, device: Device) -> Tensor:
    """(n, d) on the device, uint8 or float32, finite."""
    features = torch.as_tensor(features).detach()
    if len(features) < 2:
        raise DataError(f"distances need two examples or more, there are {len(features)}")
    features = features.to(device or features.device).reshape(len(features), -1)
    if features.dtype == torch.uint8:
        return features
    features = features.to(torch.float32)
    finite = torch.cat([torch.isfinite(part).all(dim=1) for part in features.split(CHUNK)])
    if not bool(finite.all()):
        raise DataError(
            f"{int((~finite).sum())} of {len(features)} feature vectors are not finite, the first in row "
            f"{int(finite.int().argmin())}; if they come from a network, its training diverged: lower optimizer.lr"
        )
    return features


class _Rows:
    """Rows as centred and scaled float32, with their squared norms; converted on demand where the whole is large."""

    def __init__(self, features: Tensor, scale: float):
        self.features, self.scale = features, scale
        means = [part.sum(dim=0, dtype=torch.float64) for part in features.split(CHUNK)]
        self.mean = (torch.stack(means).sum(dim=0) / len(features)).float()
        self.n, self.width = features.shape
        self.whole = self._convert(slice(None)) if self.n * self.width * 4 <= WHOLE else None
        self.norms = torch.cat([self[i].square().sum(dim=1) for i in _slices(self.n, CHUNK)])

    def __getitem__(self, rows: slice) -> Tensor:
        return self._convert(rows) if self.whole is None else self.whole[rows]

    def _convert(self, rows: slice) -> Tensor:
        return self.features[rows].float().sub(self.mean).mul_(self.scale)  # float() of float32 is no copy


def _sampled_distance(features: Tensor, rng: np.random.Generator) -> float:
    n, width = features.shape
    first = torch.as_tensor(rng.integers(n, size=SAMPLED))
    second = (first + torch.as_tensor(rng.integers(1, n, size=SAMPLED))) % n  # any other example, each as likely
    total = 0.0
    for pairs in torch.stack((first, second)).to(features.device).split(max(1, 2**21 // width), dim=1):
        difference = features[pairs[0]].float() - features[pairs[1]].float()
        total += float(torch.linalg.vector_norm(difference, dim=1).sum(dtype=torch.float64))
    return total / SAMPLED


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _tiles(rows: _Rows, tile: int, progress: Progress | None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances between the rows of two slices, the second not before the first; overwritten by the next."""
    slices = _slices(rows.n, tile)
    buffer = torch.empty(tile * tile, dtype=torch.float32, device=rows.features.device)
    for done, i in enumerate(slices):
        left = rows[i]
        for j in slices[done:]:
            right = rows[j]
            if rows.width <= DIRECT:
                squared = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square_()
            else:
                squared = buffer[: len(left) * len(right)].view(len(left), len(right))
                torch.addmm(rows.norms[j], left, right.T, alpha=-2, out=squared)
                squared.add_(rows.norms[i, None]).clamp_(min=0)
            if i == j:
                squared.fill_diagonal_(0)
            yield i, j, squared
        if progress:
            progress(1 - (len(slices) - done - 1) * (len(slices) - done) / (len(slices) * (len(slices) + 1)))
