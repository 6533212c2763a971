"""What a person sees while work goes on: a bar on a terminal and in a notebook, a line now and then elsewhere.

Modules below the commands log to their module's logger (`logging.getLogger("study...")`); the command `study` shows
these messages on stderr by `show_messages`.  From Python nothing but warnings is shown unless logging is set up.
"""

import logging
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[..., None]
"""`advance(count)`; `advance(0, "collecting signals, 40%")` while the work waits for something else."""
Bar = Callable[..., AbstractContextManager[Advance]]
"""`with bar("decoding", total) as advance: advance(count)`."""

PATIENCE = 1.0  # seconds before a bar opens
REFRESH = 0.5  # seconds between two states of a notebook's bar
BAR_WIDTH = 30  # characters, in a notebook
LINE_EVERY = 15.0  # seconds between lines where there is no terminal


def printable(text: str) -> str:
    """Text with its control characters written out, such as \\x1b: what comes from data must not steer a terminal.

    Line breaks and tabs stay.  Directions of writing that a text could reverse, and halves of characters (from file
    names that are not UTF-8), are written out too.
    """
    if text.isprintable():
        return text
    return "".join(repr(each)[1:-1] if _steers(each) else each for each in text)


def _steers(character: str) -> bool:
    if character in "\n\t":
        return False
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return turns or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def say(text: str) -> None:
    """One line to stderr; results go to stdout."""
    print(printable(text), file=sys.stderr, flush=True)


def command(words: str) -> str:
    """A command as the user types it: `study ...`, or `./scripts/run ...` where that was typed."""
    return f"{os.environ.get('STUDY_COMMAND', 'study')} {words}"


def print_line(text: str) -> None:
    """A result to stdout."""
    print(printable(text))


class MessageHandler(logging.Handler):
    """Shows messages as `say` does, on what stderr is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        """One message, without level or logger."""
        say(self.format(record))


def show_messages() -> None:
    """Show the messages of this package on stderr; for commands, once or several times."""
    logger = logging.getLogger("study")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, MessageHandler) for handler in logger.handlers):
        logger.addHandler(MessageHandler())


def chosen_bar(progress: bool | None = None) -> Bar:
    """The display for work that is started from Python.

    Args:
        progress: True: `bar`; False: `quiet`; None: `bar` where somebody looks, on a terminal or in a notebook.
    """
    watched = sys.stderr.isatty() or _in_notebook()
    return bar if progress or (progress is None and watched) else quiet


def _in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, which shows what is displayed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and shell.has_trait("kernel")


@contextmanager
def quiet(what: str, total: int, *, unit: str = "", done: int = 0) -> Iterator[Advance]:
    """A display that shows nothing, for callers that are programs."""
    yield lambda count, aside="": None


@contextmanager
def bar(what: str, total: int, *, unit: str = "examples", done: int = 0) -> Iterator[Advance]:
    """Show how far a piece of work is: share, count, rate, time left.

    Args:
        what: the work, a few words.
        total: units in all.
        unit: what is counted, for the rate.
        done: units that an earlier launch has finished.

    Yields:
        advance(count, aside=""), which any thread may call.  `aside` names what goes on while the work itself waits:
        that time enters neither the rate nor the time left, and the next call without it ends it.
    """
    if _in_notebook():
        with _notebook_bar(what, total, unit, done) as advance:
            yield advance
    elif sys.stderr.isatty():
        with _rich_bar(what, total, unit, done) as advance:
            yield advance
    else:
        with _lines(what, total, unit, done) as advance:
            yield advance


class Tally:
    """Counts the work of one bar, and how long it took without what went on aside."""

    def __init__(self, total: int, unit: str, done: int) -> None:
        self.total, self.unit, self.done = total, unit, done
        self.count, self.waited, self.aside = 0, 0.0, ""
        self.start = self.since = time.monotonic()

    def add(self, count: int, aside: str) -> float:
        """Count, and give the time; what has passed since the last call belongs to what that call has named."""
        now = time.monotonic()
        if self.aside:
            self.waited += now - self.since
        self.count, self.aside, self.since = self.count + count, aside, now
        return now

    def rate(self) -> str:
        """Of the work itself; nothing before it has begun."""
        if not self.count:
            return ""
        return f"{number(self.count / max(self.since - self.start - self.waited, 1e-9))} {self.unit}/s"

    def left(self) -> str:
        """Time that is left at this rate; where some has gone aside, it says that this is of the work alone."""
        if not self.count:
            return ""
        seconds = (self.since - self.start - self.waited) * max(self.total - self.done - self.count, 0) / self.count
        return f"{duration(seconds)} " + ("of the work itself left" if self.waited or self.aside else "left")

    def speed(self) -> str:
        """Rate and time left, as far as they are known."""
        return ", ".join(filter(None, (self.rate(), self.left())))

    def share(self) -> float:
        """Of the work that is done, 0 to 1."""
        return (self.done + self.count) / max(self.total, 1)


@contextmanager
def _rich_bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    """A bar that opens after a second, so that short work leaves no trace."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[speed]}", markup=False),
    )
    display = progress.Progress(*columns, console=Console(stderr=True))
    task = display.add_task(printable(what), total=total, completed=done, speed="")
    tally, lock = Tally(total, unit, done), threading.Lock()

    def advance(count: int, aside: str = "") -> None:
        with lock:
            if tally.add(count, aside) - tally.start > PATIENCE:
                display.start()
            display.update(task, advance=count, speed=aside or tally.speed())

    try:
        yield advance
    finally:
        display.stop()


