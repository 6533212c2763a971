"""Finished runs.  in: a folder or an MLflow tracking URI   out: views of runs, their tables as DataFrames"""

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from study.api.inputs import as_store
from study.tracking import Run, Store

PACKED = {"correct": "n", "online_correct": "n_train"}  # of trajectory.npz: packed bits, and how many there are


@dataclass(frozen=True)
class RunView:
    """One run: what it was started with, and its tables; `RunStore` gives them.

    >>> from types import SimpleNamespace
    >>> RunView(SimpleNamespace(name="mlp 20x9", params={"seed": "0"})).params
    {'seed': '0'}
    """

    run: Run = field(repr=False)

    def __repr__(self) -> str:
        """Experiment, name, status."""
        return f"<{self.run.experiment}: {self.run.name}, {self.run.status.lower()}>"

    @property
    def id(self) -> str:
        """MLflow's run id."""
        return self.run.id

    @property
    def name(self) -> str:
        """As the MLflow UI shows it."""
        return self.run.name

    @property
    def params(self) -> dict[str, str]:
        """The flattened recipe: dotted names to text."""
        return dict(self.run.params)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric, such as `reliability/full`."""
        return dict(self.run.metrics)

    @property
    def files(self) -> list[str]:
        """Names of the files that `table` and `arrays` read."""
        return list(self.run.files)

    def cscores(self) -> pd.DataFrame:
        """The C-scores of an ensemble: the columns that `study.cscores` gives."""
        return self.run.read_table("cscore.parquet")

    def scores(self) -> pd.DataFrame:
        """The proxies of a single run: `example`, `label`, `split`, a column per proxy."""
        return self.run.read_table("scores.parquet")

    def trajectory(self) -> dict[str, np.ndarray]:
        """The evaluations of a single run; see `study.api.training.SingleRun`."""
        arrays = self.run.read_arrays("trajectory.npz")
        counts = {key: int(arrays[key]) for key in ("n", "n_train")}
        for name, key in PACKED.items():
            if name in arrays:
                arrays[name] = np.unpackbits(arrays[name], axis=1, count=counts[key]).astype(bool)
        return {name: array for name, array in arrays.items() if name not in counts}

    def costs(self) -> pd.DataFrame:
        """What the proxies of a single run took beyond the training: `proxy`, `seconds`, `flops`."""
        costs: Any = self.run.read_json("costs.json")
        return pd.DataFrame([{"proxy": name, **cost} for name, cost in costs.items()])

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's parquet files, such as "profile.parquet"."""
        return self.run.read_table(name)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """One of the run's npz files, such as "curves.npz"."""
        return self.run.read_arrays(name)


@dataclass(frozen=True)
class RunStore:
    """The runs of a store, newest first; `study.open` makes it.

    >>> from types import SimpleNamespace
    >>> RunStore(SimpleNamespace(find=lambda *_, **__: [])).ensembles("digits")
    []
    """

    store: Store = field(repr=False)

    def ensembles(self, name: str | None = None) -> list[RunView]:
        """The finished subset ensembles of a data set, or of all."""
        return self.runs("ensemble", name)

    def singles(self, name: str | None = None) -> list[RunView]:
        """The finished single runs of a data set, or of all."""
        return self.runs("single", name)

    def reports(self, name: str | None = None) -> list[RunView]:
        """The finished reports of a data set, or of all; their tables are the leaderboard and what figures show."""
        return self.runs("report", name)

    def searches(self, name: str | None = None) -> list[RunView]:
        """The finished searches for hyper-parameters of a data set, or of all."""
        return self.runs("search", name)

    def references(self, name: str | None = None) -> list[RunView]:
        """Published C-scores that were read in, of a data set, or of all."""
        return self.runs("reference", name)

    def runs(self, kind: str, name: str | None = None) -> list[RunView]:
        """The finished runs of a kind.

        Args:
            kind: "ensemble", "single", "recorded", "report", "search", "reference", "shard" or "trial".
            name: of the data set, the first part of its experiments' names; None: all.
        """
        runs = self.store.find(kind, status="FINISHED")
        return [RunView(run) for run in runs if name is None or run.experiment.rpartition("/")[0] == name]

    def table(self) -> pd.DataFrame:
        """All runs but shards and trials, whatever their status.

        Returns:
            One row per run: `id`, `experiment`, `name`, `kind`, `status`, `started` (UTC), and a column per metric.
        """
        rows = [
            {
                "id": run.id,
                "experiment": run.experiment,
                "name": run.name,
                "kind": run.tags.get("study.kind"),
                "status": run.status,
                "started": pd.Timestamp(run.started, unit="ms", tz="UTC"),
                **run.metrics,
            }
            for run in self.store.find()
            if run.tags.get("study.kind") not in ("shard", "trial")
        ]
        return pd.DataFrame(rows)


def open_runs(path: str | PathLike[str] = "mlruns") -> RunStore:
    """Open the runs that `study run`, or calls with `store=`, have left; exported as `study.open`.

    Args:
        path: the folder, or an MLflow tracking URI.

    Raises:
        StoreError: nothing there, or it cannot be read.

    >>> open_runs("no/such/folder")
    Traceback (most recent call last):
        ...
    study.errors.StoreError: no/such/folder: no runs here (no mlflow.db); name the folder of the runs, or a URI
    """
    return RunStore(as_store(path, create=False))
