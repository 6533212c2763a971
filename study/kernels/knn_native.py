"""Nearest neighbours by the project's own kernel.  in: rows in parts, forms to compare them   out: distances and rows

A form says what rows become before they meet: float64 that is subtracted, up to 32 columns; uint8 as it is, at four
times the speed of float32; bfloat16 at twice; float32.  Products of the last two give a lower bound of each distance,
of which study/native/nearest.cpp computes the exact result: a margin of every row holds what rounding can do.
"""

import ctypes
import dataclasses
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.kernels import native
from study.kernels.kde import DIRECT, WIDEST, Progress

KINDS = ("differences", "floats", "halves", "bytes")
WORDS = {"differences": torch.float64, "floats": torch.float32, "halves": torch.bfloat16, "bytes": torch.int8}
NUMBERS = {"differences": torch.float64, "floats": torch.float32, "halves": torch.float32, "bytes": torch.int32}
WORD_BYTES = {"differences": 8, "floats": 4, "halves": 4, "bytes": 4}
ALIGNED = 16  # words that the length of a row is a multiple of
SPARE = 8  # rows beyond the last that the kernel may read
PIECE = 2**18  # numbers converted at a time: they stay in the cache
PARTS_BYTES = 2**30  # of parts that are held
ROUNDING = 2.0**-24  # of float32
TINY = 2.0**-124  # above what is taken for 0 in a sum of two products of float32
BALANCE = 2.0**-9  # about the relative rounding of a row in bfloat16
ASKED, SAMPLED = 128, 4096  # rows by which bfloat16 is judged
SURPLUS = 0.02  # share of the rows at which measuring costs what bfloat16 saves

Read = Callable[[int, int], tuple[Tensor, Tensor, Tensor]]


class _Part(ctypes.Structure):
    """Part of study/native/nearest.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("words", "sizes", "column_sizes", "rows", "numbers", "offered")),
        ("count", ctypes.c_int64),
        ("first", ctypes.c_int64),
    )


@dataclasses.dataclass(frozen=True)
class Form:
    """How rows are compared: one of KINDS, their width, and what is subtracted from them before products in floats."""

    kind: str
    width: int
    centre: Tensor | None

    @property
    def depth(self) -> int:
        """Words of a row."""
        return -(-self.width * WORDS[self.kind].itemsize // WORD_BYTES[self.kind])

    @property
    def measured(self) -> bool:
        """Whether what is near by products is measured afterwards."""
        return self.kind in ("floats", "halves")

    def flops(self, pairs: int) -> int:
        """Of the products of so many pairs; differences are none."""
        return 0 if self.kind == "differences" else 2 * self.width * pairs

    @property
    def row_bytes(self) -> int:
        """What a row takes in a part, about."""
        return self.width * (WORDS[self.kind].itemsize + 4 * self.measured)

    def part(self, rows: Tensor, numbers: Tensor, offered: Tensor, first: int) -> "Part":
        """Rows (t, d) as the kernel takes them; their numbers and whether they are searched (t,), their first list."""
        stride = -(-self.depth // ALIGNED) * ALIGNED * WORD_BYTES[self.kind] // WORDS[self.kind].itemsize
        words = torch.empty((len(rows) + SPARE, stride), dtype=WORDS[self.kind])
        words[:, self.width :], words[len(rows) :] = 0, 0
        sizes = torch.zeros((2, len(rows)), dtype=NUMBERS[self.kind])
        for low, high in spans(len(rows), max(1, PIECE // self.width)):
            self._fill(rows[low:high], words[low:high, : self.width], sizes[:, low:high])
        measured = rows.float().contiguous() if self.measured else None
        return Part(words, sizes, measured, numbers.contiguous(), offered.contiguous(), first)

    def _fill(self, rows: Tensor, words: Tensor, sizes: Tensor) -> None:
        if self.kind == "differences":
            words.copy_(rows)
        elif self.kind == "bytes":
            words.copy_(rows.bitwise_xor(128).view(torch.int8))
            sizes[:] = rows.int().square_().sum(dim=1, dtype=torch.int32)
            sizes[1] -= 256 * rows.sum(dim=1, dtype=torch.int32)  # what taking 128 from the other side leaves
        else:
            centred = rows.float() - self.centre
            words.copy_(centred)
            sizes[:] = centred.square().sum(dim=1) / 2 - self.margin(centred, words)

    def margin(self, centred: Tensor, words: Tensor) -> Tensor:
        """(t,): the margins of two rows together bound the error of half their squared distance by products of words.

        Sums of d products in float32 are off by d roundings of |x| |y| at most.  Words that are off by a and b put the
        product off by |x| |b| + |a| |y + b|, and |x| |b| is at most (s |x|^2 + |b|^2 / s) / 2 for any s.
        """
        squares = centred.square().sum(dim=1)
        rounding = (self.width + 16) * (ROUNDING * squares + TINY)
        if self.kind == "floats":
            return rounding
        rounded = words.float()
        larger = torch.maximum(squares, rounded.square().sum(dim=1))
        off = rounded.sub_(centred).square_().sum(dim=1)
        return rounding + (1 + 2.0**-8) * (BALANCE * larger + off / BALANCE) / 2


class Part:
    """Tensors in one form, and the structure that points to them."""

    def __init__(
        self, words: Tensor, sizes: Tensor, rows: Tensor | None, numbers: Tensor, offered: Tensor, first: int
    ) -> None:
        self.held = (words, sizes, rows, numbers, offered)
        pointers = [each if each is None else each.data_ptr() for each in (words, sizes[0], sizes[1], *self.held[2:])]
        self.structure = _Part(*pointers, len(numbers), first)
        self.pointer = ctypes.byref(self.structure)


class Lists:
    """The nearest rows of some queries so far."""

    def __init__(self, form: Form, queries: int, k: int, exclude_self: bool) -> None:
        self.shape, self.library = (queries, k), native.library()
        sizes = (queries, k, form.width, form.depth)
        threads = torch.get_num_threads()
        self.handle = self.library.study_nearest_new(KINDS.index(form.kind), *sizes, exclude_self, threads)
        if not self.handle:
            raise MemoryError(f"too little memory for {k} neighbours of {queries} queries")
        weakref.finalize(self, self.library.study_nearest_free, self.handle)

    def one_way(self, queries: Part, rows: Part) -> None:
        """Offer rows to queries."""
        self.library.study_nearest_one_way(self.handle, queries.pointer, rows.pointer)

    def each_other(self, left: Part, right: Part) -> None:
        """Offer the rows of two parts to each other; of one part to itself."""
        if left is right:
            self.library.study_nearest_within(self.handle, left.pointer)
        else:
            self.library.study_nearest_both_ways(self.handle, left.pointer, right.pointer)

    def best(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The k nearest: distances and rows (queries, k)."""
        distances, rows = np.empty(self.shape), np.empty(self.shape, dtype=np.int64)
        self.library.study_nearest_best(self.handle, distances.ctypes.data, rows.ctypes.data)
        return distances, rows


