"""Runs read from the local store's database, without MLflow.  in: a SQLite file   out: arguments of `Run`

`import mlflow` takes three seconds, and its search reads a store of 1,800 runs in nine.  The tables are MLflow's; that
they are those of the installed MLflow is checked when the store is opened, see `sqlite_store.check`.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from study.tracking.names import KIND
from study.tracking.sqlite_store import opened

RUNS = """
SELECT r.run_uuid, r.name, e.name, CAST(r.experiment_id AS TEXT), r.status, r.start_time, r.end_time, r.artifact_uri,
       r.lifecycle_stage
FROM runs AS r JOIN experiments AS e ON e.experiment_id = r.experiment_id
"""
ACTIVE = "r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'"
COLUMNS = ("id", "name", "experiment", "experiment_id", "status", "started", "ended", "artifacts")
VALUES = 30_000  # run ids in one statement; SQLite takes 32,766


def find(
    database: Path,
    experiment: str | None,
    kinds: Collection[str],
    tags: Mapping[str, str],
    statuses: Collection[str],
    most: int | None,
) -> list[dict[str, Any]]:
    """The active runs with these tags, newest first, as arguments of `Run`.

    Args:
        database: SQLite file.
        experiment: its name; None: all that are not deleted.
        kinds: one of them; empty: any.
        tags: all must be equal.
        statuses: one of them; empty: any.
        most: the newest so many; None: all.
    """
    conditions, values = [ACTIVE], []
    if experiment is not None:
        conditions.append("e.name = ?")
        values.append(experiment)
    if statuses:
        conditions.append(f"r.status IN ({', '.join('?' * len(statuses))})")
        values += statuses
    for key, among in [(KIND, kinds), *((key, [value]) for key, value in tags.items())]:
        if among:
            equal = f"value IN ({', '.join('?' * len(among))})"
            conditions.append(f"EXISTS (SELECT 1 FROM tags WHERE run_uuid = r.run_uuid AND key = ? AND {equal})")
            values += [key, *among]
    query = f"{RUNS} WHERE {' AND '.join(conditions)} ORDER BY r.start_time DESC, r.run_uuid LIMIT ?"
    return _read(database, query, [*values, -1 if most is None else most])


def get(database: Path, run_id: str) -> dict[str, Any] | None:
    """One run, as arguments of `Run`; None where there is none with that id, or it was deleted."""
    rows = _read(database, f"{RUNS} WHERE r.run_uuid = ? AND r.lifecycle_stage = 'active'", [run_id])
    return rows[0] if rows else None


def history(database: Path, run_id: str, metric: str) -> list[tuple[int, float]]:
    """A curve: (step, value) by step, then by time."""
    query = "SELECT step, value, is_nan FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp"
    with opened(database) as connection:
        return [(step, math.nan if nan else value) for step, value, nan in connection.execute(query, (run_id, metric))]


def _read(database: Path, query: str, values: list[Any]) -> list[dict[str, Any]]:
    with opened(database) as connection:
        rows = connection.execute(query, values).fetchall()
        runs = {row[0]: dict(zip(COLUMNS, row, strict=False), params={}, tags={}, metrics={}) for row in rows}
        ids = list(runs)
        for low in range(0, len(ids), VALUES):
            some = ids[low : low + VALUES]
            among = f"WHERE run_uuid IN ({', '.join('?' * len(some))})"
            for table in ("params", "tags"):
                for run, key, value in connection.execute(f"SELECT run_uuid, key, value FROM {table} {among}", some):
                    runs[run][table][key] = value
            metrics = f"SELECT run_uuid, key, value, is_nan FROM latest_metrics {among}"
            for run, key, value, nan in connection.execute(metrics, some):
                runs[run]["metrics"][key] = math.nan if nan else value
    return list(runs.values())
