"""A recorded training as a run in MLflow.  in: signals, scores, a store   out: a finished run"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from study.recorder.signals import TRACED, Signals
from study.tracking import Store, open_store

if TYPE_CHECKING:
    from study.tracking import Run

KIND = "recorded"


def log_run(
    signals: Signals, scores: pd.DataFrame, store: Any, experiment: str, name: str, params: Mapping[str, object]
) -> "Run":
    """Make a finished run with the files of a single run.

    scores.parquet: `Recorder.scores`, with the ids as a column.
    trajectory.npz: epochs (e,); ids (m,) of the train examples that were seen; correct (e, ceil(m / 8)) packed bits,
    confidence, top_confidence, loss, margin, error_norm (e, m) float32, those that were recorded; n, n_train (both m).

    Raises:
        StoreError: a store that cannot be opened or written.
    """
    opened = store if isinstance(store, Store) else _opened(store)
    run = opened.start(experiment, name, params=params, tags={"study.kind": KIND})
    with run:
        m = int(signals.rows.sum())
        arrays: dict[str, np.ndarray] = {
            each: signals.array(each).astype(np.float32) for each in TRACED if each in signals.names
        }
        epochs = np.array(signals.epochs, dtype=np.int64)
        if "correct" in signals.names:
            correct = signals.array("correct")
            arrays["correct"] = np.packbits(correct, axis=1)
            run.series("train/accuracy", correct.mean(axis=1), signals.epochs)
        if "loss" in arrays:
            run.series("train/loss", arrays["loss"].mean(axis=1, dtype=np.float64), signals.epochs)
        counts = {"n": np.array(m), "n_train": np.array(m)}
        run.arrays("trajectory.npz", epochs=epochs, ids=signals.examples.ids[signals.rows], **counts, **arrays)
        run.table("scores.parquet", scores.reset_index())
        run.json("traces.json", scores.attrs)
    return opened.get(run.id)


def _opened(store: Any) -> Store:
    text = str(store)
    return open_store(uri=text) if "://" in text else open_store(Path(text).expanduser())
