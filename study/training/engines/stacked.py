"""MLPs of one subset size as one computation.  in: jobs one by one, a Context   out: results as they come

For a GPU.  A row of the stack holds one job.  All rows have the same batch edges, so they are at the same step of their
epoch: a step reads its position from one scalar and is one captured graph.  At the end of an epoch a row whose job is
over takes the next job of its kind; rows without a job stay at learning rate 0, and the stack is compacted once half of
them are idle.  Orders and initial weights are drawn ahead in threads; what goes to the host is read when it has
arrived.  Neither stops the device.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from study.errors import Stopped
from study.models.build import stackable
from study.training.device_data import Examples
from study.training.engines.base import Context, NextJob
from study.training.engines.stack_batches import EpochDraw, StackBatches, draw_epoch
from study.training.evaluation import EVALUATE_ROWS, evaluate, validate
from study.training.learners import build_network, stack_learner
from study.training.loop import train_epoch
from study.training.mlp import MLP, flat
from study.training.results import Evaluation, Failure, Outcome, Result
from study.training.types import Job

DRAWERS = 8  # threads that draw; permutations run side by side, initial weights one after the other
EVALUATED_INPUTS = 2**26  # inputs in one block of an evaluation on a GPU: few and large operations
SMALLEST = 2  # rows of a stack
SPARE = 0.8  # of the free memory is taken
ASK_AGAIN = 1.0  # seconds after which an idle row asks for a job again


def stack_kind(job: Job) -> tuple:
    """What the jobs of one stack have in common: they differ in rate, momentum, decay, schedule, rows and seed alone.

    Subsets may differ in size by what the last batch of an epoch differs.
    """
    optimizer, training, n = job.optimizer, job.training, len(job.rows)
    rule = optimizer.name, optimizer.nesterov if optimizer.name == "sgd" else False
    return job.network, rule, training, len(training.edges(n)) if training.batch_size else n


def one_stack(jobs: Sequence[Job]) -> bool:
    """Whether these jobs can train as one stack."""
    first = jobs[0]
    return stackable(first.network) and all(stack_kind(job) == stack_kind(first) for job in jobs[1:])


@dataclass
class Prepared:
    """A job whose initial weights and first epoch are being drawn."""

    job: Job
    kind: tuple
    start: Future[tuple[MLP, Tensor]]
    first: Future[EpochDraw]


@dataclass
class Row:
    """A row's job: the epochs it has made, the draw of its next one, the examples it has seen."""

    prepared: Prepared
    coming: Future[EpochDraw]
    epoch: int = 0
    seen: int = 0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def job(self) -> Job:
        """What it trains."""
        return self.prepared.job

    @property
    def epochs(self) -> int:
        """Of the whole training."""
        return self.job.training.length(len(self.job.rows))[0]


@dataclass
class Leaving:
    """A trained job whose predictions are on their way to the host."""

    job: Job
    arrays: list[Tensor]  # prediction, confidence, top confidence, losses (e,)
    seconds: float
    arrival: "torch.cuda.Event | None"

    def has_arrived(self) -> bool:
        """Whether nobody has to wait."""
        return self.arrival is None or self.arrival.query()

    def outcome(self) -> Outcome:
        """Wait for the predictions."""
        if self.arrival is not None:
            self.arrival.synchronize()
        *predictions, losses = (array.numpy().copy() for array in self.arrays)
        return Outcome(*predictions, losses=losses.tolist(), seconds=self.seconds, epochs=len(losses))


