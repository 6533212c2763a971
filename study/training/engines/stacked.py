"""MLPs with subsets of any size as one stack that is kept full.  in: members, a recipe   out: an Outcome each, in order

For a GPU.  A row of the stack holds one member at its own step of its own pass; when its training is over it is looked
at and the row takes the next member.  A step reads orders, batch edges and rates from tensors, so it is one captured
graph for all rows; batches that are shorter than others are padded with examples of their own that count for nothing.
Rows without work stand still at rate 0, and go when they are half of the stack.  What comes from the host, orders and
initial weights, is drawn ahead in threads; what goes to it is read when it has arrived.  Neither stops the device.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from study.data import Dataset
from study.errors import RecipeError, Stopped
from study.recipe import Recipe
from study.training.cuda_graphs import Captured
from study.training.device_data import Examples
from study.training.engines.prefetch import Draw, Load, Streams, Supply
from study.training.evaluation import EVALUATE_ROWS, answers
from study.training.job import Hooks, Member, Outcome
from study.training.mlp import MLPLearner
from study.training.placement import Placement
from study.training.regularizers import perturbed

AHEAD = 32  # members whose weights and first pass are drawn before a row is free
DRAWERS = 8  # threads that draw; permutations run side by side, initial weights one after the other
LOOKED = 2**26  # inputs in one block of a look on a GPU: few and large operations
SMALLEST = 2  # rows of a stack
SPARE = 0.8  # of the free memory is taken
T = TypeVar("T")


@dataclass
class Seat:
    """The host's notes of one row: whose it is, its pass, the steps left in it, the next pass, mean losses so far."""

    load: Load
    draw: Draw
    epoch: int = 0
    left: int = 0
    coming: Future[Draw] | None = None
    losses: list[Tensor] = field(default_factory=list)
    seen: int = 0
    begun: float = field(default_factory=time.perf_counter)


@dataclass
class Finished:
    """A trained member, whose answers are on their way to the host."""

    number: int
    arrays: list[Tensor]  # prediction, confidence, top confidence (n,), losses (e,)
    seconds: float
    arrived: "torch.cuda.Event | None"

    def outcome(self) -> Outcome:
        """Wait for the answers."""
        if self.arrived is not None:
            self.arrived.synchronize()
        *answers, losses = (array.numpy().copy() for array in self.arrays)
        return Outcome(*answers, losses=losses.tolist(), seconds=self.seconds, epochs=len(losses))


