"""Where Optuna keeps trials.  in: a folder or an Optuna URL   out: a storage that several processes may open at once

Of four processes that open a fresh SQLite file at once three crash in Optuna's own set-up; it is built aside, under a
lock, and moved in whole.
"""

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage

from study.errors import StoreError
from study.tracking import client, locks, sqlite_store
from study.tracking.launches import BEAT, GRACE

PATIENCE = 60  # seconds that SQLite waits for another writer


class Quick(sqlite3.Connection):
    """Commits without waiting for the disk: a power cut may take the last seconds with it, a kill takes nothing."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.execute("PRAGMA synchronous = NORMAL")


def open_storage(root: Path, url: str | None = None) -> RDBStorage:
    """Open the trials' storage.

    Args:
        root: of the runs; the default is the file `optuna.db` in it.
        url: an Optuna storage URL, such as postgresql://user@host/base, which several machines can share.

    Raises:
        StoreError: it cannot be opened; one line.
    """
    url = url or sqlite_store.sqlite_uri(Path(root).resolve() / "optuna.db")
    lite = url.startswith("sqlite")
    if "://" not in url:
        raise StoreError(f"--storage {url}: not a URL; sqlite:////path/trials.db or postgresql://user@host/base")
    if lite:
        _prepare(sqlite_store.sqlite_path(url))
    try:
        return _open(
            url, {"connect_args": {"timeout": PATIENCE, "factory": Quick}} if lite else {"pool_pre_ping": True}
        )
    except Exception as error:  # of Optuna, of SQLAlchemy, of any database's driver
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise StoreError(f"{client.public(url)}: trials cannot be kept there: {reason}") from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around calls of Optuna: its notes are not shown, and a storage that fails is a StoreError, the user's to mend."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except StorageInternalError as error:
        cause = " ".join(str(error.__cause__ or error).split())[:300]
        raise StoreError(f"the trials' storage: {cause}; mend it, the same command goes on") from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open(url: str, engine: dict) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats
        return RDBStorage(url, engine, heartbeat_interval=BEAT, grace_period=GRACE)


def _prepare(database: Path) -> None:
    """Build a SQLite file aside, in WAL mode, and move it in whole; what a killed process has left is removed."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with locks.waited_for(database.parent / f".{database.name}.lock"):
            for left in database.parent.glob(f".{database.name}.new-*"):
                left.unlink(missing_ok=True)
            if database.is_file() and database.stat().st_size:
                return
            fresh = database.with_name(f".{database.name}.new-{os.getpid()}")
            _open(sqlite_store.sqlite_uri(fresh), {}).engine.dispose()
            with closing(sqlite3.connect(fresh)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            os.replace(fresh, database)
    except OSError as error:
        raise StoreError(f"{database}: {error.strerror}; free space or allow writing there") from error


def close(storage: RDBStorage) -> None:
    """Give every connection back."""
    with suppress(Exception):
        storage.remove_session()
    storage.engine.dispose()
