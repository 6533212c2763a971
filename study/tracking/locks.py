"""Locks between processes that the kernel frees when their holder dies.  in: a path   out: a held lock"""

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from study.errors import StoreError

POLL = 0.5  # seconds between two attempts at the lock of a launch


@contextmanager
def held(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of one launch; an error or `waiting` names the process that holds it already.

    Args:
        path: of the lock file; while the lock is held the file says by which process.
        waiting: called twice a second with who holds the lock, until it is free; raises to give up.  None: do not wait.

    Raises:
        StoreError: another process, or this one already, holds it, and there is no `waiting`.
    """
    lock = _lock(path)
    while not _acquired(lock, path, 0.0):
        if waiting is None:
            raise StoreError(f"already running: {_holder(path)} ({path}); wait for it or stop it")
        waiting(_holder(path))
        time.sleep(POLL)
    try:
        _note(path)
        yield
    finally:
        with suppress(OSError):
            os.truncate(path, 0)
        lock.release()


@contextmanager
def waited_for(path: Path, patience: float = 120.0) -> Iterator[None]:
    """Hold a lock that others hold for a short time only; wait for it.

    Raises:
        StoreError: it was not free within `patience` seconds.
    """
    lock = _lock(path)
    if not _acquired(lock, path, patience):
        raise StoreError(f"{path}: another process has held this lock for {patience:.0f} s; stop it (`fuser`)")
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    return FileLock(path, mode=0o644, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)


def _acquired(lock: FileLock, path: Path, timeout: float) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout, poll_interval=0.05)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "allow writing to the folder or choose another root"
        raise StoreError(f"{path}: {reason}; {cure}") from error
    return True


def _note(path: Path) -> None:
    """Write who holds the lock; on a full disk others are told of another process."""
    note = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat("T", "seconds")}
    with suppress(OSError):
        path.write_text(json.dumps(note))


def _holder(path: Path) -> str:
    """Say who holds a lock, as far as the file tells."""
    try:
        note = json.loads(path.read_text())
        since = datetime.fromisoformat(note["since"])
    except (OSError, ValueError, KeyError):
        return "another process"
    today = since.date() == datetime.now().date()
    return f"pid {note['pid']} on {note['host']} since {since:%H:%M}" + ("" if today else f" of {since:%Y-%m-%d}")