class Belt:
    """The stack, and on the device what its next steps read: orders, batches, rates, the step in the pass of each row.

    Args:
        loads: of the first rows.
        supply: gives the others.
        examples: n of them.
        recipe: one for all.
        placement: where.
        hooks: progress and stop.
    """

    def __init__(
        self,
        loads: Sequence[Load],
        supply: Supply,
        examples: Examples,
        recipe: Recipe,
        placement: Placement,
        hooks: Hooks,
    ) -> None:
        self.supply, self.examples, self.recipe, self.hooks = supply, examples, recipe, hooks
        self.seats: list[Seat | None] = [Seat(load, load.first) for load in loads]
        self.seats += [None] * (SMALLEST - len(loads))
        networks = [load.network for load in loads] + [loads[0].network] * (SMALLEST - len(loads))
        where = (placement.device, placement.master, placement.compute)
        self.learner = MLPLearner(networks, recipe.optimizer, *where, loss=recipe.train.loss)
        self.learner.update.on_device()
        self.noisy = bool(recipe.train.input_noise or recipe.train.input_dropout)
        self.device = self.learner.weights.device
        self.width, self.step = 0, None
        self._lay_out(len(self.seats))
        for row, seat in enumerate(self.seats):
            if seat:
                self._begin_pass(row, seat)

    def _lay_out(self, rows: int) -> None:
        """What the steps read, all zeros: rows that stand still."""
        n = self.examples.n
        batches = len(self.recipe.train.edges(n)) - 1
        zeros = {"device": self.device}
        self.orders = torch.zeros(rows, n, dtype=torch.int32, **zeros)
        self.crops = [
            torch.zeros(rows, n, dtype=torch.uint8, **zeros) for _ in range(3 if self.examples.augmented else 0)
        ]
        self.lows, self.counts = (torch.zeros(rows, batches, dtype=torch.int64, **zeros) for _ in range(2))
        self.rates = torch.zeros(rows, batches, dtype=torch.float64, **zeros)
        self.position = torch.zeros(rows, 1, dtype=torch.int64, **zeros)
        self.total = torch.zeros(rows, dtype=self.learner.weights.dtype, **zeros)

    def run(self) -> Iterator[Finished]:
        """Train until there is nothing more, in the order in which trainings end.

        Raises:
            Stopped: `hooks.stop` was set.
            torch.OutOfMemoryError: the stack is too large.
        """
        while any(self.seats):
            self._make_step()
            for _ in range(min(seat.left for seat in self.seats if seat)):
                if self.hooks.stop.is_set():
                    raise Stopped
                self.step()
                for seat in filter(None, self.seats):
                    seat.left -= 1
            for row, seat in enumerate(self.seats):
                if seat and not seat.left:
                    yield from self._end_pass(row, seat)
            self._narrow()

    def _make_step(self) -> None:
        """Capture the step anew when a batch is wider than all before, or after `_narrow`."""
        width = max(int(seat.load.course.counts.max()) for seat in self.seats if seat)
        if self.step is not None and width <= self.width:
            return
        self.width = max(width, self.width)
        self.reach = torch.arange(self.width, device=self.device)
        learner = self.learner
        used = [] if learner.used is learner.weights else [learner.used]
        state = [learner.weights, *used, *learner.update.tensors(), self.position, self.total]
        # noise comes from a generator per row, which no graph can hold
        self.step = self._advance if self.noisy else Captured(self._advance, (), state)

    def _advance(self) -> tuple[()]:
        """One step of every row, read from tensors alone."""
        low, count, rate = (each.gather(1, self.position) for each in (self.lows, self.counts, self.rates))
        at = low + torch.minimum(self.reach, count - 1).clamp_(min=0)
        rows = self.orders.gather(1, at).long()
        crop = [each.gather(1, at).reshape(-1) for each in self.crops]
        if crop:
            crop = (crop[0].long(), crop[1].long(), crop[2].bool())
        labels = self.examples.labels[rows]
        noise = [seat.draw.noise[0] if seat else None for seat in self.seats] if self.noisy else []
        sizes = [self._size(seat) for seat in self.seats] if self.noisy else None
        images = self.examples.batch(rows, crop or None)
        images = perturbed(images, labels, self.learner, self.recipe.train, noise, sizes)
        count = count.squeeze(1)
        loss = self.learner.step(images, labels, rate.squeeze(1), count)
        self.total.add_(loss * count)
        self.position.add_(1).clamp_(max=self.lows.shape[1] - 1)
        return ()

    def _size(self, seat: Seat | None) -> int:
        """Examples in the row's next batch."""
        if seat is None:
            return 0
        course = seat.load.course
        return int(course.counts[course.steps(seat.epoch) - seat.left])

    def _begin_pass(self, row: int, seat: Seat) -> None:
        """Send what the pass reads; the device takes it after the steps before."""
        course, member = seat.load.course, seat.load.member
        seat.left = course.steps(seat.epoch)
        if seat.epoch + 1 < course.passes:
            seat.coming = self.supply.streams.draw(member, seat.epoch + 1)
        begun = seat.epoch * len(course.lows)
        sent = [(self.orders, seat.draw.order), *zip(self.crops, seat.draw.crop, strict=True)]
        sent += [(self.lows, course.lows), (self.counts, course.counts)]
        sent.append((self.rates, course.rates[begun : begun + seat.left]))
        for kept, values in sent:
            kept[row, : len(values)].copy_(values, non_blocking=True)
        self.position[row] = 0
        self.total[row] = 0

    def _end_pass(self, row: int, seat: Seat) -> Iterator[Finished]:
        """Go on with the next pass; after the last one look at the member, and take the next."""
        course = seat.load.course
        seen = int(course.counts[: course.steps(seat.epoch)].sum())
        seat.losses.append(self.total[row] / seen)
        seat.seen += seen
        self.hooks.progress(seen)
        seat.epoch += 1
        if seat.epoch < course.passes:
            seat.draw = seat.coming.result()
        else:
            yield self._finish(row, seat)
            load = self.supply.take()
            self.seats[row] = seat = load and Seat(load, load.first)
            if seat is None:
                self.counts[row].zero_()
                self.rates[row].zero_()
                return
            self.learner.reset(row, load.start)
        self._begin_pass(row, seat)

    def _finish(self, row: int, seat: Seat) -> Finished:
        """Every example through this row alone, without augmentation."""
        on_gpu = self.device.type == "cuda"
        size = max(EVALUATE_ROWS, LOOKED // self.examples.images[0].numel()) if on_gpu else EVALUATE_ROWS
        told, _ = answers(self.learner.row(row), self.examples, {}, size)
        arrays = [each.to("cpu", non_blocking=True) for each in (*told, torch.stack(seat.losses))]
        arrived = None
        if on_gpu:
            arrived = torch.cuda.Event()
            arrived.record()
        seconds = (time.perf_counter() - seat.begun) / sum(each is not None for each in self.seats)
        return Finished(seat.load.number, arrays, seconds, arrived)

    def _narrow(self) -> None:
        """Drop the rows that stand still, when they are half of the stack: nobody comes for them."""
        rows = [row for row, seat in enumerate(self.seats) if seat]
        if not SMALLEST <= len(rows) <= len(self.seats) // 2:
            return
        self.step = None
        self.learner.keep(rows)
        self.learner.update.on_device()
        for name in ("orders", "lows", "counts", "rates", "position", "total"):
            setattr(self, name, getattr(self, name)[rows])
        self.crops = [each[rows] for each in self.crops]
        self.seats = [self.seats[row] for row in rows]

    def under_way(self) -> list[Load]:
        """The members that have not come to their end; what they have seen is taken off the progress."""
        seats = [seat for seat in self.seats if seat]
        self.hooks.progress(-sum(seat.seen for seat in seats))
        return [seat.load for seat in seats]


def convey(
    members: Iterable[Member], examples: Examples, dataset: Dataset, recipe: Recipe, placement: Placement, hooks: Hooks
) -> Iterator[Finished]:
    """Train members as a stack of `placement.stack` rows, or of as many as there is memory for.

    A stack that turns out too large is halved, and the members under way start anew.

    Yields:
        One Finished per member, in the members' order.

    Raises:
        Stopped: `hooks.stop` was set.
        RecipeError: not even two members fit.
    """
    torch.set_num_threads(placement.threads * placement.cores)
    on_gpu = placement.device.startswith("cuda")
    pool = ThreadPoolExecutor(max(1, min(DRAWERS, placement.machine - 1)))
    try:
        with torch.cuda.device(placement.device) if on_gpu else nullcontext():
            supply = Supply(members, Streams(dataset, recipe, placement, pool), min(AHEAD, placement.stack))
            yield from _in_order(_shrinking(supply, examples, recipe, placement, hooks))
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(finished: Iterator[Finished]) -> Iterator[Finished]:
    """As the members came, not as they ended."""
    early: dict[int, Finished] = {}
    number = 0
    for each in finished:
        early[each.number] = each
        while number in early:
            yield early.pop(number)
            number += 1


def _shrinking(
    supply: Supply, examples: Examples, recipe: Recipe, placement: Placement, hooks: Hooks
) -> Iterator[Finished]:
    """One belt after the other, each half as wide as the last, until one comes to the end."""
    size = placement.stack
    while loads := list(islice(iter(supply.take, None), size)):
        belt = None
        try:
            size = min(size, _fitting(loads, examples, placement))
            supply.give_back(loads[size:])
            belt = Belt(loads[:size], supply, examples, recipe, placement, hooks)
            yield from belt.run()
            return
        except torch.OutOfMemoryError:
            again = belt.under_way() if belt else loads[:size]
        if size <= SMALLEST:
            raise RecipeError(
                f"{placement.device} has too little memory for two of these networks; --set runtime.device=cpu, "
                "or a smaller train.batch_size"
            )
        size = max(SMALLEST, size // 2)
        supply.give_back(again)
        belt = None
        if placement.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _fitting(loads: Sequence[Load], examples: Examples, placement: Placement) -> int:
    """Rows for which a GPU has memory, as far as can be told beforehand; elsewhere all of them.

    Of each row: weights and up to two moments in the master precision, the weights and slopes of the products, the
    order and crops of a pass, and three times the activations of a batch: values, slopes and one copy on the way.
    """
    if not placement.device.startswith("cuda"):
        return len(loads)
    master, compute = (torch.finfo(dtype).bits // 8 for dtype in (placement.master, placement.compute))
    shapes = [layer.weight.shape for layer in (*loads[0].network.blocks, loads[0].network.classifier)]
    widths = shapes[0][1] + sum(outputs for outputs, _ in shapes)
    b = max(int(load.course.counts.max()) for load in loads)
    row = len(loads[0].start) * (3 * master + 2 * compute) + 7 * examples.n + 3 * b * widths * max(compute, 4)
    free, _ = torch.cuda.mem_get_info()
    return max(SMALLEST, min(len(loads), int(SPARE * free) // row))


def in_background(finished: Iterator[T], size: int, over: threading.Event) -> Iterator[T]:
    """Train in a thread, so that the device goes on while the caller writes down what is finished.

    Args:
        finished: what training gives.
        size: of them wait for the caller, no more.
        over: is set when the caller asks no more; ends the training.
    """
    waiting: queue.Queue[T | BaseException | None] = queue.Queue(size)

    def put(entry: T | BaseException | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                waiting.put(entry, timeout=0.1)
                return

    def work() -> None:
        try:
            for each in finished:
                put(each)
            put(None)
        except BaseException as error:  # raised again in the caller's thread
            put(error)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        try:
            while (entry := waiting.get()) is not None:
                if isinstance(entry, BaseException):
                    raise entry
                yield entry
        finally:
            over.set()
