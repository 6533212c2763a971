"""Jobs in threads, each network by itself.  in: jobs one by one, a Context   out: results as they come

On a CPU a thread for each core or more; on a GPU each thread has a stream, so that one network's kernels run where
another's leave the device idle.  Where a GPU's memory runs out half as many threads go on.
"""

import gc
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch

from study.errors import Stopped
from study.training.engines.base import Context, NextJob
from study.training.learners import SpareLearner
from study.training.results import AnyOf, Evaluation, Failure, Outcome, Result
from study.training.single import train_alone
from study.training.types import Job

IDLE = 1.0  # seconds without news after which the caller hears that time has passed
POLL = 0.1  # seconds between two checks whether a thread that waits for its caller is still wanted


class OutOfRoom:
    """A job that has to begin anew, with fewer beside it."""


class Ended:
    """A job that its caller has ended."""


@dataclass
class News:
    """What a thread says of its job; it waits for `reply` after an Evaluation."""

    job: Job
    what: Result | OutOfRoom | Ended | BaseException
    reply: threading.Event = field(default_factory=threading.Event)


class Threads:
    """An engine of `placement.threads` threads."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def results(self, next_job: NextJob, idle: Callable[[], None] = lambda: None) -> Generator[tuple[Job, Result]]:
        """See `Engine`; what a job of a GPU without memory for even one gives is a Failure."""
        threads, again = self.context.placement.threads, deque()
        while True:
            pool = _Pool(self.context, threads)
            try:
                yield from pool.results(again, next_job, idle)
            finally:
                pool.close()
            if not again:
                return
            if threads == 1:
                yield again.popleft(), Failure("out of memory")
            threads = max(1, threads // 2)
            free(self.context.placement.device)


class _Pool:
    """So many threads; they take jobs from one queue and put what they have to say into another."""

    def __init__(self, context: Context, threads: int) -> None:
        self.context, self.room = context, threads + context.ahead
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.given: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.end = threading.Event()
        self.pending: list[Job] = []  # given and not over
        self.threads = threads
        device = context.placement.device
        settle(device)
        self.executor = ThreadPoolExecutor(threads, initializer=own_stream, initargs=(device,))
        for _ in range(threads):
            self.executor.submit(self._work)

    def results(self, again: deque[Job], next_job: NextJob, idle: Callable[[], None]) -> Generator[tuple[Job, Result]]:
        """Until there is no job any more, or no memory for so many: `again` then has those that begin anew."""
        while self._fill(again, next_job):
            try:
                news = self.news.get(timeout=IDLE)
            except queue.Empty:
                idle()
                continue
            if isinstance(news.what, OutOfRoom):
                yield from self._drain(news, again)
                return
            yield from self._heard(news)
            if not isinstance(news.what, Evaluation):
                idle()

    def _fill(self, again: deque[Job], next_job: NextJob) -> bool:
        """Give out jobs while there is room; whether any are under way."""
        if self.context.hooks.stop.is_set():
            raise Stopped
        while len(self.pending) < self.room:
            job = again.popleft() if again else next_job()
            if job is None:
                break
            self.context.examples(job)
            self.pending.append(job)
            self.given.put(job)
        return bool(self.pending)

    def _heard(self, news: News) -> Generator[tuple[Job, Result]]:
        """Pass on what a thread says."""
        if isinstance(news.what, Evaluation):
            yield news.job, news.what
            news.reply.set()
            return
        self.pending = [job for job in self.pending if job is not news.job]
        if isinstance(news.what, BaseException):
            raise news.what
        if isinstance(news.what, Outcome | Failure):
            yield news.job, news.what

    def _drain(self, news: News, again: deque[Job]) -> Generator[tuple[Job, Result]]:
        """Wait until all threads have put down their jobs; those that are not over begin anew, in their order."""
        self.close()
        heard = [news]
        while not self.news.empty():
            heard.append(self.news.get())
        for each in heard:
            if not isinstance(each.what, OutOfRoom | Evaluation):
                yield from self._heard(each)
        again.extendleft(reversed(self.pending))

    def close(self) -> None:
        """End what is under way."""
        self.end.set()
        for _ in range(self.threads):
            self.given.put(None)
        self.executor.shutdown()

    def _work(self) -> None:
        """In a thread: train job after job."""
        spare = SpareLearner() if captures(self.context) else None  # steps are captured in the stream of their thread
        while (job := self.given.get()) is not None and not self.end.is_set():
            try:
                what = self._train(job, spare)
            except BaseException as error:  # raised again in the caller's thread
                what = error
            self.news.put(News(job, what))

    def _train(self, job: Job, spare: SpareLearner | None) -> Outcome | Failure | OutOfRoom | Ended:
        """Train one job; when a GPU's memory runs out the others end too, and what was seen is taken off the progress.

        A network is held by nothing when this returns.
        """
        hooks, seen = self.context.hooks, 0

        def progress(examples: int) -> None:
            nonlocal seen
            seen += examples
            hooks.progress(examples)

        hooks_of_job = replace(hooks, progress=progress, stop=AnyOf(hooks.stop, self.end))
        try:
            for result in train_alone(job, self.context, hooks_of_job, spare):
                if isinstance(result, Outcome):
                    return result
                self._report(job, result)
            return Ended()
        except torch.OutOfMemoryError:
            self.end.set()
        except (RuntimeError, MemoryError) as error:
            if not _lacks_memory(error):
                raise
            return Failure("out of memory")
        except Stopped:
            if hooks.stop.is_set():
                raise
        hooks.progress(-seen)
        return OutOfRoom()

    def _report(self, job: Job, evaluation: Evaluation) -> None:
        """Wait for what the caller makes of it."""
        news = News(job, evaluation)
        self.news.put(news)
        while not news.reply.wait(POLL):
            if self.end.is_set() or self.context.hooks.stop.is_set():
                raise Stopped


def captures(context: Context) -> bool:
    """Whether steps are captured: on a GPU, unless somebody works with a network's gradients between two epochs."""
    return context.placement.device != "cpu" and context.hooks.after_epoch is None


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def settle(device: str) -> None:
    """Wait for all that was started on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def own_stream(device: str) -> None:
    """From here on this thread starts its work on a GPU in a stream of its own."""
    if device.startswith("cuda"):
        torch.cuda.set_stream(torch.cuda.Stream(device))


def free(device: str) -> None:
    """Give back the memory that nobody uses; networks and their hooks know each other, so they wait to be collected."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()
