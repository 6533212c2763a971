"""Traces that other tools have written.  in: a file or folder   out: a Recorder"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.errors import DataError
from study.recorder.recorder import Recorder
from study.recorder.statistics import STATISTICS

ID_COLUMNS = ("id", "guid", "sample_id")
LABEL_COLUMNS = ("label", "target_logit")  # the second in the records of the package `aum`


def read_trace(path: Any, *, labels: Any = None, ids: Any = None, kind: str = "end") -> Recorder:
    """Read a trace that another tool has written.

    Args:
        path: one of
            a folder of `*.jsonl`, as dataset cartography writes them: a file per epoch, a line per example with
            `guid`, `gold` and `logits_epoch_<k>`;
            `.npy` of logits or probabilities (e, n, c), probabilities (n, c) such as cleanlab's `pred_probs`, or losses
            (e, n);
            `.npz` with `logits`, `probabilities` or `loss` of these shapes, and `labels` (n,), `ids` (n,);
            `.csv` or `.parquet` with a row per example and epoch: `id` (or `sample_id`), `epoch`, and `loss`, `margin`,
            `confidence`, ... or a column per class, `logit_0`, `logit_1`, ...; `label` unless passed.  The package aum
            writes such a table, `full_aum_records.csv`.
        labels: (n,) classes, where the file has none.
        ids: (n,), where the file has none; else 0..n-1.
        kind: "end" if the predictions were made at epoch ends, "online" if in training.

    Returns:
        A Recorder: its `scores()` are the proxies that the trace allows.

    Raises:
        DataError: a format that is not known, shapes that do not fit, probabilities out of range.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} is not there; name a file or a folder of a trace")
    if path.is_dir():
        return _cartography(path, kind)
    if path.suffix in (".npy", ".npz"):
        return _arrays(path, labels, ids, kind)
    if path.suffix in (".csv", ".parquet"):
        return _table(path, labels, kind)
    raise DataError(f"{path.name} is no trace; there are .npy, .npz, .csv, .parquet and folders of .jsonl")


def _cartography(folder: Path, kind: str) -> Recorder:
    """Files in the order of their epochs; the first one's lines name the examples."""
    files = sorted(folder.glob("*.jsonl"), key=lambda file: [int(each) for each in re.findall(r"\d+", file.stem)])
    if not files:
        raise DataError(f"{folder} has no .jsonl files; name the folder of the training dynamics")
    recorder: Recorder | None = None
    for file in files:
        lines = _json_lines(file)
        name = next((key for key in lines[0] if key.startswith("logits")), None)
        if name is None or "guid" not in lines[0]:
            raise DataError(f"{file.name}: a line has guid, gold and logits_epoch_<k>, not {', '.join(lines[0])}")
        try:
            logits = np.array([line[name] for line in lines], dtype=np.float64)
            ids, labels = [line["guid"] for line in lines], np.array([line["gold"] for line in lines])
        except (KeyError, ValueError, TypeError):
            raise DataError(f"{file.name}: every line needs guid, gold and as many {name} as the first") from None
        recorder = recorder or Recorder(ids, labels, n_classes=logits.shape[1])
        recorder.add_epoch(ids, logits, kind=kind)
    assert recorder
    return recorder


def _json_lines(file: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{file.name} is no JSON lines file: {error}") from None
    if not lines or not all(isinstance(line, dict) for line in lines):
        raise DataError(f"{file.name} has no lines with an example each")
    return lines


def _arrays(path: Path, labels: Any, ids: Any, kind: str) -> Recorder:
    """Logits or probabilities (e, n, c) or (n, c), losses (e, n)."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path.name} cannot be read: {error}") from None
    if isinstance(loaded, np.ndarray):
        arrays = {_content(loaded, path.name): loaded}
    else:
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    given = [name for name in ("logits", "probabilities", "loss") if name in arrays]
    if len(given) != 1:
        raise DataError(
            f"{path.name} needs one of logits, probabilities, loss; it has {', '.join(arrays) or 'nothing'}"
        )
    values = arrays[given[0]]
    labels, ids = (arrays.get("labels") if labels is None else labels), (arrays.get("ids") if ids is None else ids)
    if given[0] == "loss":
        return _recorded(values if values.ndim == 2 else values[None], "loss", None, ids, kind)
    if labels is None:
        raise DataError(f"{path.name} has no labels; pass labels=..., or --labels FILE to `study import`")
    if given[0] == "probabilities":
        values = _as_logits(values, path.name)
    return _recorded(values if values.ndim == 3 else values[None], "logits", labels, ids, kind)


def _content(array: np.ndarray, name: str) -> str:
    """What an array without a name holds, by its shape and sums."""
    if array.ndim == 3 or (array.ndim == 2 and _are_probabilities(array)):
        return "probabilities" if _are_probabilities(array) else "logits"
    if array.ndim == 2:
        return "loss"
    raise DataError(f"{name} is {array.shape}; it must be (epochs, n, classes), (n, classes) or (epochs, n)")


def _are_probabilities(array: np.ndarray) -> bool:
    return bool((array >= 0).all() and np.allclose(array.sum(axis=-1), 1, atol=1e-3))


def _as_logits(probabilities: np.ndarray, name: str) -> np.ndarray:
    """Logarithms, whose softmax the probabilities are; a probability of 0 becomes the smallest float64."""
    if not _are_probabilities(probabilities):
        raise DataError(f"{name}: probabilities are 0 to 1 and sum to 1 over the last axis; these do not")
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny))


def _recorded(values: np.ndarray, name: str, labels: Any, ids: Any, kind: str) -> Recorder:
    """A Recorder of epochs (e, n, ...)."""
    if values.dtype.kind not in "fiu" or values.ndim != (2 if name == "loss" else 3) or not values.size:
        raise DataError(f"{name} is {values.dtype} {values.shape}; it must be numbers, (epochs, n, ...)")
    n_classes = None if name == "loss" else values.shape[2]
    recorder = Recorder(values.shape[1] if ids is None else ids, labels, n_classes=n_classes)
    for epoch in values:
        recorder.add_epoch(recorder.examples.ids, **{name: epoch}, kind=kind)
    return recorder


def _table(path: Path, labels: Any, kind: str) -> Recorder:
    """A row per example and epoch."""
    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {error}".splitlines()[0]) from None
    column = next((name for name in ID_COLUMNS if name in table), None)
    logits = sorted((name for name in table if re.fullmatch(r"logit_\d+", str(name))), key=lambda name: int(name[6:]))
    statistics = [name for name in STATISTICS if name in table]
    if column is None or "epoch" not in table or not (logits or statistics):
        raise DataError(
            f"{path.name} needs columns id, epoch, and logit_0, logit_1, ... or one of {', '.join(STATISTICS)}; "
            f"it has {', '.join(map(str, table.columns))}"
        )
    first = table.drop_duplicates(column)
    named = next((name for name in LABEL_COLUMNS if name in table), None)
    if labels is None and named is not None:
        labels = first[named].to_numpy()
    recorder = Recorder(first[column].to_numpy(), labels, n_classes=len(logits) or None)
    for _, epoch in table.groupby("epoch", sort=True):
        values = epoch[logits].to_numpy(np.float64) if logits else None
        columns = {} if logits else {name: epoch[name].to_numpy() for name in statistics}
        recorder.add_epoch(epoch[column].to_numpy(), values, kind=kind, **columns)
    return recorder
