"""The store: experiments and their runs.  in: a folder or a tracking URI   out: runs, found or started."""

import os
import secrets
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from study.errors import ServerAwayError, StoreError
from study.tracking import client, locks, sqlite_runs, sqlite_store
from study.tracking.calls import Calls
from study.tracking.launches import gone, this_launch
from study.tracking.leases import Lease
from study.tracking.names import KIND, LONGEST_PARAM, LONGEST_TAG, condition, file_safe, short
from study.tracking.origin import origin
from study.tracking.run import Run
from study.tracking.uri import check
from study.tracking.writes import KEY, Write

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")
CONDITION = "a condition is such as \"params.model.name = 'mlp'\""
SCHEMA = "1"  # of our tags, tables and file names; readers refuse what they do not know


def open_store(root: Path = Path("mlruns"), uri: str | None = None) -> "Store":
    """Open the store, made on first use.

    Args:
        root: folder of the local store, of the locks, and of what is downloaded from a server.
        uri: an MLflow tracking URI; None: MLFLOW_TRACKING_URI where that is set, else `<root>/mlflow.db`.

    Raises:
        StoreError: no answer from the server, or a database that cannot be used.
    """
    client.environment()
    root = Path(root).resolve()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        check(uri)
    uri = uri or sqlite_store.sqlite_uri(root / "mlflow.db")
    scheme = urllib.parse.urlsplit(uri).scheme
    if scheme in ("", "file"):
        cure = f"unset MLFLOW_TRACKING_URI, or move the runs over with `{sys.executable} -m mlflow migrate-filestore`"
        raise StoreError(f"{uri}: MLflow has given up plain folders as stores; {cure}")
    if scheme in ("http", "https"):
        client.reach(uri)
    database = sqlite_store.sqlite_path(uri) if scheme.startswith("sqlite") else None
    if database is not None:
        sqlite_store.prepare(database)
        root, uri = database.parent, sqlite_store.sqlite_uri(database)
    store = Store(root, uri, database)
    if database is None:
        store.call(store.client.search_experiments, max_results=1)
    return store


