"""The local store, a SQLite file and a folder of artifacts.  in: a folder, fresh or moved   out: a database to open.

MLflow migrates a new database in place: of four first launches at once three crash, and a kill leaves a file that no
version opens again.  Here it is built aside, under a lock, and moved in whole.  MLflow also stores absolute artifact
paths, which are wrong where the folder has moved or is seen at another path, as in a container; the place of a run's
files is derived from the folder.  Only `study ui` rewrites the paths, see `relocate`.
"""

import importlib.util
import os
import re
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from study.errors import StoreError
from study.tracking import client, locks
from study.tracking.names import file_safe

# every column in which MLflow keeps the place of artifacts
PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def prepare(database: Path) -> None:
    """Create the database if there is none, and check it.

    Args:
        database: absolute path of the SQLite file; artifacts are in the folder `artifacts` beside it.

    Raises:
        StoreError: not writable, damaged, not MLflow's, of another MLflow version, or missing beside files of runs.
    """
    artifacts = database.parent / "artifacts"
    if _missing(database):
        _create(database, artifacts)
    check(database)


def sqlite_uri(database: Path) -> str:
    """Write the SQLAlchemy URI of a file; SQLAlchemy 2.1 decodes %41, and `?` starts a query."""
    path = str(database)
    if urllib.parse.unquote(path) != path or "?" in path:
        path = path.replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path:
    """Read the file from a SQLAlchemy URI, absolute."""
    return Path(urllib.parse.unquote(uri.removeprefix("sqlite:///").partition("?")[0])).resolve()


def artifact_path(uri: str, artifacts: Path) -> Path | None:
    """Read the folder from an artifact URI; None when it is not on this machine.

    A run that was logged through `study ui` has `mlflow-artifacts:/...`, which that server keeps under `artifacts`.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        return artifacts / parts.path.lstrip("/")
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return Path(urllib.request.url2pathname(uri)) if uri.startswith("/") else None


def run_folder(uri: str, artifacts: Path, home: str, folder: str) -> Path | None:
    """The folder of a run's files, wherever the store was when the run was written.

    Args:
        uri: of the run's artifacts, as MLflow keeps it.
        artifacts: the folder `artifacts` of the store, here and now.
        home: URI of that folder where the store was made.
        folder: of the experiment, as `Store` names it.

    Returns:
        A path below `artifacts`; what somebody has put elsewhere stays there.  None when it is not on this machine.
    """
    parts = [urllib.parse.unquote(part) for part in uri.split("/")[-4:]]
    inside = bool(home) and uri.startswith(f"{home}/")
    if uri.startswith("file:") and (inside or parts[:2] == ["artifacts", folder]):
        return artifacts.joinpath(*parts[1:])
    return artifact_path(uri, artifacts)


def home(database: Path) -> str:
    """Where the folder of artifacts was when the database was made, as a URI: that of experiment 0 tells."""
    with opened(database) as connection:
        row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    place = row[0] if row and row[0] else ""
    return place.removesuffix("/0") if place.startswith("file:") and place.endswith("/artifacts/0") else ""


def moves(database: Path, artifacts: Path) -> dict[str, str]:
    """List the artifact places that are to be rewritten, old to new, for a store with this folder of artifacts.

    The place of experiment 0, made with the database, tells where the folder was before.  A place outside of it is
    followed only when it is gone and its last part is found here: an experiment may keep its artifacts elsewhere.
    """
    with opened(database) as connection:
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    here, old_home = artifacts.as_uri(), home(database)
    places = {old_home: here} if old_home else {}
    for name, place in rows:
        path = artifact_path(place, artifacts) if place and place.startswith("file:") else None
        above = place.rpartition("/")[0] if path else ""
        if path and path.parts[-2:] == ("artifacts", file_safe(name)):
            places[above] = here
        elif path and above not in (here, *places) and not path.exists() and (artifacts / path.name).is_dir():
            places[place] = f"{here}/{urllib.parse.quote(path.name)}"
    return {old: new for old, new in places.items() if old != new}


def relocate(database: Path, artifacts: Path) -> None:
    """Rewrite the artifact places of a moved folder in one transaction, so that MLflow's page finds the files.

    For a store in which nothing runs: another process may see the folder at another path.
    """
    places = moves(database, artifacts)
    with opened(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for old, new in places.items():
            for table, column in PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                    f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                    {"old": old, "new": new},
                )
        connection.execute("COMMIT")


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing SQLite file, never a new one; one that cannot be written is read.

    SQLite makes two files beside a database in WAL mode, even to read it.  Where it cannot, and no other process has
    left any, the file is whole and does not change.

    Raises:
        StoreError: damaged, locked for 20 s, not readable.
    """
    mode = "mode=rw"
    if not writable(database):
        mode = "mode=ro" if _wal(database).exists() else "mode=ro&immutable=1"
    uri = f"file:{urllib.parse.quote(str(database))}?{mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=20.0, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise client.failure(error, str(database)) from error


