"""What a person sees while work goes on, on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Bar = Callable[..., AbstractContextManager[Callable[[int], None]]]
"""`with bar("decoding", total) as advance: advance(count)`."""

PATIENCE = 1.0  # seconds before a bar opens
LINE_EVERY = 15.0  # seconds between lines where there is no terminal


def say(text: str) -> None:
    """One line to stderr; results go to stdout."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def quiet(what: str, total: int, *, unit: str = "", done: int = 0) -> Iterator[Callable[[int], None]]:
    """A display that shows nothing, for callers that are programs."""
    yield lambda count: None


@contextmanager
def bar(what: str, total: int, *, unit: str = "examples", done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far a piece of work is: share, count, rate, time left.

    Args:
        what: the work, a few words.
        total: units in all.
        unit: what is counted, for the rate.
        done: units that an earlier launch has finished.

    Yields:
        advance(count), which any thread may call.
    """
    if sys.stderr.isatty():
        with _rich_bar(what, total, unit, done) as advance:
            yield advance
    else:
        with _lines(what, total, unit, done) as advance:
            yield advance


@contextmanager
def _rich_bar(what: str, total: int, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    """A bar that opens after a second, so that short work leaves no trace."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    display = progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=60)
    task = display.add_task(what, total=total, completed=done, rate="")
    start, count, lock = time.monotonic(), 0, threading.Lock()

    def advance(more: int) -> None:
        nonlocal count
        with lock:
            count += more
            seconds = time.monotonic() - start
            if seconds > PATIENCE:
                display.start()
            display.update(task, advance=more, rate=_rate(count, seconds, unit))

    try:
        yield advance
    finally:
        display.stop()


@contextmanager
def _lines(what: str, total: int, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    count = 0

    def advance(more: int) -> None:
        nonlocal count, last
        count += more
        now = time.monotonic()
        if now - last > LINE_EVERY:
            last = now
            left = (now - start) * max(total - done - count, 0) / max(count, 1)
            share = (done + count) / max(total, 1)
            say(f"{what}: {share:.0%}, {_rate(count, now - start, unit)}, {duration(left)} left")

    yield advance
    if time.monotonic() - start > LINE_EVERY:
        say(f"{what}: done in {duration(time.monotonic() - start)}, {_rate(count, time.monotonic() - start, unit)}")


def _rate(count: int, seconds: float, unit: str) -> str:
    return f"{number(count / max(seconds, 1e-9))} {unit}/s"


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
