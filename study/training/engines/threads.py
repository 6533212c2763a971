"""Networks without a stack, several at a time.  in: members, a function that trains one   out: Outcomes in order

Each has a thread.  On a GPU each thread has a stream, so that one network's kernels run where another's leave the
device idle.  How many fit there nobody knows beforehand: where memory runs out half as many go on.
"""

import gc
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch

from study.errors import RecipeError, Stopped
from study.training.job import AnyOf, Hooks, Member, Outcome
from study.training.placement import Placement

Train = Callable[[Member, Hooks], Outcome]


class Crowded(Exception):  # noqa: N818  answered by training fewer at a time
    """There is no memory for so many networks at a time."""


@dataclass
class Turn:
    """A member and, once it is under way, what will come of it."""

    member: Member
    future: Future[Outcome] | None = None

    def is_over(self) -> bool:
        """Whether its Outcome is there."""
        future = self.future
        return future is not None and future.done() and not future.cancelled() and future.exception() is None


def side_by_side(members: Iterable[Member], train: Train, placement: Placement, hooks: Hooks) -> Iterator[Outcome]:
    """Train up to `placement.threads` members at a time.

    When a device runs out of memory, half as many train from there on; those under way start anew.

    Args:
        members: consumed lazily, a few ahead of the training.
        train: trains a member in a thread of its own; it hears and tells what the hooks say that it is given.
        placement: device and number.
        hooks: progress and stop.

    Yields:
        One Outcome per member, in the members' order.

    Raises:
        Stopped: `hooks.stop` was set.
        RecipeError: not even one network fits.
    """
    source, waiting, threads = iter(members), deque(), placement.threads
    while True:
        settle(placement.device)  # what the threads share is there before their streams read it
        end = threading.Event()
        with ThreadPoolExecutor(threads, initializer=own_stream, initargs=(placement.device,)) as pool:
            try:
                submit = partial(pool.submit, _one, train, hooks, end)
                yield from _in_order(source, waiting, submit, 2 * threads + 1)
                return
            except Crowded:
                pass
            finally:  # too many, an error, or a caller that stops asking: ends what is under way
                end.set()
                for turn in waiting:
                    if turn.future:
                        turn.future.cancel()
        if threads == 1:
            raise RecipeError(
                f"{placement.device} has too little memory for one of these networks; --set runtime.device=cpu, "
                "or a smaller train.batch_size"
            )
        threads //= 2
        waiting = deque(turn if turn.is_over() else Turn(turn.member) for turn in waiting)
        free(placement.device)


def _in_order(
    source: Iterator[Member], waiting: deque[Turn], submit: Callable[[Member], Future[Outcome]], ahead: int
) -> Iterator[Outcome]:
    """What comes of those that are waiting, then of what the source gives; `ahead` of them are under way or done."""
    for turn in waiting:
        turn.future = turn.future or submit(turn.member)
    while True:
        for member in islice(source, max(0, ahead - len(waiting))):
            waiting.append(Turn(member, submit(member)))
        if not waiting:
            return
        outcome = waiting[0].future.result()
        waiting.popleft()
        yield outcome


def _one(train: Train, hooks: Hooks, end: threading.Event, member: Member) -> Outcome:
    """Train one member; when memory runs out the others end too, and what was seen is taken off the progress."""
    seen = 0

    def progress(examples: int) -> None:
        nonlocal seen
        seen += examples
        hooks.progress(examples)

    try:
        return train(member, replace(hooks, progress=progress, stop=AnyOf(hooks.stop, end)))
    except torch.OutOfMemoryError:
        end.set()
    except Stopped:
        if hooks.stop.is_set():
            raise
    hooks.progress(-seen)
    raise Crowded  # here, where nothing holds on to the network any more


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
