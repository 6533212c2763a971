"""What a person sees while work goes on, on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[..., None]
"""`advance(count)`; `advance(0, "gathering evidence, 40%")` while the work waits for something else."""
Bar = Callable[..., AbstractContextManager[Advance]]
"""`with bar("decoding", total) as advance: advance(count)`."""

PATIENCE = 1.0  # seconds before a bar opens
LINE_EVERY = 15.0  # seconds between lines where there is no terminal


def say(text: str) -> None:
    """One line to stderr; results go to stdout."""
    print(text, file=sys.stderr, flush=True)


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
    if sys.stderr.isatty():
        with _rich_bar(what, total, unit, done) as advance:
            yield advance
    else:
        with _lines(what, total, unit, done) as advance:
            yield advance


class _Tally:
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


@contextmanager
def _rich_bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    """A bar that opens after a second, so that short work leaves no trace."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[told]}"),
    )
    display = progress.Progress(*columns, console=Console(stderr=True))
    task = display.add_task(what, total=total, completed=done, told="")
    tally, lock = _Tally(total, unit, done), threading.Lock()

    def advance(count: int, aside: str = "") -> None:
        with lock:
            if tally.add(count, aside) - tally.start > PATIENCE:
                display.start()
            display.update(task, advance=count, told=aside or ", ".join(filter(None, (tally.rate(), tally.left()))))

    try:
        yield advance
    finally:
        display.stop()


@contextmanager
def _lines(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    tally = _Tally(total, unit, done)
    last = tally.start

    def advance(count: int, aside: str = "") -> None:
        nonlocal last
        now = tally.add(count, aside)
        if now - last > LINE_EVERY:
            last = now
            share = (done + tally.count) / max(total, 1)
            say(f"{what}: " + ", ".join(filter(None, (f"{share:.0%}", aside, tally.rate(), tally.left()))))

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
