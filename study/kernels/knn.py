"""Exact nearest neighbours, in tiles.  in: features (n, d), queries (q, d)   out: distances and rows (q, k)

Nothing q x n is held.  On a CPU the project's kernel reads the products of a tile as they are made; where the
features are the queries, once for both sides.  Elsewhere, two passes over the features: the first finds, by float32
products, every row that can be among the k nearest once the products' rounding is allowed for; the second measures
these by direct differences in float64.  Either way the result is that of float64 brute force, equal distances by the
lower row.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.errors import DataError
from study.kernels import native
from study.kernels.kde import DIRECT, Device, Features, Progress, exact_float32
from study.kernels.knn_native import SAMPLED, Lists, among_others, among_themselves, form_of, spans

TILE = 8192  # rows searched at a time, fewer where they are wide
BLOCK = 1024  # queries compared with them at a time
TILE_BYTES = 2**28
BLOCK_BYTES = 2**26
HELD = 3 * 2**29  # bytes of computed queries that are held; beyond, the rows searched are computed again
PAIRS = 2**20  # numbers in the differences that are measured at a time
WORK = 2**24  # numbers looked through at a time
ROUNDING = 2.0**-24  # of float32


@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows that are computed when they are read, because all of them would not fit.

    n: how many; read: (low, high) to the rows low..high-1, (high - low, d), the same at every call.
    """

    n: int
    read: Callable[[int, int], Tensor]


