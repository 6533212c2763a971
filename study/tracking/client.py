"""The door to mlflow: its environment, its import, patience with a busy store, and one line for each failure."""

import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable
from http.client import HTTPException
from typing import TYPE_CHECKING, TypeVar

from study.errors import ServerAwayError, StoreError
from study.tracking.uri import proxy_cure

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

log = logging.getLogger(__name__)
FULL = 1_000_000  # bytes; with fewer left SQLite cannot write
PATIENCE = 120.0  # seconds to wait for a locked database; MLflow alone gives up after 20
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # some seconds; what cannot be sent waits on disk, see `spool`
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results; `Store.link` has the better address
}
REFUSED = "what answers there is no MLflow server, or refuses this user; mend MLFLOW_TRACKING_URI, or unset it"
# what MLflow and SQLite say -> what the user should read, and the cure
CURES = (
    ("database is locked", "locked by another program; stop that program (`fuser` names it) and run the command again"),
    ("disk is full", "the disk is full; free some space and run the command again"),
    ("No space left", "the disk is full; free some space and run the command again"),
    ("Disk quota exceeded", "the disk quota is used up; free some space and run the command again"),
    ("malformed", "the database is damaged; restore a backup, or move the file away to start a new one"),
    ("not a database", "not a database; restore a backup, or move the file away to start a new one"),
    ("disk I/O error", "the disk refuses to read or write; check it, then restore a backup if need be"),
    ("readonly database", "not writable; allow writing to the file and its folder, or choose another root"),
    ("attempt to write a readonly", "not writable; allow writing to the file and its folder, or choose another root"),
    ("unable to open database", "cannot be opened; allow reading and writing the file and its folder"),
    (
        "failed with error code 401",
        "the server wants a user and a password; put them into MLFLOW_TRACKING_USERNAME and _PASSWORD",
    ),
    ("failed with error code 403", REFUSED),
    ("failed with error code 404", REFUSED),
    ("not in a valid JSON format", REFUSED),
    ("Max retries exceeded", "the tracking server does not answer; start it, or unset MLFLOW_TRACKING_URI"),
    ("Connection refused", "the tracking server does not answer; start it, or unset MLFLOW_TRACKING_URI"),
)


# what MLflow and requests say of a server that is away, starting, or without its own database
AWAY = re.compile(
    "Max retries exceeded|Connection refused|Connection aborted|timed out|Connection reset|Remote end closed"
    r"|error code 5\d\d|5\d\d Server Error|INTERNAL_ERROR|TEMPORARILY_UNAVAILABLE"
)


def environment() -> None:
    """Set what mlflow reads at its import, where the user has not: no telemetry, bounded retries, no noise."""
    if "MLFLOW_DISABLE_TELEMETRY" not in os.environ:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("DO_NOT_TRACK", "true")
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):  # MLflow would tie every metric to that model
        if os.environ.pop(name, None):
            log.info("%s is set aside: runs here belong to no logged model", name)


def silence() -> None:
    """Keep progress notes of mlflow and alembic out of the terminal; their errors reach the user as StoreError."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def load() -> None:
    """Import mlflow, 3 s once per process."""
    environment()
    with warnings.catch_warnings():
        # raised while SQLAlchemy 2.1 maps MLflow's own tables; nothing that a user or we could mend
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, in a notebook without ipywidgets
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401
    silence()


def connect(uri: str, patience: float = PATIENCE) -> "MlflowClient":
    """Open a client.

    Raises:
        StoreError: the store behind the URI cannot be used.
    """
    load()
    from mlflow.tracking import MlflowClient

    return call(MlflowClient, uri, uri, where=public(uri), patience=patience)


def make_tables(uri: str, artifacts: str) -> None:
    """Make MLflow's tables and its experiment 0 in an empty database, and close every connection to it."""
    load()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        SqlAlchemyStore(uri, artifacts).engine.dispose()
    finally:
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()


def call(function: Callable[..., T], *args: object, where: str, patience: float = PATIENCE, **settings: object) -> T:
    """Call into MLflow; wait and repeat while the database is locked.

    Args:
        function: what to call, with the arguments that follow.
        where: file or address of the store, the first word of an error.
        patience: seconds after which a locked database is an error.

    Raises:
        StoreError: one line: where, what, cure.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    start, pause = time.monotonic(), 0.5
    while True:
        try:
            return function(*args, **settings)
        except (MlflowException, SQLAlchemyError, RequestException) as error:
            waited = time.monotonic() - start
            if "database is locked" not in str(error) or waited + pause > patience:
                raise failure(error, where) from error
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def failure(error: Exception, where: str) -> StoreError:
    """Make one line of an exception: where, what, cure."""
    text = str(error)
    if where.startswith("http") and AWAY.search(text) and not proxy_cure(where):
        return ServerAwayError(f"{where}: the tracking server does not answer; start it, or unset MLFLOW_TRACKING_URI")
    proxied = proxy_cure(where) if "error code" in text or "Max retries" in text or "JSON format" in text else ""
    if proxied:
        return StoreError(f"{where}: {proxied}")
    if "disk I/O error" in text and _is_full(where):
        text = "disk is full"
    for sign, cure in CURES:
        if sign in text:
            return StoreError(f"{where}: {cure}")
    first = re.sub(r"\s+", " ", text.strip().split("\n")[0])[:300]
    return StoreError(f"{where}: {first or type(error).__name__}")


def _is_full(where: str) -> bool:
    """Whether the disk of a database's file has no space left, which SQLite may take for a broken disk."""
    try:
        return shutil.disk_usage(os.path.dirname(where) or ".").free < FULL
    except OSError:
        return False


def reach(uri: str, *, patience: float = 10.0) -> None:
    """Ask a tracking server for a sign of life, before the slow import and MLflow's minutes of retries.

    A refusal to a stranger (HTTP 4xx) counts; a closed port gets two seconds to open.

    Raises:
        StoreError: within `patience` seconds nobody replied, or only with server errors (HTTP 5xx).
    """
    start = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(public(uri).rstrip("/") + "/health", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                return
            if time.monotonic() - start + 1.0 > patience:
                cure = "look at its log and restart it, or unset MLFLOW_TRACKING_URI to use the local store"
                raise StoreError(f"{public(uri)}: the tracking server replies HTTP {error.code}; {cure}") from error
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if "certificate" in str(reason).lower():  # requests has its own certificates; let MLflow judge
                return
            allowed = min(patience, 2.0) if isinstance(reason, ConnectionRefusedError) else patience
            if time.monotonic() - start + 1.0 > allowed:
                cure = proxy_cure(uri) or "start it, or unset MLFLOW_TRACKING_URI to use the local store"
                raise StoreError(f"{public(uri)}: no tracking server answers there ({reason}); {cure}") from error
        time.sleep(1.0)


def public(uri: str) -> str:
    """Write a URI without user name and password, for messages and links."""
    parts = urllib.parse.urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