def writable(database: Path) -> bool:
    """Whether the file and its folder can be written."""
    return os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)


def _wal(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def copy(database: Path, target: Path) -> None:
    """Copy a database with all that is in its `-wal`."""
    with opened(database) as source, closing(sqlite3.connect(target)) as connection:
        source.backup(connection)


@contextmanager
def without_stray_folder(database: Path) -> Iterator[None]:
    """Remove the folder that MLflow makes when it takes an encoded URI for a path (only for roots with %41 or ?)."""
    parent = Path(sqlite_uri(database).removeprefix("sqlite:///")).parent
    stray = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in stray:
            with suppress(OSError):
                folder.rmdir()


def check(database: Path) -> None:
    """Snapshot whether MLflow may open the file; it would migrate an old database in place, without a backup.

    Raises:
        StoreError: damaged, not MLflow's, or of another MLflow version.
    """
    with opened(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"alembic_version", "experiments", "runs"} <= tables:
            raise StoreError(f"{database}: not an MLflow database; move it away or choose another root")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    revisions, head = schema_revisions()
    revision = row[0] if row else "none"
    if revision == head or not revisions:
        return
    if revision in revisions:
        backup = f"cp '{database}' '{database}.backup'"
        raise StoreError(
            f"{database}: made by an older MLflow; keep a copy and migrate: "
            f"{backup} && mlflow db upgrade '{sqlite_uri(database)}'"
        )
    cure = "update MLflow (`uv sync`) or choose another root"
    raise StoreError(f"{database}: made by a newer MLflow (schema {revision}, here {head}); {cure}")


def schema_revisions() -> tuple[set[str], str]:
    """List the schema revisions that the installed MLflow knows, and the newest.  Reads its sources: no import, 10 ms.

    Returns:
        (revisions, head); an empty set where the sources are not found, then MLflow itself must judge.
    """
    spec = importlib.util.find_spec("mlflow")
    folder = Path(spec.origin or "").parent / "store" / "db_migrations" / "versions" if spec else Path()
    revisions, parents = set(), set()
    for file in folder.glob("*.py") if spec else ():
        text = file.read_text(encoding="utf-8")
        revisions.update(re.findall(r"^revision\b[^=\n]*=\s*[\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b[^=\n]*=(.*)", text, re.MULTILINE):
            parents.update(re.findall(r"[\"'](\w+)[\"']", line))
    heads = revisions - parents
    return (revisions, heads.pop()) if len(heads) == 1 else (set(), "")


def _missing(database: Path) -> bool:
    """Whether there is no database: no file, or the empty one that a stray `sqlite3` leaves."""
    try:
        return database.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError as error:
        raise StoreError(f"{database}: {error.strerror}; choose another root") from error


def _create(database: Path, artifacts: Path) -> None:
    """Build the database aside and move it in whole; others wait, and what a killed process left is removed."""
    client.load()  # before the lock: others can wait for the database alone
    with locks.waited_for(database.parent / ".lock"):
        if not _missing(database):
            return
        _refuse_files_without_database(database, artifacts)
        temporary = database.with_name(f".{database.name}.new-{os.getpid()}")
        try:
            _sweep(database)
            client.call(_migrate, temporary, artifacts, where=str(database))
            _durable(temporary)
            os.replace(temporary, database)
            _durable(database.parent)
        except OSError as error:
            raise StoreError(f"{database}: {error.strerror}; free space or allow writing there") from error
        finally:
            with suppress(OSError):
                _sweep(database)


def _refuse_files_without_database(database: Path, artifacts: Path) -> None:
    """A new database would not name these runs, and all of them would be trained again."""
    if any(path.is_file() for path in artifacts.rglob("*")):
        cure = f"restore {database.name} from a backup, or move {artifacts} away to start a new store"
        raise StoreError(f"{database}: missing or empty, but there are files of runs in {artifacts}; {cure}")


def checkpoint(database: Path) -> None:
    """Move what SQLite keeps in `<database>-wal` into the database, so that a copy of that one file has all runs.

    Raises:
        StoreError: damaged, locked for 20 s, not readable.
    """
    with opened(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _migrate(database: Path, artifacts: Path) -> None:
    """Make MLflow's tables in a file that nobody else uses, and leave it closed and in WAL mode."""
    with without_stray_folder(database):
        client.make_tables(sqlite_uri(database), artifacts.as_uri())
    with opened(database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _sweep(database: Path) -> None:
    for file in database.parent.iterdir():
        if file.name.startswith(f".{database.name}.new-"):
            file.unlink(missing_ok=True)


def _durable(path: Path) -> None:
    """Make the file or folder survive a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