def nearest(
    features: Features | Stream,
    k: int,
    *,
    queries: Features | Stream | None = None,
    exclude_self: bool = False,
    device: Device = None,
    tile: int = TILE,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the k nearest rows of each query by Euclidean distance, exactly.

    Args:
        features: (n, d) or images (n, ...), any number type, numpy or torch; or a Stream of such rows.  float64 counts
            in full up to 32 columns and is rounded to float32 beyond.  Half precision is taken as it is.
        k: number of neighbours.
        queries: (q, d) like `features`; by default the features themselves.
        exclude_self: leave a row out of its own neighbours; with queries of their own there is no self.
        device: where to compute; by default where the features are.
        tile: rows searched at a time, fewer where a tile would be above 256 MiB.
        progress: called with the share done, 0 to 1; may raise to end the work.

    Returns:
        Distances (q, k), rising, and rows (q, k); equal distances are in the order of their rows.

    Raises:
        DataError: k is not between 1 and the number of rows to be found, or features are not finite.
        ValueError: widths that differ, or `exclude_self` with queries.

    Memory beyond the features: 1 GiB for tiles, 64 (k + 8) q bytes for the result, and 1.5 GiB more for a Stream of
    queries.  Of a row with many exact copies, the k + 1 first are searched: later ones lose every tie.
    """
    if exclude_self and queries is not None:
        raise ValueError("queries that are not the features have no self to exclude")
    queries = None if queries is features else queries
    searched = _stream(features, device)
    requested = searched if queries is None else _stream(queries, device)
    if not 1 <= k <= searched.n - exclude_self:
        raise DataError(f"{k} neighbours cannot be found among {searched.n - exclude_self} examples; set another k")
    with torch.no_grad():
        field = _Field(searched, k, tile, held=not isinstance(features, Stream))
        if field.native and field.held and queries is None:
            return field.search_itself(k, exclude_self, _part(progress, 0, 1))
        distances, rows = np.empty((requested.n, k)), np.empty((requested.n, k), dtype=np.int64)
        for low, high in spans(requested.n, _held_rows(requested, features if queries is None else queries)):
            part = _part(progress, low / requested.n, high / requested.n)
            block = _finite(requested.read(low, high), low)
            if block.shape[1] != field.width:
                raise ValueError(f"queries are {block.shape[1]} wide, the features {field.width}")
            search = field.search_native if field.native else field.search
            distances[low:high], rows[low:high] = search(block, low, k, exclude_self, part)
            del block  # before the next are computed
    return distances, rows


def votes(rows: NDArray, labels: NDArray, n_classes: int) -> NDArray[np.int64]:
    """Count the labels among the neighbours: rows (q, k) and labels (n,) of the rows searched to (q, c)."""
    cells = np.arange(len(rows))[:, None] * n_classes + labels[rows]
    return np.bincount(cells.ravel(), minlength=len(rows) * n_classes).reshape(len(rows), n_classes)


class _Field:
    """The rows searched: their centre, how large they are around it, and which of them can matter at all."""

    def __init__(self, stream: Stream, k: int, tile: int, held: bool = False) -> None:
        self.stream, self.held = stream, held
        self.width = stream.read(0, 1).shape[1]
        self.direct = self.width <= DIRECT
        self.tile = max(1, min(tile, TILE_BYTES // (4 * self.width)))
        first = stream.read(0, min(stream.n, BLOCK, self.tile))
        self.device = first.device
        self.native = self.device.type == "cpu" and native.library() is not None
        # any centre is right: it only makes the products' rounding small
        self.centre = 0 if self.direct else first.double().mean(dim=0).float()
        weights = np.random.default_rng(0).integers(-(2**63), 2**63, size=self.width) | 1
        weights = torch.as_tensor(weights, device=self.device)
        self.largest, marks = 0.0, []
        for low, high in spans(stream.n, self.tile):
            rows = _finite(stream.read(low, high), low)
            marks.append(_marks(rows, weights))
            if not self.native:
                self.largest = max(self.largest, float(self.centred(rows).square().sum(dim=1).max()))
        self.kept = _first_copies(torch.cat(marks), k + 1)

    def centred(self, rows: Tensor) -> Tensor:
        """Rows as they are compared: float64 for direct differences, else float32 around the centre."""
        return rows.double() if self.direct else rows.float() - self.centre

    def slack(self, left: Tensor) -> Tensor:
        """(b, 1): by how much two values |y|^2 - 2 x y of centred queries may be off together."""
        return 2 * _error(self.width) * (left.square().sum(dim=1, keepdim=True) + self.largest)

    def searched(self, low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the rows low..high-1 that can matter, and their numbers; all of them are searched."""
        numbers = self.kept[low:high].nonzero().squeeze(1)
        rows = self.stream.read(low, high)
        rows = rows if len(numbers) == len(rows) else rows.index_select(0, numbers)
        return rows, numbers + low, torch.ones_like(numbers, dtype=torch.bool)

    def mixed(self, low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
        """Held rows in `order`, their numbers, and whether they can matter."""
        numbers = self.order[low:high]
        return self.stream.read(0, self.stream.n).index_select(0, numbers), numbers, self.kept[numbers]

    @functools.cached_property
    def order(self) -> Tensor:
        """All rows at random, those that can matter first."""
        mixed = torch.randperm(self.stream.n, generator=torch.Generator().manual_seed(0))
        return mixed[self.kept[mixed].argsort(descending=True, stable=True)]

    def search_itself(self, k: int, exclude_self: bool, progress: Progress) -> tuple[NDArray, NDArray]:
        """The k nearest of each row, distances and rows (n, k): held rows, by the project's own kernel."""
        n = self.stream.n
        sample, _, _ = self.mixed(0, min(n, SAMPLED, self.tile))
        form = form_of(sample, sample.dtype, k, n, self.centre)
        lists = Lists(form, n, k, exclude_self)
        among_themselves(lists, form, self.mixed, int(self.kept.sum()), self.tile, progress)
        native.count_flops(form.flops(n * n // 2))
        distances, rows = np.empty((n, k)), np.empty((n, k), dtype=np.int64)
        distances[self.order.numpy()], rows[self.order.numpy()] = lists.best()
        return distances, rows

    def search_native(
        self, queries: Tensor, start: int, k: int, exclude_self: bool, progress: Progress
    ) -> tuple[NDArray, NDArray]:
        """As `search`, by the project's own kernel."""
        read, n = (self.mixed, int(self.kept.sum())) if self.held else (self.searched, self.stream.n)
        sample, _, _ = read(0, min(n, SAMPLED if self.held else BLOCK, self.tile))
        form = form_of(sample, queries.dtype, k, n, self.centre)
        lists = Lists(form, len(queries), k, exclude_self)

        def ask(low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
            numbers = torch.arange(start + low, start + high)
            return queries[low:high], numbers, torch.zeros_like(numbers, dtype=torch.bool)

        among_others(lists, form, ask, read, n, self.tile, progress)
        native.count_flops(form.flops(n * len(queries)))
        return lists.best()

    def search(
        self, queries: Tensor, start: int, k: int, exclude_self: bool, progress: Progress
    ) -> tuple[NDArray, NDArray]:
        """The k nearest rows of queries, the first of them being number `start`: distances and rows (q, k)."""
        size = max(1, min(BLOCK, BLOCK_BYTES // (4 * self.width)))
        blocks = [_Block(self, queries[a:b], start + a, k) for a, b in spans(len(queries), size)]
        steps, done = 2 * len(blocks) * -(-self.stream.n // self.tile), 0
        with exact_float32(self.device):
            for measuring in (False, True):
                for low, high in spans(self.stream.n, self.tile):
                    if measuring:
                        rows = self.stream.read(low, high)
                    else:
                        rows, numbers, _ = self.searched(low, high)
                        compared = self.centred(rows)
                        squares = compared.square().sum(dim=1)
                    for block in blocks:
                        if measuring:
                            block.measure(rows, low)
                        else:
                            block.offer(compared, squares, numbers, exclude_self)
                        done += 1
                        progress(done / steps)
        parts = [block.best() for block in blocks]
        return np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts])


class _Block:
    """Some queries and their candidates so far: (b, m) values that rise along a row, infinite where there is none."""

    def __init__(self, field: _Field, queries: Tensor, low: int, k: int) -> None:
        self.field, self.queries, self.k = field, queries, k
        self.low, self.high = low, low + len(queries)
        self.compared = field.centred(queries) if len(queries) * field.width <= PAIRS else None
        shape, device = (len(queries), 0), field.device
        self.values = torch.empty(shape, dtype=torch.float64 if field.direct else torch.float32, device=device)
        self.rows = torch.empty(shape, dtype=torch.int64, device=device)
        self.exact: Tensor | None = None

    def offer(self, right: Tensor, squares: Tensor, columns: Tensor, exclude_self: bool) -> None:
        """Keep those of the rows `right` (t, d) that can be among the k nearest so far; (t,) their squares, numbers."""
        left = self.field.centred(self.queries) if self.compared is None else self.compared
        if self.field.direct:
            values = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
            slack = 1e-12  # relative, of a distance in float64
        else:
            values, slack = torch.addmm(squares, left, right.T, alpha=-2), self.field.slack(left)
        if exclude_self:
            _forget(values, columns, self.low)
        limit = self._limit(self.values, slack)
        near = values <= limit
        if int(near.count_nonzero()) > 4 * self.k * len(values) and values.shape[1] >= self.k:
            within = torch.topk(values, self.k, dim=1, largest=False, sorted=True).values
            near = values <= torch.minimum(limit, self._limit(within, slack))
        self._merge(values, near, columns)
        keep = (self.values <= self._limit(self.values, slack)) & self.values.isfinite()
        width = int(keep.sum(dim=1).max())
        self.values, self.rows = self.values[:, :width].contiguous(), self.rows[:, :width].contiguous()

    def _limit(self, rising: Tensor, slack: Tensor | float) -> Tensor:
        """(b, 1): a value beyond cannot be among the k nearest, whatever its rounding; infinite with fewer than k."""
        if rising.shape[1] < self.k:
            return rising.new_full((len(rising), 1), torch.inf)
        kth = rising[:, self.k - 1 : self.k]
        return kth * (1 + slack) if self.field.direct else kth + slack

    def _merge(self, values: Tensor, near: Tensor, columns: Tensor) -> None:
        row, column = near.nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(values))
        place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        shape = (len(values), int(counts.max()))
        inserted = torch.full(shape, torch.inf, dtype=self.values.dtype, device=row.device)
        named = torch.zeros(shape, dtype=torch.int64, device=row.device)
        inserted[row, place], named[row, place] = values[row, column], columns[column]
        self.values, order = torch.cat([self.values, inserted], dim=1).sort(dim=1)
        self.rows = torch.cat([self.rows, named], dim=1).gather(1, order)

    def measure(self, right: Tensor, low: int) -> None:
        """Measure the candidates among the rows `right`, the first of them being number `low`, in float64."""
        if self.exact is None:
            self.exact = torch.full(self.values.shape, torch.inf, dtype=torch.float64, device=self.values.device)
        inside = (self.rows >= low) & (self.rows < low + len(right)) & self.values.isfinite()
        for row, place in zip(
            *(part.split(max(1, PAIRS // right.shape[1])) for part in inside.nonzero().T), strict=True
        ):
            difference = _plain(right, self.rows[row, place] - low) - _plain(self.queries, row)
            self.exact[row, place] = torch.linalg.vector_norm(difference, dim=1)

    def best(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The k nearest: (b, k) distances and rows."""
        rows, order = self.rows.masked_fill(self.exact.isinf(), torch.iinfo(torch.int64).max).sort(dim=1)
        exact, again = self.exact.gather(1, order).sort(dim=1, stable=True)
        return exact[:, : self.k].cpu().numpy(), rows.gather(1, again)[:, : self.k].cpu().numpy()


def _error(width: int) -> float:
    """A bound of the error of |y|^2 - 2 x y in float32 products, as a share of |x|^2 + |y|^2.

    Rounding errors add up like a random walk, with sqrt(d).  At most 0.11 of this bound was measured, on pixels and on
    made-up features of 40 to 4096 columns.
    """
    return 4 * ROUNDING * (width**0.5 + 8)


def _forget(values: Tensor, columns: Tensor, low: int) -> None:
    """Make the value of a row with itself infinite; row i of `values` is row low + i of the features."""
    if not len(columns):
        return
    selves = torch.arange(low, low + len(values), device=columns.device)
    place = torch.searchsorted(columns, selves).clamp_(max=len(columns) - 1)
    hit = columns[place] == selves
    values[hit, place[hit]] = torch.inf


def _plain(rows: Tensor, which: Tensor) -> Tensor:
    """Some rows in float64; wider float64 than is compared in full is rounded first."""
    chosen = rows.index_select(0, which)
    return (chosen if chosen.shape[1] <= DIRECT else chosen.float()).double()


def _stream(features: Features | Stream, device: Device) -> Stream:
    if isinstance(features, Stream):
        return Stream(features.n, lambda low, high: features.read(low, high).flatten(1))
    if isinstance(features, np.ndarray):
        features = np.require(features, requirements="W")  # torch warns of arrays that it must not write to
    rows = torch.as_tensor(features).detach()
    rows = rows.to(device or rows.device).reshape(len(rows), -1)
    return Stream(len(rows), lambda low, high: rows[low:high])


def _held_rows(requested: Stream, given: Features | Stream) -> int:
    """How many queries are searched for in one go: all that are there anyway, and HELD bytes of computed ones."""
    if not isinstance(given, Stream):
        return requested.n
    first = requested.read(0, 1)
    return max(1, HELD // (first.element_size() * first.shape[1]))


def _finite(rows: Tensor, low: int) -> Tensor:
    parts = rows.split(max(1, WORK // rows.shape[1])) if rows.is_floating_point() else ()
    finite = torch.cat([part.isfinite().all(dim=1) for part in parts]) if parts else None
    if finite is not None and not bool(finite.all()):
        raise DataError(
            f"the feature vector of row {low + int(finite.int().argmin())} is not finite; if it comes from a network, "
            "its training diverged: lower optimizer.lr"
        )
    return rows


def _marks(rows: Tensor, weights: Tensor) -> Tensor:
    """A number per row that equal rows share and others hardly ever: a random sum of its bits, modulo 2^64."""
    views = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    parts = rows.split(max(1, WORK // rows.shape[1]))
    return torch.cat([((part + 0).view(views[part.element_size()]).long() * weights).sum(dim=1) for part in parts])


def _first_copies(marks: Tensor, copies: int) -> Tensor:
    """(n,) bool: the rows before which fewer than so many equal ones stand.

    That `copies` different rows share a mark would take as many coincidences of 2^-40 and less at once.
    """
    ordered, order = marks.sort(stable=True)
    position = torch.arange(len(marks), device=marks.device)
    begins = torch.cat([torch.ones_like(ordered[:1], dtype=torch.bool), ordered[1:] != ordered[:-1]])
    start = torch.where(begins, position, 0).cummax(dim=0).values
    kept = torch.empty_like(begins)
    kept[order] = position - start < copies
    return kept


def _part(progress: Progress | None, begin: float, end: float) -> Progress:
    """Progress of a part, reported as progress of the whole."""
    return (lambda share: progress(begin + share * (end - begin))) if progress else lambda share: None
