"""Fit many networks.  in: jobs, a Dataset, a Placement   out: an Outcome per job, in order

A job's initial weights, batch order and augmentation are drawn from streams of its name, so they do not depend on how
it was placed.
"""

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import torch

from study.data import Dataset
from study.errors import RecipeError
from study.models.build import stackable
from study.training.engines.base import Context, Engine
from study.training.engines.multi_device import MultiDevice
from study.training.engines.stacked import Stacked
from study.training.engines.threads import Threads
from study.training.placement import Placement, float32_routing
from study.training.results import AnyOf, Hooks, Outcome, Result
from study.training.types import Job

DEALT = 64  # outcomes of several devices that wait for the caller
AHEAD = 32  # jobs of a stack whose weights and first epoch are drawn before a row is free
T = TypeVar("T")


def fit(jobs: Iterable[Job], dataset: Dataset, placement: Placement, hooks: Hooks | None = None) -> Generator[Outcome]:
    """Train every job and evaluate all examples with it.

    Training goes on in the background while the caller works on an outcome.

    Args:
        jobs: consumed lazily, a few ahead of the training.
        dataset: n examples.
        placement: device or devices, precision, how many at a time.
        hooks: progress, end of epochs (for jobs that train alone), stop.

    Yields:
        One Outcome per job, in the jobs' order.

    Raises:
        Stopped: `hooks.stop` was set.
        RecipeError: not even one network, or two rows of a stack, fit into the device's memory.
        StudyError: the process of one of several devices has died.
    """
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    hooks, abandoned = hooks or Hooks(), threading.Event()
    context = Context(dataset, placement, replace(hooks, stop=AnyOf(hooks.stop, abandoned)))
    engine, waiting = background_engine(first, context)
    ordered = in_order(engine, chain([first], jobs))
    with computing(placement), closing(in_background(ordered, waiting, abandoned)) as outcomes:
        yield from outcomes


def background_engine(job: Job, context: Context) -> tuple[Engine, int]:
    """The engine for jobs such as this one that do not depend on each other's results, and how many may wait."""
    placement = context.placement
    if placement.devices and context.hooks.after_epoch is None:
        return MultiDevice(context), DEALT
    engine = engine_for(job, context)
    if isinstance(engine, Stacked):
        context.ahead = min(AHEAD, placement.stack)
        return engine, placement.stack
    context.ahead = context.placement.threads
    return engine, 1


def engine_for(job: Job, context: Context) -> Threads | Stacked:
    """The engine of one device for jobs such as this one."""
    placement = context.placement
    if placement.stack > 1 and stackable(job.network) and context.hooks.after_epoch is None:
        return Stacked(context)
    if placement.threads > 1 and context.draws_random_numbers(job.network):
        # dropout draws from torch's one generator: side by side the draws would mix
        context.placement = placement.alone(wide=not stackable(job.network))
    return Threads(context)


@contextmanager
def computing(placement: Placement) -> Iterator[None]:
    """Float32 products go the placement's way; this and torch's threads are put back afterwards."""
    threads = torch.get_num_threads()
    try:
        with float32_routing(placement.matmul):
            yield
    finally:
        torch.set_num_threads(threads)


def in_order(engine: Engine, jobs: Iterator[Job]) -> Generator[Outcome]:
    """Outcomes as the jobs came, not as they ended.

    Raises:
        RecipeError: a job that does not fit into the device's memory.
    """
    given: deque[Job] = deque()
    early: dict[int, Outcome] = {}

    def next_job() -> Job | None:
        job = next(jobs, None)
        if job is not None:
            given.append(job)
        return job

    with closing(engine.results(next_job)) as results:
        for job, outcome in only_outcomes(results, engine):
            early[id(job)] = outcome
            while given and id(given[0]) in early:
                yield early.pop(id(given.popleft()))


def only_outcomes(results: Iterator[tuple[Job, Result]], engine: Engine) -> Generator[tuple[Job, Outcome]]:
    """Results of an engine without validation rows.

    Raises:
        RecipeError: a job that does not fit into the device's memory.
    """
    for job, result in results:
        if not isinstance(result, Outcome):
            count = "two" if isinstance(engine, Stacked) else "one"
            raise RecipeError(
                f"{engine.context.placement.device} has too little memory for {count} of these networks; "
                "--set runtime.device=cpu, or a smaller train.batch_size"
            )
        yield job, result


def in_background(items: Iterator[T], size: int, over: threading.Event) -> Generator[T]:
    """Train in a thread, so that the device goes on while the caller writes down what is finished.

    Args:
        items: what training gives.
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
            for each in items:
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
