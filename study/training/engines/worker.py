"""The process of one of several devices.  in: two open files, from `multi_device`   out: Outcomes, sent back"""

import os
import pickle
import threading
import time
import traceback
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection
from queue import SimpleQueue

import numpy as np

from study import plugins
from study.errors import Stopped
from study.training.engines.base import Context
from study.training.engines.multi_device import PAUSE
from study.training.fit import DEALT, background_engine, computing, in_background, only_outcomes
from study.training.results import Hooks, Outcome
from study.training.types import Job


class Line:
    """A worker's end of the pipe, for all of its threads.

    given: what the caller sends; None when there is no more, or no caller.
    stop: the caller's end is closed.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.lock = pipe, threading.Lock()
        self.given: SimpleQueue = SimpleQueue()
        self.stop = threading.Event()
        self.seen, self.reported = 0, time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.given.put(self.pipe.recv())
        self.stop.set()
        self.given.put(None)

    def ask(self, word: str) -> object:
        """Send a message and wait for the reply."""
        self.tell(word)
        return self.given.get()

    def tell(self, word: str, what: object = None) -> None:
        """Send a message, after the progress that led to it."""
        with self.lock:
            self._report()
            self.pipe.send((word, what))

    def progress(self, examples: int) -> None:
        """So many more examples are done; reported now and then."""
        with self.lock:
            self.seen += examples
            if time.monotonic() > self.reported + PAUSE:
                self._report()

    def _report(self) -> None:
        if self.seen:
            self.pipe.send(("seen", self.seen))
        self.seen, self.reported = 0, time.monotonic()


def work(pipe: int, images: int) -> None:
    """What the process of a device does: train what it is given until there is no more, or nobody listens.

    Args:
        pipe: number of the open file at whose other end `MultiDevice` is.
        images: number of the open file with all images, as one array.
    """
    line = Line(Connection(pipe))
    try:
        for job, outcome in _outcomes(line, images):
            line.tell("outcome", (job.key, outcome))
        line.tell("over")
    except (Stopped, ConnectionError):
        return
    except Exception as error:
        with suppress(ConnectionError):
            line.tell("error", _portable(error))


def _outcomes(line: Line, images: int) -> Generator[tuple[Job, Outcome]]:
    setup = line.ask("ready")
    if setup is None:
        raise Stopped
    placement, dataset, files = setup
    plugins.load(files)
    with os.fdopen(images, "rb") as file:
        pixels = np.memmap(file, dataset.images.dtype, "c", shape=(dataset.n, *dataset.shape))  # a view to write on
    whole = replace(dataset, images=np.asarray(pixels))
    first = line.ask("more")
    if first is None:
        return
    jobs = chain([first], iter(lambda: line.ask("more"), None))
    context = Context(whole, placement, Hooks(line.progress, stop=line.stop))
    engine, _ = background_engine(first, context)
    results = only_outcomes(engine.results(lambda: next(jobs, None)), engine)
    with computing(placement):
        yield from in_background(results, DEALT, threading.Event())


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; another one that says the same where it cannot be sent."""
    text = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(text)
    return error