@dataclass(frozen=True)
class Store:
    """An open store; `open_store` makes it.

    Attributes:
        root: absolute folder of the locks, and of database and artifacts when local.
        uri: MLflow tracking URI.
        database: the SQLite file; None for a server or another database.
        page: runs per search call.
        patience: seconds to wait for a locked database.
        experiments: ids of those that were used here, by name.
    """

    root: Path
    uri: str
    database: Path | None
    page: int = 1000
    patience: float = client.PATIENCE
    experiments: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client, opened at the first use."""
        if self.database is None:
            return client.connect(self.uri, self.patience)
        with sqlite_store.without_stray_folder(self.database):
            return client.connect(self.uri, self.patience)

    @property
    def where(self) -> str:
        """The file or address, as messages show it."""
        return str(self.database or client.public(self.uri))

    @cached_property
    def calls(self) -> Calls:
        """The way of every call to MLflow."""
        folder = self.root / "spool" if self.uri.startswith("http") else None
        return Calls(lambda: self.client, self.where, self.patience, folder)

    def call(self, function: Callable[..., T], *args: object, **settings: object) -> T:
        """Read through a method of the client; see `Calls.read`."""
        return self.calls.read(function, *args, **settings)

    def experiment(self, name: str, *, restore: bool = False) -> str:
        """Get the id of an experiment, made if there is none; two processes may ask at once.

        Args:
            name: `<data set>/<kind>`.
            restore: bring a deleted experiment back, with its runs.

        Raises:
            StoreError: it was deleted and `restore` is false.
        """
        try:
            self.experiments[name] = self._experiment(name, restore)
        except ServerAwayError:
            if name not in self.experiments:
                raise
        return self.experiments[name]

    def _experiment(self, name: str, restore: bool) -> str:
        existing = self.calls.now(self.client.get_experiment_by_name, name)
        if existing is None:
            try:
                return self.calls.now(
                    self.client.create_experiment, name, artifact_location=self._artifact_location(name)
                )
            except StoreError as error:
                existing = self.calls.now(self.client.get_experiment_by_name, name)  # another process was first
                if existing is None:
                    raise error
        if existing.lifecycle_stage == "deleted":
            if not restore:
                raise StoreError(self._deleted(name, existing.experiment_id))
            self.calls.now(self.client.restore_experiment, existing.experiment_id)
        if self._out_of_reach(existing.artifact_location):
            cure = "run there, or name the data set otherwise (`data.label`)"
            raise StoreError(f"{self.where}: experiment {name} keeps its files in a folder of that machine; {cure}")
        return existing.experiment_id

    def start(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        parent: Run | None = None,
        description: str | None = None,
        started: float | None = None,
    ) -> Run:
        """Start a run; it is RUNNING until `finish`, `fail` or `kill`, or the end of its `with` block.

        Args:
            experiment: its name; made if there is none.
            name: of the run, as the UI shows it.
            params: flat, dotted names; written as `str(value)`.
            tags: `study.kind`, `study.digest` and the like; None is left out.  Launch, commit and versions are
                added.
            parent: makes the run a child, which the UI unfolds under it.
            description: Markdown, shown above the run.
            started: seconds since 1970, for work that began before it was worth a run; None: now.

        Raises:
            StoreError: a value that MLflow would cut off.
        """
        params = {key: short(key, value, "parameter", LONGEST_PARAM) for key, value in params.items()}
        all_tags = {**origin(SCHEMA), **tags, "mlflow.runName": name, "mlflow.note.content": description}
        all_tags["mlflow.parentRunId"] = parent.id if parent else None
        key = secrets.token_hex(16)
        all_tags[KEY] = key if self.calls.spool else None
        texts = {key: short(key, tag, "tag", LONGEST_TAG) for key, tag in all_tags.items() if tag is not None}
        experiment_id = self.experiment(experiment)
        now = int(1000 * (time.time() if started is None else started))
        settings = {"experiment_id": experiment_id, "start_time": now, "tags": texts, "run_name": name}
        created = self.calls.write(Write("create_run", key, settings))
        run = Run.of(self, created, experiment) if created else self._waiting(experiment, key, settings)
        self.calls.runs[run.id] = run
        run.param(params)
        return run

    def _waiting(self, experiment: str, key: str, settings: Mapping[str, Any]) -> Run:
        """A run that waits to be made; its key stands in for its id."""
        name, tags, begun = settings["run_name"], dict(settings["tags"]), settings["start_time"]
        return Run(self, key, name, experiment, settings["experiment_id"], "RUNNING", {}, tags, {}, begun, None, "")

    def resume(self, run: Run) -> Run:
        """Take up a run that has ended or died: RUNNING again, in this process.  Series may be logged anew."""
        self.calls.write(Write("update_run", run.id, {"status": "RUNNING"}))
        for key, value in origin(SCHEMA).items():
            run.tag(key, value)
        run.tag("study.resumed", int(time.time()))
        if "study.end" in run.tags:
            self.calls.write(Write("delete_tag", run.id, {"key": "study.end"}))
        self.calls.runs[run.id] = resumed = self.get(run.id)
        return resumed

    def get(self, run_id: str) -> Run:
        """Read one run.

        Raises:
            StoreError: there is none with that id, or it was deleted.
        """
        if self.database is not None:
            row = sqlite_runs.get(self.database, run_id)
            if row is None:
                raise StoreError(
                    f"{self.where}: there is no run {run_id}, or it was deleted; `list` shows what there is"
                )
            return Run(self, **row)
        entity = self.call(lambda: self.client.get_run(self.calls.run_id(run_id)))
        if entity.info.lifecycle_stage == "deleted":
            raise StoreError(f"{self.where}: run {run_id} was deleted; restore it in MLflow or choose another")
        return Run.of(self, entity, self.call(self.client.get_experiment, entity.info.experiment_id).name)

    def find(
        self,
        kind: str | Collection[str] | None = None,
        experiment: str | None = None,
        tags: Mapping[str, object] | None = None,
        *,
        status: str | Collection[str] | None = None,
        parent: Run | str | None = None,
        max: int | None = None,
    ) -> list[Run]:
        """Find runs, newest first; deleted ones are not seen.

        Args:
            kind: value of the tag `study.kind`, or several.
            experiment: its name; None: all experiments.
            tags: all must be equal.
            status: RUNNING, FINISHED, FAILED, KILLED, or several.
            parent: the children of this run only.
            max: the newest so many; None: all.
        """
        wanted = {key: str(value) for key, value in (tags or {}).items()}
        kinds = {kind} if isinstance(kind, str) else set(kind or ())
        if parent is not None:
            wanted["mlflow.parentRunId"] = parent.id if isinstance(parent, Run) else parent
        statuses = {status} if isinstance(status, str) else set(status or ())
        if self.database is not None:
            rows = sqlite_runs.find(self.database, experiment, kinds, wanted, statuses, max)
            return [Run(self, **row) for row in rows]
        runs = []
        for run in self._pages(experiment, condition(kinds, wanted, statuses)):
            fits = all(run.tags.get(key) == value for key, value in wanted.items())
            if fits and (not statuses or run.status in statuses) and (not kinds or run.tags.get(KIND) in kinds):
                runs.append(run)
            if max is not None and len(runs) >= max:
                break
        return runs

    def search(self, condition: str) -> list[Run]:
        """Find runs by a condition in MLflow's syntax, newest first, such as `params.model.name = 'mlp'`.

        Raises:
            StoreError: a condition that MLflow cannot read.
        """
        try:
            return list(self._pages(None, condition))
        except StoreError as error:
            raise type(error)(f"{error}; {CONDITION}") from error

    def reap(
        self, tags: Mapping[str, object] | None = None, alone: Callable[[Run], bool] = lambda run: False
    ) -> list[Run]:
        """Mark as FAILED the RUNNING runs whose launch is gone; their tag `study.end` says "died".

        Args:
            tags: only runs with these tags, such as the digest of the launch that holds the lock.
            alone: whether nobody but the holder of the lock writes a run; one of another launch has died then, on
                whichever machine.
        """
        for run in (dead := [run for run in self.find(tags=tags, status="RUNNING") if _died(run, alone)]):
            run.remove_unfinished()
            run.fail("died")
        return dead

    @contextmanager
    def lock(
        self,
        name: str,
        waiting: Callable[[str], None] | None = None,
        *,
        experiment: str | None = None,
        parts: Collection[str] = (),
        lost: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Hold the lock of a launch, `<root>/locks/<name>.lock`, and on a server its lease; both end with the process.

        Args:
            name: of the lock.
            waiting: hears twice a second who holds it, until it is free; None: do not wait.
            experiment: whose runs are written, which holds the lease; None: there is no lease.
            parts: of what is trained, on which alone a lease is; empty: all.
            lost: called in another thread when another launch has taken over the lease of this one.

        Raises:
            StoreError: on entering: another process holds it; says which, and since when.
        """
        with locks.held(self.root / "locks" / f"{file_safe(name)}.lock", waiting):
            if experiment is None or self.calls.spool is None:
                yield
                return
            self.calls.send_left_behind()
            with Lease(self, self.experiment(experiment), file_safe(name), lost, parts).held(waiting):
                yield

    def taken_over(self, run: Run) -> bool:
        """Whether another launch writes this run now; a server that is away is not waited for."""
        if self.database is None and (self.calls.busy or not self.calls.responds()):
            return False
        return self.get(run.id).tags.get("study.launch") != run.tags.get("study.launch")

    def verify(self) -> None:
        """Read all files that were logged here since the store was opened; a StoreError when some cannot be read."""
        if damaged := [error for run in self.calls.runs.values() for error in run.verify()]:
            raise StoreError(f"{len(damaged)} files of this launch cannot be read; the first: {damaged[0]}")

    def checkpoint(self) -> None:
        """Make the SQLite file whole without its `-wal`, at the end of a launch; elsewhere this does nothing."""
        if self.database is not None:
            sqlite_store.checkpoint(self.database)

    def link(self, run: Run) -> str:
        """The address at which a person sees the run; for a local store after `study ui`."""
        scheme = urllib.parse.urlsplit(self.uri).scheme
        base = client.public(self.uri).rstrip("/") if scheme in ("http", "https") else "http://127.0.0.1:5000"
        return f"{base}/#/experiments/{run.experiment_id}/runs/{run.id}?workflowType=machine_learning"

    def folder(self, artifacts: str, experiment: str) -> Path | None:
        """Find the folder of a run's files on this machine, from the URI and the experiment's name."""
        here = self.root / "artifacts"
        if self.database is None:
            return sqlite_store.artifact_path(artifacts, here)
        return sqlite_store.run_folder(artifacts, here, self._home, file_safe(experiment))

    @cached_property
    def _home(self) -> str:
        return sqlite_store.home(self.database) if self.database else ""

    def _pages(self, experiment: str | None, text: str) -> Iterator[Run]:
        """Search page by page."""
        names = self._experiments(experiment)
        token = None
        while names:
            page = self.call(
                self.client.search_runs,
                list(names),
                text,
                max_results=self.page,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            for entity in page:
                yield Run.of(self, entity, names[entity.info.experiment_id])
            token = page.token
            if not token:
                return

    def _experiments(self, name: str | None) -> dict[str, str]:
        """Map ids to names, of one experiment or of all; deleted ones are not seen."""
        if name is not None:
            experiment = self.call(self.client.get_experiment_by_name, name)
            return {experiment.experiment_id: name} if experiment and experiment.lifecycle_stage == "active" else {}
        names, token = {}, None
        while True:
            page = self.call(self.client.search_experiments, max_results=self.page, page_token=token)
            names.update({experiment.experiment_id: experiment.name for experiment in page})
            token = page.token
            if not token:
                return names

    def _artifact_location(self, name: str) -> str | None:
        """Choose the folder of an experiment's artifacts; a server chooses itself."""
        if urllib.parse.urlsplit(self.uri).scheme in ("http", "https", "databricks"):
            return None
        return (self.root / "artifacts" / file_safe(name)).as_uri()

    def _out_of_reach(self, location: str) -> bool:
        """Whether MLflow would write a file meant for the server's disk to this machine's, and say nothing."""
        host = urllib.parse.urlsplit(self.uri).hostname
        remote = self.uri.startswith("http") and host not in ("localhost", "127.0.0.1", "::1", socket.gethostname())
        return remote and location.startswith(("file:", "/"))

    def _deleted(self, name: str, experiment_id: str) -> str:
        command = f"MLFLOW_TRACKING_URI='{client.public(self.uri)}' mlflow experiments restore --experiment-id"
        return f"{self.where}: experiment {name} was deleted; bring it back: {command} {experiment_id}"


def _died(run: Run, alone: Callable[[Run], bool]) -> bool:
    """Whether the launch that wrote the run is gone; one of before 0.2 has noted nothing to tell it by."""
    launch = run.launch
    return launch is None or gone(launch) or (launch["id"] != this_launch()["id"] and alone(run))
