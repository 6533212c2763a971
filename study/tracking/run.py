"""One run: what it logs, and its files, checked when read.  in: numbers, tables, arrays, figures   out: MLflow."""

import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from study.errors import DamagedFileError, StoreError
from study.tracking import files, sqlite_runs
from study.tracking.writes import Write

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from study.tracking.store import Store

SUMS = "study.files"  # tag, {file: sha256}; MLflow itself keeps no checksum and serves damaged files
UNFINISHED = ".artifact.uploading."  # MLflow's own prefix for unfinished files: its UI does not list them
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
PREVIEW_ROWS = 500  # of a CSV, as many as the MLflow UI shows
FILE_NAME = re.compile(r"(?!\.)[\w.\- ]+(/(?!\.)[\w.\- ]+)*")  # what MLflow takes in a tag's name, and no `..`


@dataclass
class Run:
    """A run of the store; `Store.start`, `get` and `find` make it.

    Attributes:
        id: MLflow's run id.
        name: as the UI shows it.
        experiment: name of its experiment.
        status: RUNNING, FINISHED, FAILED or KILLED.
        params, tags: as MLflow keeps them, text.
        metrics: last value of each.
        started, ended: milliseconds since 1970; ended is None while it runs.
        artifacts: MLflow's URI of the folder of its files.
    """

    store: "Store" = field(repr=False)
    id: str
    name: str
    experiment: str
    experiment_id: str
    status: str
    params: dict[str, str] = field(repr=False)
    tags: dict[str, str] = field(repr=False)
    metrics: dict[str, float] = field(repr=False)
    started: int
    ended: int | None
    artifacts: str = field(repr=False)

    @classmethod
    def of(cls, store: "Store", entity: Any, experiment: str) -> Self:
        """Make a run of what MLflow returns."""
        info, data = entity.info, entity.data
        return cls(
            store=store,
            id=info.run_id,
            name=info.run_name,
            experiment=experiment,
            experiment_id=info.experiment_id,
            status=info.status,
            params=dict(data.params),
            tags=dict(data.tags),
            metrics=dict(data.metrics),
            started=info.start_time,
            ended=info.end_time,
            artifacts=info.artifact_uri,
        )

    @property
    def parent(self) -> str | None:
        """Id of the run that this one is a child of."""
        return self.tags.get("mlflow.parentRunId")

    @property
    def launch(self) -> dict[str, Any] | None:
        """The launch that writes the run, see `launches.this_launch`; None in stores from before 0.2."""
        text = self.tags.get("study.launch")
        return json.loads(text) if text else None

    @property
    def files(self) -> list[str]:
        """Names of the files, in order."""
        return sorted(self._sums())

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, `group/name_unit`, with six digits, which is what people compare; tables keep all of them.

        NaN is kept, infinity becomes NaN (MLflow would make it 1.8e308).

        Args:
            metrics: names and values.
            step: epoch or member, for one point of a series; None: an outcome of the run.
        """
        stamp = int(time.time() * 1000) if step is None else self.started + step
        self._log([(name, value, stamp, step or 0) for name, value in metrics.items()])
        self.metrics.update({name: _shown(value) for name, value in metrics.items()})

    def series(self, name: str, values: "Sequence[float] | np.ndarray", steps: Sequence[int] | None = None) -> None:
        """Log a curve at once.  Times are made of start and step, so that logging it again after a resume adds nothing.

        Args:
            name: of the metric.
            values: one per step.
            steps: 0, 1, 2, ... unless given.

        Raises:
            ValueError: as many steps as values are needed.
        """
        self.curves({name: values}, range(len(values)) if steps is None else steps)

    def curves(self, curves: "Mapping[str, Sequence[float] | np.ndarray]", steps: Sequence[int]) -> None:
        """Log several curves over the same steps in one call; see `series`."""
        points = {name: list(zip(values, steps, strict=True)) for name, values in curves.items()}
        stamps = {at: self.started + int(at) for at in steps}
        self._log([(name, value, stamps[at], int(at)) for name, pairs in points.items() for value, at in pairs])
        self.metrics.update({name: _shown(pairs[-1][0]) for name, pairs in points.items() if pairs})

    def param(self, params: Mapping[str, object]) -> None:
        """Log parameters; MLflow refuses to change one."""
        rows = [(key, str(value)) for key, value in params.items()]
        for start in range(0, len(rows), PARAMS_PER_CALL):
            self._send("log_params", rows=rows[start : start + PARAMS_PER_CALL])
        self.params.update(rows)

    def tag(self, key: str, value: object) -> None:
        """Set a tag; it may be changed later."""
        self._send("set_tag", key=key, value=str(value))
        self.tags[key] = str(value)

    def file(self, path: Path, folder: str | None = None) -> str:
        """Keep a copy of a file, under its own name.

        Args:
            path: of the file.
            folder: within the run.

        Returns:
            its name within the run.
        """
        if not Path(path).is_file():
            raise StoreError(f"{path}: no such file to keep in run {self.id} ({self.name})")
        name = f"{folder}/{Path(path).name}" if folder else Path(path).name
        return self._keep(name, lambda place: shutil.copyfile(path, place))

    def bytes(self, name: str, content: bytes) -> str:
        """Keep bytes as a file."""
        return self._keep(name, lambda place: place.write_bytes(content))

    def text(self, name: str, content: str) -> str:
        """Keep text as a file, UTF-8."""
        return self.bytes(name, content.encode())

    def json(self, name: str, content: object) -> str:
        """Keep a tree of dicts, lists, numbers and text as a file."""
        return self.text(name, json.dumps(content, indent=1, ensure_ascii=False))

    def table(self, name: str, table: "DataFrame") -> str:
        """Keep a table as parquet, without its index, and its first 500 rows as CSV, which the MLflow UI can show.

        Args:
            name: with or without `.parquet`.
            table: columns with names; an index is dropped.
        """
        stem = name.removesuffix(".parquet")
        kept = self._keep(f"{stem}.parquet", lambda place: table.to_parquet(place, index=False, compression="zstd"))
        self.text(f"preview/{PurePosixPath(stem).name}.csv", table.head(PREVIEW_ROWS).to_csv(index=False))
        return kept

    def arrays(self, name: str, **arrays: "np.ndarray") -> str:
        """Keep arrays as compressed npz.

        Args:
            name: with or without `.npz`.
            arrays: by name; no objects.
        """
        return self._keep(f"{name.removesuffix('.npz')}.npz", lambda place: files.write_arrays(place, arrays))

    def figure(self, figure: "Figure", name: str) -> str:
        """Keep a figure, as PNG or SVG by the end of its name."""
        kind = PurePosixPath(name).suffix.removeprefix(".")
        return self._keep(name, lambda place: figure.savefig(place, format=kind))

    def dataset(self, name: str, digest: str, context: str, n: int, **profile: object) -> None:
        """Name the data that the run reads; the UI shows them as a chip with name, digest and context.

        Args:
            name: of the data set.
            digest: of its content, at most 36 letters.
            context: "training", "testing" or such.
            n: number of examples.
            profile: more to say, in JSON's types.
        """
        text = json.dumps({"num_rows": n, **profile})
        entity = {"name": name, "digest": digest[:36], "source_type": "local", "source": name, "profile": text}
        self._send("log_input", dataset=entity, context=context)

    def finish(self) -> None:
        """End well: FINISHED."""
        self._end("FINISHED", None)

    def fail(self, why: str | None = None) -> None:
        """End badly: FAILED; the tag `study.end` says why."""
        self._end("FAILED", why)

    def kill(self, why: str | None = None) -> None:
        """End because somebody stopped it: KILLED, unless another launch has taken the run over."""
        if not self.store.taken_over(self):
            self._end("KILLED", why)

    def remove_unfinished(self) -> list[Path]:
        """Remove and return files that a killed process has left unfinished; only for a run that nobody writes."""
        folder = self._local(".")
        unfinished = list(folder.rglob(f"{UNFINISHED}*")) if folder else []
        for file in unfinished:
            file.unlink(missing_ok=True)
        return unfinished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.status != "RUNNING":
            return
        if kind is None:
            self.finish()
            return
        with suppress(StoreError):  # what went wrong first matters more than a store that is away
            if issubclass(kind, Exception):
                self.fail(f"{kind.__name__}: {error}")
            else:
                self.kill(kind.__name__)

    def read(self, name: str) -> Path:
        """Find a file of the run and check it against its sha256; from a server it is downloaded once.

        Raises:
            StoreError: it was never kept, is missing, or is damaged; says which run and file.
        """
        if name not in self._sums():
            self.tags = self.store.get(self.id).tags
        if name not in self._sums():
            names = ", ".join(self.files) or "none"
            raise StoreError(f"run {self.id} ({self.name}) has no file {name}; it has: {names}")
        path = self._local(name) or self._downloaded(name)
        if not path.is_file():
            raise DamagedFileError(
                f"run {self.id} ({self.name}): file {name} is missing at {path}; run its recipe again"
            )
        if files.sha256(path) != self._sums()[name]:
            raise DamagedFileError(
                f"run {self.id} ({self.name}): file {name} is damaged at {path}; run its recipe again"
            )
        return path

    def verify(self, *names: str) -> list[StoreError]:
        """Check these files, or all, against their sha256; what is wrong, a line each."""
        damaged = []
        for name in names or self.files:
            try:
                self.read(name)
            except StoreError as error:
                damaged.append(error)
        return damaged

    def fail_damaged(self) -> None:
        """End as FAILED when a file is missing or damaged: another run takes its place, and nobody warns again."""
        for error in self.verify():
            if isinstance(error, DamagedFileError):
                self.fail(f"damaged: {error}")

    def read_text(self, name: str) -> str:
        """Read a text file, UTF-8."""
        return self.read(name).read_text(encoding="utf-8")

    def read_json(self, name: str) -> Any:
        """Read what `json` kept."""
        return json.loads(self.read_text(name))

    def read_table(self, name: str) -> "DataFrame":
        """Read what `table` kept."""
        import pandas as pd

        return pd.read_parquet(self.read(f"{name.removesuffix('.parquet')}.parquet"))

    def read_arrays(self, name: str) -> dict[str, "np.ndarray"]:
        """Read what `arrays` kept; name with or without `.npz`.  Never unpickles."""
        return self.read_some_arrays(name)[0]

    def read_some_arrays(self, name: str, *keys: str) -> "tuple[dict[str, np.ndarray], set[str]]":
        """Read the arrays of these names that there are, all unless given; and the names of all that there are."""
        return files.read_arrays(self.read(f"{name.removesuffix('.npz')}.npz"), keys)

    def read_series(self, name: str) -> list[tuple[int, float]]:
        """Read a curve: (step, value) by step."""
        if self.store.database is not None:
            return sqlite_runs.history(self.store.database, self.id, name)
        history = self.store.call(self.store.client.get_metric_history, self.id, name)
        return [(point.step, point.value) for point in sorted(history, key=lambda point: (point.step, point.timestamp))]

    def _sums(self) -> dict[str, str]:
        """The sha256 of every file, by name."""
        return json.loads(self.tags.get(SUMS, "{}"))

    def _log(self, rows: list[tuple[str, float, int, int]]) -> None:
        finite = [(name, _shown(value), stamp, step) for name, value, stamp, step in rows]
        for start in range(0, len(finite), METRICS_PER_CALL):
            self._send("log_metrics", rows=finite[start : start + METRICS_PER_CALL])

    def _send(self, call: str, file: Path | None = None, **settings: Any) -> None:
        """Write to MLflow, or to the spool while the server is away."""
        self.store.calls.write(Write(call, self.id, settings), file)

    def _end(self, status: str, why: str | None) -> None:
        if why:
            self.tag("study.end", " ".join(why.split())[:500])
        now = int(time.time() * 1000)
        self._send("set_terminated", status=status, end_time=now)
        self.status, self.ended = status, now

    def _keep(self, name: str, write: Callable[[Path], object]) -> str:
        """Write a file whole or not at all, then its hash into the tag; one that is not there does not count."""
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"file name {name!r}: use letters, digits, `_ - .`, blanks, and `/` between folders")
        try:
            place = self._local(name)
            with self._at(name, place) as temporary:
                write(temporary)
                digest = files.sha256(temporary)
        except OSError as error:
            where = self._local(name) or self.store.where
            reason = error.strerror or error
            raise StoreError(f"{where}: {reason}; free space or allow writing there, and run again") from error
        self.tag(SUMS, json.dumps({**self._sums(), name: digest}, sort_keys=True))
        return name

    @contextmanager
    def _at(self, name: str, place: Path | None) -> "Iterator[Path]":
        """Offer a temporary path; what is written there becomes the run's file."""
        if place is None:
            with tempfile.TemporaryDirectory(prefix="study-") as folder:
                temporary = Path(folder) / PurePosixPath(name).name
                yield temporary
                inside = str(PurePosixPath(name).parent)
                target = None if inside == "." else inside
                self._send("log_artifact", temporary, folder=target)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"{UNFINISHED}{os.getpid()}.{place.name}")
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)

    def _local(self, name: str) -> Path | None:
        """Where the file is on this machine; None when the store is a server, whose folders are not ours."""
        if self.store.uri.startswith("http"):
            return None
        folder = self.store.folder(self.artifacts, self.experiment)
        return folder / name if folder else None

    def _downloaded(self, name: str) -> Path:
        path = self.store.root / "downloads" / self.id / name
        if path.is_file() and files.sha256(path) == self._sums()[name]:
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
                # MLflow keeps the folders of a name for some stores and drops them for others
                got = self.store.call(self.store.client.download_artifacts, self.id, name, folder)
                os.replace(got, path)
        except (StoreError, OSError) as error:
            raise StoreError(f"run {self.id} ({self.name}): file {name} cannot be fetched: {error}") from error
        return path


def _shown(value: float) -> float:
    """Six significant digits; whole numbers as they are."""
    value = float(value)
    if math.isinf(value):
        return math.nan
    return value if math.isnan(value) or value.is_integer() else float(f"{value:.6g}")
