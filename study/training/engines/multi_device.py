"""Jobs dealt to several devices, a process for each.  in: jobs one by one, a Context   out: Outcomes as they come

One process starts the operations of all its devices one after the other; a process each waits for nobody.  A worker
asks for a job when it has room for one, so that a faster device gets more.  The pipe between the two is the life of
a worker: it ends when the caller does, however that ends, and a caller whose worker has died hears the pipe break.
Workers write nothing, so they can be killed at any time.  The images go through an unnamed file that all map into their
memory; only the caller's process sends anything that is unpickled.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO

import numpy as np

from study import plugins
from study.errors import Stopped, StudyError
from study.models.spec import NetworkSpec
from study.progress import number
from study.training.engines.base import Context, NextJob
from study.training.placement import Placement
from study.training.results import Outcome
from study.training.types import Job

PAUSE = 0.1  # seconds between two readings of `hooks.stop`, and between two reports of a worker's progress
ENTRY = """
import signal, sys
for order in (signal.SIGINT, signal.SIGTERM):  # meant for the caller, whose end is heard
    signal.signal(order, signal.SIG_IGN)
from study.training.engines.worker import work
work(*map(int, sys.argv[1:]))
"""


@dataclass
class Worker:
    """The process of one device, as its caller sees it."""

    placement: Placement
    process: subprocess.Popen
    pipe: Connection

    def hear(self) -> tuple[str, object]:
        """Its next message, and what belongs to it.

        Raises:
            StudyError: it has died.
        """
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self.death() from None

    def give(self, what: object) -> None:
        """Reply to its message.

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
        end = f"was killed by signal {-code}, maybe for want of memory" if code < 0 else f"has ended with code {code}"
        return StudyError(f"the process on {self.placement.device} {end}; the same command resumes it")


class MultiDevice:
    """An engine of a process for each of `placement.devices`; it gives Outcomes, the same bits as on one device."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def results(self, next_job: NextJob, idle: Callable[[], None] = lambda: None) -> Generator[tuple[Job, Outcome]]:
        """See `Engine`; jobs are asked for as the workers ask for them.

        Raises:
            Stopped: `hooks.stop` was set.
            StudyError: a worker has died, or a network that no other process can build; or what a worker has raised.
        """
        dataset, placement, hooks = self.context.dataset, self.context.placement, self.context.hooks
        small = replace(dataset, images=dataset.images[:0], ids=dataset.ids[:0], labels_before_noise=None, planted=None)
        dealt: dict[int, Job] = {}
        count = 0
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
                            worker.give((replace(worker.placement, device=kind), small, plugins.loaded()))
                        case "more", _:
                            job = next_job()
                            if job is not None:
                                check_portable(job.network)
                                dealt[count], job = job, replace(job, key=count)
                                count += 1
                            worker.give(job)
                        case "seen", examples:
                            hooks.progress(examples)
                        case "outcome", (key, outcome):
                            yield dealt.pop(key), outcome
                        case "error", error:
                            error.add_note(f"in the process on {worker.placement.device}")
                            raise error
                        case "over", _:
                            del busy[pipe]
                idle()


def check_portable(network: NetworkSpec) -> None:
    """Whether another process can build this network.

    Raises:
        StudyError: its builder is no function or class of a module that can be imported there.
    """
    builder = getattr(network, "builder", None)
    if builder is None:
        return
    try:
        portable = getattr(builder, "__module__", "") != "__main__" and bool(pickle.dumps(builder))
    except (pickle.PicklingError, AttributeError, TypeError):
        portable = False
    if not portable:
        raise StudyError(
            f"network {network.name!r} cannot be built in the processes of several devices; define it at the top level "
            "of a file that is imported, or take one device, device='cuda:0'"
        )


@contextmanager
def _workers(images: np.ndarray, placement: Placement) -> Iterator[list[Worker]]:
    """A worker for each device; none of them is left behind."""
    workers = []
    try:
        with tempfile.TemporaryFile() as file:
            _write(images, file)
            for part in placement.split():
                workers.append(_start(part, file))
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
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ, **_only(placement.device), "PYTHONPATH": path}
    with there:
        process = subprocess.Popen(
            command, env=environment, pass_fds=handles, process_group=0, stdin=subprocess.DEVNULL
        )
    return Worker(placement, process, here)


def _only(device: str) -> dict[str, str]:
    """What makes it the only CUDA device that a process sees, so that nothing lands on another by default."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[int(index)].strip() if visible else index}
