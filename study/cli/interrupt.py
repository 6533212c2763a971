"""An end that somebody asks for.  in: signals   out: an event that stops the work, the exit code"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from study.errors import Stopped
from study.progress import say


class Interrupted(Exception):  # noqa: N818  an order from outside, not an error
    """A signal has asked for the end; `number` says which."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def interruptible(*more: signal.Signals) -> Iterator[threading.Event]:
    """SIGINT, SIGTERM and `more` set an event: the step under way ends and the run is marked; a second ends at once."""
    stop, heard = threading.Event(), []

    def on_signal(number: int, frame: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)
        stop.set()
        say("stopping; once more to stop at once")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, *more)}
    try:
        yield stop
    except BaseException as error:
        if heard and isinstance(error, Stopped | KeyboardInterrupt):
            raise Interrupted(heard[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
