"""What commands print with `--json`.  in: runs, tables, a Dataset   out: one JSON text on stdout, for other programs

Missing numbers are null.  Keys are the columns of the tables that the same calls give from Python.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study.progress import print_line

if TYPE_CHECKING:
    from pandas import DataFrame

    from study.data import Dataset
    from study.experiments.compare import Comparison
    from study.tracking import Run
    from study.workflows.plan import Cost


def print_json(value: Any) -> None:
    """Print one value as JSON."""
    print_line(json.dumps(_plain(value), indent=1, allow_nan=False))


def run_summary(run: "Run") -> dict[str, Any]:
    """A run as `study list` names it, with its metrics."""
    tags = run.tags
    return {
        "run": run.id,
        "kind": tags.get("study.kind"),
        "experiment": run.experiment,
        "name": run.name,
        "status": run.status,
        "started": _time(run.started),
        "ended": _time(run.ended),
        "digest": tags.get("study.digest"),
        "data": tags.get("study.data"),
        "metrics": run.metrics,
    }


def run_details(run: "Run") -> dict[str, Any]:
    """A run as `study show` tells of it: parameters, tags, files and its address beside the summary."""
    more = {"params": run.params, "tags": run.tags, "files": run.files, "link": run.store.link(run)}
    return run_summary(run) | more


def dataset_summary(dataset: "Dataset", *, near: bool = False) -> dict[str, Any]:
    """What `study data` says: sizes, classes, what cannot be used, which examples repeat others or are odd."""
    from study.data.findings import find

    counts = {
        split: np.bincount(dataset.labels[dataset.rows(split)], minlength=dataset.n_classes)
        for split in ("train", "test")
    }
    changed = int((dataset.labels != dataset.clean_labels).sum())
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "train": dataset.n_train,
        "test": dataset.n_test,
        "shape": dataset.shape,
        "classes": [
            {"class": name, "train": counts["train"][label], "test": counts["test"][label]}
            for label, name in enumerate(dataset.classes)
        ],
        "changed_labels": changed,
        "unusable": dataset.unusable,
        "notes": dataset.notes,
        "findings": [
            {
                "example": dataset.ids[row],
                "kind": kind,
                "same_as": None if same_as is None else dataset.ids[same_as],
            }
            for row, kind, same_as in find(dataset, near=near)
        ],
    }


def comparison_summary(comparison: "Comparison") -> dict[str, Any]:
    """The tables of `study compare`."""
    names = ("accuracies", "capacity", "agreement")
    return {name: getattr(comparison, name) for name in names} | {"summary": comparison.summary()}


def costs_summary(costs: "Mapping[str, Cost]") -> dict[str, Any]:
    """What `study plan` estimates, part by part; seconds, bytes and FLOP."""
    return {part: asdict(cost) for part, cost in costs.items()}


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _plain(value: Any) -> Any:
    """The same of lists, dictionaries, text, numbers and None; a table becomes a list of its rows."""
    if hasattr(value, "to_dict"):
        return _plain(_records(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _records(table: "DataFrame") -> list[dict[Any, Any]]:
    return table.to_dict("records")
