"""Distances between all examples, in tiles.  in: features (n, d), labels   out: class kernel sums (n, c), mean distance

Nothing n x n is held.  Squared distances come from matrix products: of centred float32 features for d > 32 (2e-6
relative against float64), of int8 for images of uint8 on processors that multiply those four at a time (exact).
Narrow float features take direct differences, since products lose the near neighbours of softmax outputs.

On a CPU every core has tiles of its own, and the project's own kernel multiplies and sums a block while it is in that
core's cache, where torch passes over a tile six times.  torch does it on GPUs, and where there is no compiler.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.errors import DataError
from study.kernels import native

Features = NDArray | Tensor
Progress = Callable[[float], None]
Device = str | torch.device | None

DIFFERENCES = 1  # the way of rows that have no products
DIRECT = 32  # widths up to here take direct differences
EXACT = 20_000  # up to so many examples the mean distance is over all pairs
SAMPLED = 1_000_000  # pairs beyond: 1.5e-4 relative error, and 1e-2 of the bandwidth moves a ranking to Spearman .9998
CHUNK = 4096  # rows of a pass over the features
STRIP = 16  # tiles of a part, which is what a core takes at a time
TILE_BYTES = 2**26  # of converted rows; of wider ones a tile has fewer
WHOLE = 2**28  # bytes of converted rows that are held; beyond, they are converted tile by tile
PAIR_FLOATS = 2**18  # numbers in the differences of sampled pairs that are measured at a time: they stay in the cache
WIDEST = 2**15  # widths below have squared distances of uint8 that int32 holds


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
        tile: examples per side of a tile.  Memory: 256 MiB at most for converted rows, a few tiles for every thread.
        progress: called with the share done, rising to 1.

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
    labels, order = labels.sort(stable=True)  # columns of one class lie side by side, and are summed as they lie
    scale = math.sqrt(math.log2(math.e)) / bandwidth  # 2^x takes a third of the time of e^x
    sums = _sums(_rows(features, scale, order.to(features.device)), labels, n_classes, tile, progress)
    result = np.empty((len(features), n_classes))
    result[order.numpy()] = sums.div_(len(features)).T.cpu().numpy()
    return result, float(bandwidth)


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
    alike = torch.zeros(len(features), dtype=torch.int64)
    total = float(_sums(_rows(features, 1.0), alike, 1, tile, progress, distances=True).sum())
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
    """Rows as they are compared, in the given order, with their squared norms; x^2 + y^2 - 2 x y is a distance."""

    kind = torch.float32  # of their numbers
    factor = 1.0  # what is left to multiply squared distances by: that of floats is in them
    way: int  # of the own kernel to compare them: 0 products, 1 differences, 2 pixels

    def __init__(self, features: Tensor, scale: float, order: Tensor | None):
        self.features, self.scale, self.order = features, scale, order
        self.n, self.width = features.shape
        self.whole: Tensor | None = None
        if features.numel() * self.kind.itemsize <= WHOLE:
            whole = torch.empty(features.shape, dtype=self.kind, device=features.device)
            for part in _slices(self.n, CHUNK):
                whole[part] = self.converted(part)
            self.whole = whole
        self.norms = torch.cat([self.squared_norms(self[part]) for part in _slices(self.n, CHUNK)])

    def __getitem__(self, rows: slice) -> Tensor:
        return self.converted(rows) if self.whole is None else self.whole[rows]

    def chosen(self, rows: slice) -> Tensor:
        """The features of these places of the order."""
        return self.features[rows] if self.order is None else self.features.index_select(0, self.order[rows])


class _Floats(_Rows):
    """Centred and scaled float32."""

    def __init__(self, features: Tensor, scale: float, order: Tensor | None):
        means = [part.sum(dim=0, dtype=torch.float64) for part in features.split(CHUNK)]
        self.way = DIFFERENCES if features.shape[1] <= DIRECT else 0
        self.mean = (torch.stack(means).sum(dim=0) / len(features)).float()
        super().__init__(features, scale, order)

    def converted(self, rows: slice) -> Tensor:
        return self.chosen(rows).float().sub(self.mean).mul_(self.scale)  # float() of float32 is no copy

    def squared_norms(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(len(rows)) if self.width <= DIRECT else rows.double().square_().sum(dim=1).float()

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """Products; of narrow rows what would be products if their norms were 0."""
        if self.width > DIRECT:
            return left @ right.T
        return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square_().mul_(-0.5)


class _Pixels(_Rows):
    """uint8 less 128, as int8: products and distances are exact in int32."""

    kind, way = torch.int8, 2

    def __init__(self, features: Tensor, scale: float, order: Tensor | None):
        self.factor = scale**2
        super().__init__(features, scale, order)

    def converted(self, rows: slice) -> Tensor:
        return self.chosen(rows).bitwise_xor(128).view(torch.int8)

    def squared_norms(self, rows: Tensor) -> Tensor:
        return rows.to(torch.int32).square_().sum(dim=1, dtype=torch.int32)

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        return torch._int_mm(left, right.T)


def _rows(features: Tensor, scale: float, order: Tensor | None = None) -> _Rows:
    """The rows in the form that this device compares fastest."""
    whole_numbers = features.dtype == torch.uint8 and features.device.type == "cpu" and features.shape[1] < WIDEST
    kind = _Pixels if whole_numbers and _multiplies_integers() else _Floats
    return kind(features, scale, order)


@functools.cache
def _multiplies_integers() -> bool:
    """Whether this processor sums products of int8 four at a time, and right to the ends of their range."""
    if not torch.cpu._is_vnni_supported():
        return False
    a, b = torch.randint(-128, 128, (2, 64, 96), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    a[0], b[0] = -128, -128
    return bool((torch._int_mm(a, b.T) == a.int() @ b.int().T).all())


def _sampled_distance(features: Tensor, rng: np.random.Generator) -> float:
    n, width = features.shape
    first = torch.as_tensor(rng.integers(n, size=SAMPLED))
    second = (first + torch.as_tensor(rng.integers(1, n, size=SAMPLED))) % n  # any other example, each as likely
    pairs = torch.stack((first, second)).to(features.device).split(max(1, PAIR_FLOATS // width), dim=1)

    def total(some: Tensor) -> float:
        difference = features.index_select(0, some[0]).float().sub_(features.index_select(0, some[1]))
        return float(torch.linalg.vector_norm(difference, dim=1).sum(dtype=torch.float64))

    with _side_by_side(features.device) as in_order:
        return sum(in_order(total, pairs)) / SAMPLED


def _slices(n: int, size: int, first: int = 0) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(first, n, size)]


def _sums(
    rows: _Rows, labels: Tensor, n_classes: int, tile: int, progress: Progress | None, *, distances: bool = False
) -> Tensor:
    """(c, n): kernels, or distances, between each of the rows and those of each class; the labels are sorted.

    Parts of one half of the square, which are added in their order: the same bits for any number of threads.
    """
    tile = max(1, min(tile, TILE_BYTES // (rows.kind.itemsize * rows.width)))
    parts = [(i, j) for i in _slices(rows.n, tile) for j in _slices(rows.n, STRIP * tile, i.start)]
    tiles = [len(_slices(j.stop, tile, j.start)) for _, j in parts]
    device = rows.features.device
    add = _add_native if device.type == "cpu" and native.library() else _add
    work = functools.partial(_part, rows, labels, tile, add, distances)
    sums = torch.zeros((n_classes, rows.n), dtype=torch.float64, device=device)
    with exact_float32(device), _side_by_side(device) as in_order:
        for done, pieces in zip(itertools.accumulate(tiles), in_order(work, *zip(*parts, strict=True)), strict=True):
            for classes, examples, piece in pieces:
                sums[classes, examples] += piece
            if progress:
                progress(done / sum(tiles))
    if device.type == "cpu" and rows.way != DIFFERENCES:  # other threads have worked
        native.count_flops(rows.n * rows.n * rows.width)
    return sums


@contextlib.contextmanager
def _side_by_side(device: torch.device) -> Iterator[Callable[..., Iterator]]:
    """A `map` that on a CPU works in as many threads as an operation has, with one for each operation."""
    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _part(
    rows: _Rows, labels: Tensor, tile: int, add: Callable[..., None], distances: bool, i: slice, j: slice
) -> list[tuple[slice, slice, Tensor]]:
    """Sums of the rows i under the classes of j, and of those of j beyond i under the classes of i; and whose they are.

    The rows of j begin with those of i, or lie beyond.
    """
    first, second = (slice(int(labels[k.start]), int(labels[k.stop - 1]) + 1) for k in (i, j))
    left, right = labels[i] - first.start, labels[j] - second.start
    across = rows.norms.new_zeros((second.stop - second.start, len(left)), dtype=torch.float64)
    down = rows.norms.new_zeros((first.stop - first.start, len(right)), dtype=torch.float64)
    at_once = STRIP * tile if add is _add_native and rows.whole is not None else tile
    for part in _slices(j.stop, at_once, j.start):
        within = slice(part.start - j.start, part.stop - j.start)
        add(rows, i, part, left, right[within], across, down[:, within], distances)
    return [(second, i, across), (first, j, down)]


def _add(
    rows: _Rows, i: slice, j: slice, left: Tensor, right: Tensor, across: Tensor, down: Tensor, distances: bool
) -> None:
    """Add a tile to sums of its rows and, unless they are its rows again, of its columns, both (classes, examples)."""
    products = rows.multiply(rows[i], rows[j])
    negative = torch.add(-rows.norms[i, None], products, alpha=2, out=products).sub_(rows.norms[j]).clamp_(max=0)
    if i == j:
        negative.fill_diagonal_(0)
    negative = negative if negative.is_floating_point() else negative * rows.factor
    values = negative.neg_().sqrt_() if distances else negative.exp2_()
    for label, within in _runs(right):
        across[label] += values[:, within].sum(dim=1)
    for label, within in _runs(left) if i != j else ():
        down[label] += values[within].sum(dim=0)


def _add_native(
    rows: _Rows, i: slice, j: slice, left: Tensor, right: Tensor, across: Tensor, down: Tensor, distances: bool
) -> None:
    """The same by the project's own kernel, for several tiles."""
    sides = (rows[i].contiguous(), rows[j].contiguous(), rows.norms[i], rows.norms[j], left, right)
    sizes = (len(left), len(right), rows.width, len(left) if i.start == j.start else 0)
    sums = (across.data_ptr(), across.stride(0), down.data_ptr(), down.stride(0))
    native.library().study_kernels_add(
        rows.way, distances, *(side.data_ptr() for side in sides), *sizes, rows.factor, *sums
    )


def _runs(labels: Tensor) -> list[tuple[int, slice]]:
    """The classes among sorted labels, each with the places that it takes."""
    classes, counts = labels.unique_consecutive(return_counts=True)
    edges = itertools.pairwise([0, *counts.cumsum(0).tolist()])
    return [(label, slice(*edge)) for label, edge in zip(classes.tolist(), edges, strict=True)]
