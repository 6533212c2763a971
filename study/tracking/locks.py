"""Locks between processes that the kernel frees when their holder dies.  in: a path   out: a held lock."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from study.errors import StoreError


@contextmanager
def held(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of one launch; whoever comes second is told who is at work.

    Args:
        path: of the lock file.
        waiting: called twice a second with who holds the lock, until it is free; raises to give up.  None: do not wait.

    Raises:
        StoreError: another process, or this one already, holds it, and there is no `waiting`.
    """
    with _opened(path) as file:
        while not _taken(file):
            if waiting is None:
                raise StoreError(f"already running: {_holder(path)} ({path}); wait for it or stop it")
            waiting(_holder(path))
            time.sleep(0.5)
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat("T", "seconds")}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(note).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)


@contextmanager
def waited_for(path: Path, patience: float = 120.0) -> Iterator[None]:
    """Hold a lock that others hold for moments only; wait for it.

    Raises:
        StoreError: it was not free within `patience` seconds.
    """
    with _opened(path) as file:
        start = time.monotonic()
        while not _taken(file):
            if time.monotonic() - start > patience:
                raise StoreError(f"{path}: another process has held this lock for {patience:.0f} s; stop it (`fuser`)")
            time.sleep(0.05)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a lock file.  A forked worker closes its copy, so that it cannot hold the lock when its parent is killed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; allow writing to the folder or choose another root") from error
    copies = [file]

    def close_copy() -> None:
        while copies:
            with suppress(OSError):
                os.close(copies.pop())

    os.register_at_fork(after_in_child=close_copy)
    try:
        yield file
    finally:
        close_copy()


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(f"no file locks here ({error.strerror}); choose a root on a local disk") from error
    return True


def _holder(path: Path) -> str:
    """Say who holds a lock, as far as the file tells."""
    try:
        note = json.loads(path.read_text())
        since = datetime.fromisoformat(note["since"])
    except (OSError, ValueError, KeyError):
        return "another process"
    today = since.date() == datetime.now().date()
    return f"pid {note['pid']} on {note['host']} since {since:%H:%M}" + ("" if today else f" of {since:%Y-%m-%d}")
