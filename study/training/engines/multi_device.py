"""Members dealt to several devices, a process for each.  in: members, a Dataset, a Placement   out: Outcomes in order

One process starts the operations of all its devices one after the other; a process each waits for nobody.  A worker
asks for a member when it has room for one, so that a faster device gets more.  The pipe between the two is the life of
a worker: it ends when the caller does, however that ends, and a caller whose worker has died hears the pipe break.
Workers write nothing, so they can be killed at any time.  The images go through an unnamed file that all map into their
memory; only the caller's own process sends anything that is unpickled.
"""

import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO

import numpy as np

from study.data import Dataset
from study.errors import Stopped, StudyError
from study.progress import number
from study.recipe import Recipe
from study.training.job import Hooks, Member, Outcome
from study.training.placement import Placement

PAUSE = 0.1  # seconds between two looks at `hooks.stop`, and between two reports of a worker's progress
ENTRY = """
import signal, sys
for order in (signal.SIGINT, signal.SIGTERM):  # meant for the caller, whose end is heard
    signal.signal(order, signal.SIG_IGN)
from study.training.processes import work
work(*map(int, sys.argv[1:]))
"""


@dataclass
class Worker:
    """The process of one device, as its caller sees it; `dealt` are the numbers of the members that it has."""

    placement: Placement
    process: subprocess.Popen
    pipe: Connection
    dealt: deque[int] = field(default_factory=deque)

    def hear(self) -> tuple[str, object]:
        """Its next word, and what belongs to it.

        Raises:
            StudyError: it has died.
        """
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self.death() from None

    def give(self, what: object) -> None:
        """Answer its word.

        Raises:
            StudyError: it has died.
        """
        try:
            self.pipe.send(what)
        except OSError:
            raise self.death() from None

    def death(self) -> StudyError:
        """What its end says; for when the pipe is broken."""
        self.process.kill()
        code = self.process.wait()
        told = f"was killed by signal {-code}, maybe for want of memory" if code < 0 else f"has ended with code {code}"
        return StudyError(f"the process on {self.placement.device} {told}; the same command resumes it")


def deal(
    members: Iterable[Member], dataset: Dataset, recipe: Recipe, placement: Placement, hooks: Hooks
) -> Iterator[Outcome]:
    """Train members on all of `placement.devices`.

    Args:
        members: consumed lazily, as the workers ask for them.
        dataset: n examples.
        recipe: one for all.
        placement: divided among the devices.
        hooks: progress and stop.

    Yields:
        One Outcome per member, in the members' order, the same bits as on one device.

    Raises:
        Stopped: `hooks.stop` was set.
        StudyError: a worker has died; or what it has raised itself.
    """
    coming, early, following = enumerate(members), {}, 0
    small = replace(dataset, images=dataset.images[:0], ids=dataset.ids[:0], labels_before_noise=None)
    with _workers(dataset.images, placement) as workers:
        busy = {worker.pipe: worker for worker in workers}
        while busy:
            if hooks.stop.is_set():
                raise Stopped
            for pipe in wait(list(busy), PAUSE):
                worker = busy[pipe]
                match worker.hear():
                    case "ready", _:
                        kind, _, _ = worker.placement.device.partition(":")  # of which it sees one
                        worker.give((replace(worker.placement, device=kind), recipe, small))
                    case "more", _:
                        place, member = next(coming, (None, None))
                        worker.dealt.append(place)
                        worker.give(member)
                    case "seen", examples:
                        hooks.progress(examples)
                    case "outcome", outcome:
                        early[worker.dealt.popleft()] = outcome
                    case "error", error:
                        error.add_note(f"in the process on {worker.placement.device}")
                        raise error
                    case "over", _:
                        del busy[pipe]
            while following in early:
                yield early.pop(following)
                following += 1


@contextmanager
def _workers(images: np.ndarray, placement: Placement) -> Iterator[list[Worker]]:
    """A worker for each device; none of them is left behind."""
    workers = []
    try:
        with tempfile.TemporaryFile() as file:
            _write(images, file)
            for own in placement.split():
                workers.append(_start(own, file))
        yield workers
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in workers:
            worker.process.wait()


def _write(images: np.ndarray, file: IO[bytes]) -> None:
    try:
        images.tofile(file)
        file.flush()
    except OSError as error:
        size, folder, why = number(images.nbytes, "B"), tempfile.gettempdir(), error.strerror or error
        raise StudyError(
            f"{size} of images do not go into {folder} ({why}); set TMPDIR to a folder with room, "
            "or --set runtime.device=cuda:0"
        ) from None


def _start(placement: Placement, images: IO[bytes]) -> Worker:
    """A Python of its own, out of reach of the terminal's Ctrl-C, that imports what this one does."""
    here, there = Pipe()
    handles = there.fileno(), images.fileno()
    command = [sys.executable, "-P", "-c", ENTRY, *map(str, handles)]
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    known = {**os.environ, **_only(placement.device), "PYTHONPATH": path}
    with there:
        process = subprocess.Popen(command, env=known, pass_fds=handles, process_group=0, stdin=subprocess.DEVNULL)
    return Worker(placement, process, here)


def _only(device: str) -> dict[str, str]:
    """What makes it the only CUDA device that a process sees, so that nothing lands on another by default."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[int(index)].strip() if visible else index}