def form_of(sample: Tensor, kind: torch.dtype, k: int, n: int, centre: Tensor | None) -> Form:
    """The form in which some rows are compared fastest.

    Args:
        sample: (t, d) of the n rows that are searched, as they were given.
        kind: of the queries.
        k, n: neighbours wanted, and rows.
        centre: (d) about the mean; any is right.
    """
    width, library = sample.shape[1], native.library()
    if width <= DIRECT:
        return Form("differences", width, None)
    if sample.dtype == kind == torch.uint8 and width < WIDEST and library.study_has_bytes():
        return Form("bytes", width, None)
    halves = Form("halves", width, centre)
    separable = library.study_has_bfloat16() and _separates(halves, sample, k, n)
    return halves if separable else Form("floats", width, centre)


def _separates(form: Form, sample: Tensor, k: int, n: int) -> bool:
    """Whether the bounds of a form leave few rows to measure: collapsed classes differ by less than bfloat16 shows."""
    centred = sample.float() - form.centre
    margin = form.margin(centred, centred.to(WORDS[form.kind]))
    half = centred.square().sum(dim=1) / 2
    gaps = half[:ASKED, None] + half - centred[:ASKED] @ centred.T
    rank = min(len(centred), 1 + max(1, k * len(centred) // n))  # a row is the first in its own list
    limit = gaps.kthvalue(rank, dim=1, keepdim=True).values
    return float((gaps - margin[:ASKED, None] - margin <= limit).float().mean()) - rank / len(centred) < SURPLUS


def among_themselves(lists: Lists, form: Form, read: Read, searched: int, tile: int, progress: Progress) -> None:
    """Offer all rows to each other; a pair of parts is compared once, for both sides.

    Args:
        lists: one for each row.
        form: how rows are compared.
        read: (low, high) to rows (t, d), their numbers (t,) and whether they are searched (t,), in any one order.  A
            random one keeps the lists quiet: the m-th row that a query meets is among its k nearest so far with
            probability k / m.
        searched: how many of the rows are searched; they come first.
        tile, progress: as in `nearest`.
    """
    n = lists.shape[0]
    part = _kept_parts(form, read, min(tile, n))
    edges = list(spans(n, tile))
    pairs = [(i, j) for i in edges if i[0] < searched for j in edges if j >= i]
    for done, (i, j) in enumerate(pairs, 1):
        lists.each_other(part(*i), part(*j))
        progress(done / len(pairs))


def among_others(lists: Lists, form: Form, ask: Read, read: Read, n: int, tile: int, progress: Progress) -> None:
    """Offer n rows, that `read` gives, to the queries, that `ask` gives; the rest as in `among_themselves`."""
    queries = lists.shape[0]
    part = _kept_parts(form, ask, min(tile, queries))
    pairs = itertools.product(spans(n, tile), spans(queries, tile))
    steps, rows, here = -(-n // tile) * -(-queries // tile), None, None
    for done, (searched, requested) in enumerate(pairs, 1):
        if searched != here:
            rows, here = form.part(*read(*searched), 0), searched
        lists.one_way(part(*requested), rows)
        progress(done / steps)


def _kept_parts(form: Form, read: Read, size: int) -> Callable[[int, int], Part]:
    """Makes parts of so many rows, and keeps those used last."""

    @functools.lru_cache(maxsize=max(2, PARTS_BYTES // (size * form.row_bytes)))
    def part(low: int, high: int) -> Part:
        return form.part(*read(low, high), low)

    return part


def spans(n: int, size: int) -> Iterator[tuple[int, int]]:
    """The edges of parts of so many."""
    return ((low, min(low + size, n)) for low in range(0, n, size))