class Source:
    """Jobs in order; what they need from the host is drawn ahead."""

    def __init__(self, next_job: NextJob, context: Context, pool: ThreadPoolExecutor) -> None:
        self.next_job, self.context, self.pool = next_job, context, pool
        self.coming: deque[Prepared] = deque()

    def take(self, kind: tuple | None = None) -> Prepared | None:
        """The next job; None where there is none at present, or where it is of another kind."""
        while len(self.coming) < max(1, self.context.ahead) and (job := self.next_job()) is not None:
            self.coming.append(self._prepared(job))
        if not self.coming or (kind is not None and self.coming[0].kind != kind):
            return None
        return self.coming.popleft()

    def take_many(self, count: int) -> list[Prepared]:
        """Up to so many jobs of one kind."""
        taken: list[Prepared] = []
        while len(taken) < count and (prepared := self.take(taken[0].kind if taken else None)):
            taken.append(prepared)
        return taken

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Put jobs in front of the others, to be trained from their start."""
        self.coming.extendleft(self._prepared(job) for job in reversed(jobs))

    def draw(self, job: Job, epoch: int) -> Future[EpochDraw]:
        """The order of an epoch (0-based)."""
        return self.pool.submit(draw_epoch, job, epoch, torch.device(self.context.placement.device))

    def _prepared(self, job: Job) -> Prepared:
        return Prepared(job, stack_kind(job), self.pool.submit(self._start, job), self.draw(job, 0))

    def _start(self, job: Job) -> tuple[MLP, Tensor]:
        network = build_network(job, self.context.dataset)
        weights = flat(network)
        on_gpu = self.context.placement.device.startswith("cuda")
        return network, weights.pin_memory() if on_gpu else weights


class Stacked:
    """An engine of one stack of `placement.stack` rows, or of as many as there is memory for."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def results(self, next_job: NextJob, idle: Callable[[], None] = lambda: None) -> Generator[tuple[Job, Result]]:
        """See `Engine`.  A stack that turns out too large is halved, and the jobs under way begin anew."""
        placement = self.context.placement
        torch.set_num_threads(placement.threads * placement.cores)
        pool = ThreadPoolExecutor(max(1, min(DRAWERS, placement.machine - 1)))
        try:
            with torch.cuda.device(placement.device) if placement.device.startswith("cuda") else nullcontext():
                yield from self._stacks(Source(next_job, self.context, pool), idle)
        finally:
            pool.shutdown(cancel_futures=True)

    def _stacks(self, source: Source, idle: Callable[[], None]) -> Generator[tuple[Job, Result]]:
        """One stack after the other: another kind of jobs, or fewer rows."""
        size = self.context.placement.stack
        while prepared := source.take_many(size):
            stack = None
            try:
                size = min(size, fitting(prepared, self.context))
                source.give_back([each.job for each in prepared[size:]])
                stack = Stack(prepared[:size], source, self.context)
                yield from stack.results(idle)
                continue
            except torch.OutOfMemoryError:
                again = stack.unfinished() if stack else [each.job for each in prepared[:size]]
            stack = None
            if self.context.placement.device.startswith("cuda"):
                torch.cuda.empty_cache()
            if size <= SMALLEST:
                yield again.pop(0), Failure("out of memory")
            size = max(SMALLEST, size // 2)
            source.give_back(again)


class Stack:
    """Rows of one kind of jobs, and what their next steps read.

    Args:
        prepared: the first jobs.
        source: gives the others.
        context: data, placement, hooks, validation rows.
    """

    def __init__(self, prepared: Sequence[Prepared], source: Source, context: Context) -> None:
        self.source, self.context = source, context
        self.kind, self.training = prepared[0].kind, prepared[0].job.training
        self.rows: list[Row | None] = [Row(each, each.first) for each in prepared]
        self.rows += [None] * (SMALLEST - len(prepared))
        filled = [*prepared, *[prepared[0]] * (SMALLEST - len(prepared))]
        networks = [each.start.result()[0] for each in filled]
        self.learner = stack_learner(networks, [each.job for each in filled], context.placement)
        self.learner.update.on_device()
        self.device = self.learner.weights.device
        self.examples: Examples = context.examples(prepared[0].job)
        self.batches = StackBatches(self.learner, self.examples, prepared[0].job)
        self.history: deque[Tensor] = deque()  # mean losses (K,) of the last epochs
        self.leaving: deque[Leaving] = deque()
        self.idle, self.asked_at = self.rows.count(None), time.monotonic()

    def results(self, idle: Callable[[], None]) -> Generator[tuple[Job, Result]]:
        """Train until there is no job of this kind any more.

        Raises:
            Stopped: `hooks.stop` was set.
            torch.OutOfMemoryError: the stack is too large.
        """
        while any(self.rows):
            self._train_epoch()
            yield from self._evaluations()
            self._finish_rows()
            yield from self._arrived()
            self._refill()
            self._compact()
            idle()
        while self.leaving:
            yield self._pop()

    def unfinished(self) -> list[Job]:
        """The jobs under way; what they have seen is taken off the progress."""
        rows = [row for row in self.rows if row]
        self.context.hooks.progress(-sum(row.seen for row in rows))
        return [*(each.job for each in self.leaving), *(row.job for row in rows)]

    def _train_epoch(self) -> None:
        """One epoch of all rows; the next one is drawn meanwhile."""
        draws = [row and row.coming.result() for row in self.rows]
        for row in filter(None, self.rows):
            if row.epoch + 1 < row.epochs:
                row.coming = self.source.draw(row.job, row.epoch + 1)
        self.batches.begin([row and (row.job, row.epoch) for row in self.rows], draws)
        losses = train_epoch(self.batches, self.context.hooks.stop, lambda examples: None)
        self.history.append(losses.clone())
        for index, row in enumerate(self.rows):
            if row:
                seen = int(self.batches.counts_of(index).sum())
                row.epoch, row.seen = row.epoch + 1, row.seen + seen
                self.context.hooks.progress(seen)
        while len(self.history) > max(row.epoch for row in self.rows if row):
            self.history.popleft()

    def _evaluations(self) -> Generator[tuple[Job, Result]]:
        """Every job on the validation rows, where that is due; a job that its caller ends leaves its row."""
        if self.context.validation is None:
            return
        losses = self.history[-1].tolist()
        due = [
            (index, row)
            for index, row in enumerate(self.rows)
            if row and self.context.is_due(row.epoch, row.epoch == row.epochs, losses[index])
        ]
        if not due:
            return
        rows = self.context.validation_rows
        accuracy, val_loss = (each.tolist() for each in validate(self.learner, self.examples, rows))
        for index, row in due:
            last = row.epoch == row.epochs
            evaluation = Evaluation(row.epoch, accuracy[index], val_loss[index], losses[index], last)
            yield row.job, evaluation
            if evaluation.ended:
                self.rows[index] = None
            if self.context.hooks.stop.is_set():
                raise Stopped

    def _finish_rows(self) -> None:
        """Jobs that have made their last epoch leave."""
        for index, row in enumerate(self.rows):
            if row and row.epoch == row.epochs:
                self.leaving.append(self._finish(index, row))
                self.rows[index] = None

    def _finish(self, index: int, row: Row) -> Leaving:
        """All examples through one row."""
        on_gpu = self.device.type == "cuda"
        size = max(EVALUATE_ROWS, EVALUATED_INPUTS // self.examples.images[0].numel()) if on_gpu else EVALUATE_ROWS
        predictions = evaluate(self.learner.row(index), self.examples, self.context.final_rows, size=size)
        losses = torch.stack([each[index] for each in list(self.history)[-row.epoch :]])
        arrays = [each.to("cpu", non_blocking=True) for each in (*predictions.arrays(), losses)]
        arrival = None
        if on_gpu:
            arrival = torch.cuda.Event()
            arrival.record()
        seconds = (time.perf_counter() - row.begun) / len(self.rows)
        return Leaving(row.job, arrays, seconds, arrival)

    def _arrived(self) -> Generator[tuple[Job, Result]]:
        while self.leaving and self.leaving[0].has_arrived():
            yield self._pop()

    def _pop(self) -> tuple[Job, Outcome]:
        leaving = self.leaving.popleft()
        return leaving.job, leaving.outcome()

    def _refill(self) -> None:
        """Give idle rows the next jobs; where there were none the rows ask again when others come free, or later."""
        idle = [index for index, row in enumerate(self.rows) if row is None]
        if len(idle) <= self.idle and time.monotonic() < self.asked_at + ASK_AGAIN:
            return
        for index in idle:
            prepared = self.source.take(self.kind)
            if prepared is None:
                break
            self.learner.reset(index, prepared.start.result()[1], prepared.job.optimizer)
            self.rows[index] = Row(prepared, prepared.first)
        self.batches.check_settings()
        self.idle, self.asked_at = self.rows.count(None), time.monotonic()

    def _compact(self) -> None:
        """Drop idle rows, when they are half of the stack."""
        rows = [index for index, row in enumerate(self.rows) if row]
        if not rows or 2 * len(rows) > len(self.rows) or len(self.rows) == SMALLEST:
            return
        rows = sorted([*rows, *[index for index, row in enumerate(self.rows) if row is None][: SMALLEST - len(rows)]])
        self.learner.keep(rows)
        self.learner.update.on_device()
        self.rows = [self.rows[index] for index in rows]
        self.idle = self.rows.count(None)
        self.history = deque(each[rows] for each in self.history)
        self.batches = StackBatches(self.learner, self.examples, next(row.job for row in self.rows if row))


def fitting(prepared: Sequence[Prepared], context: Context) -> int:
    """Rows for which a GPU has memory, as far as can be told beforehand; elsewhere all of them.

    Of each row: weights and up to two moments in the master precision, the weights and gradients of the products, the
    order and crops of an epoch, and three times the activations of a batch: values, gradients and one copy on the way.
    """
    placement = context.placement
    if not placement.device.startswith("cuda"):
        return len(prepared)
    master, compute = (torch.finfo(dtype).bits // 8 for dtype in (placement.master, placement.compute))
    job, (network, start) = prepared[0].job, prepared[0].start.result()
    shapes = [layer.weight.shape for layer in (*network.blocks, network.classifier)]
    widths = shapes[0][1] + sum(outputs for outputs, _ in shapes)
    b = int(max(np.diff(job.training.edges(len(job.rows)))))
    row = len(start) * (3 * master + 2 * compute) + 7 * len(job.rows) + 3 * b * widths * max(compute, 4)
    free, _ = torch.cuda.mem_get_info()
    return max(SMALLEST, min(len(prepared), int(SPARE * free) // row))