@contextmanager
def _notebook_bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    """One line of text that is replaced; rich's own display would need ipywidgets."""
    from IPython.display import display

    tally, lock = Tally(total, unit, done), threading.Lock()
    handle, last = None, tally.start

    def show(end: str) -> None:
        nonlocal handle
        filled = round(BAR_WIDTH * min(tally.share(), 1.0))
        line = f"{what} {'█' * filled}{'░' * (BAR_WIDTH - filled)} {tally.share():4.0%}  {end}".rstrip()
        if handle is None:
            handle = display({"text/plain": line}, raw=True, display_id=True)
        else:
            handle.update({"text/plain": line}, raw=True)

    def advance(count: int, aside: str = "") -> None:
        nonlocal last
        with lock:
            now = tally.add(count, aside)
            if now - last > (PATIENCE if handle is None else REFRESH):
                last = now
                show(aside or tally.speed())

    try:
        yield advance
    finally:
        taken = tally.add(0, "") - tally.start
        if handle is not None:
            show(f"{duration(taken)}, {tally.rate()}".rstrip(", "))


@contextmanager
def _lines(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    tally = Tally(total, unit, done)
    last = tally.start

    def advance(count: int, aside: str = "") -> None:
        nonlocal last
        now = tally.add(count, aside)
        if now - last > LINE_EVERY:
            last = now
            say(f"{what}: " + ", ".join(filter(None, (f"{tally.share():.0%}", aside, tally.speed()))))

    yield advance
    taken = tally.add(0, "") - tally.start
    if taken > LINE_EVERY:
        aside = f" ({duration(tally.waited)} of it aside)" if tally.waited else ""
        say(f"{what}: " + ", ".join(filter(None, (f"done in {duration(taken)}{aside}", tally.rate()))))


def number(value: float, unit: str = "") -> str:
    """Three digits, a letter, a unit: 1.53 G, 12.4 kB, 87 B, 87."""
    for power, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * power:  # what rounds to 1 of it is written so
            return f"{value / power:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def duration(seconds: float) -> str:
    """A time that a person plans with: 45 s, 3 min, 2 h 10 min, 3 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60:02} min" if minutes < 2880 else f"{minutes // 1440} d {minutes // 60 % 24} h"
    )
