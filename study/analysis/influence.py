"""Which training examples help which test examples.  in: subsets and predictions of ensemble members   out: a table"""

import threading
from typing import NamedTuple

import numpy as np
import pandas as pd

from study.analysis.load import StudyRuns
from study.data import Dataset
from study.errors import Stopped
from study.recipe import Recipe
from study.runs.shards import predictions_on_test
from study.scores.memorization import chance_influence, influence
from study.scores.subsets import percent
from study.tracking import Store

LARGEST_CHANCE = 0.5  # above this chance level the influence of a single example cannot be distinguished from chance
COLUMNS = ["target", "label", "cscore", "rank", "source", "source_label", "influence", "stderr"]


class Influences(NamedTuple):
    """Influence of training examples on test examples at one subset ratio.

    table: target label cscore | rank source source_label | influence stderr; both by id, the most helpful first;
        empty where the members are too few.
    summary: in words, the members used and the chance level, or how many members it would take.
    """

    table: pd.DataFrame
    summary: str


def influences(
    runs: StudyRuns,
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    *,
    top: int = 10,
    stop: threading.Event | None = None,
) -> Influences | None:
    """Influence (Feldman and Zhang 2020, Eq. 2) on every test example that some members get wrong and some right.

    At the ratio with the most even division into members that did and did not train on an example.  A test example that
    all members predict alike cannot be influenced and is left out.

    Returns:
        None without an ensemble or without test examples.
    """
    if runs.ensemble is None or runs.profile is None or not dataset.n_test:
        return None
    ratio = min(runs.profile.ratios, key=lambda ratio: (abs(ratio - 0.5), ratio))
    subsets, right = predictions_on_test(store, recipe, dataset, ratio)
    inside = max(round(ratio * len(right)), 1)
    noise = chance_influence(dataset.n_train, inside, max(len(right) - inside, 1))
    where = f"of {len(right)} members trained on {percent(ratio)} %"
    if noise > LARGEST_CHANCE:
        enough = int(np.ceil(2 * np.log(dataset.n_train) / (4 * LARGEST_CHANCE**2) * (1 / ratio + 1 / (1 - ratio))))
        summary = (
            f"not computed: chance alone reaches {noise:.2f} with the predictions {where}; {enough} members would do"
        )
        return Influences(pd.DataFrame(columns=COLUMNS), summary)
    share = right.mean(axis=0)
    divided = np.flatnonzero((share > 0) & (share < 1))
    targets = dataset.n_train + divided

    def subset(rows: slice) -> np.ndarray:
        low = rows.start // 8
        bits = np.unpackbits(subsets[:, low : -(-rows.stop // 8)], axis=1)
        return bits[:, rows.start - 8 * low : rows.stop - 8 * low].astype(bool)

    def progress(share: float) -> None:
        if stop is not None and stop.is_set():
            raise Stopped

    strongest = influence(subset, dataset.n_train, right[:, divided], top=top, progress=progress)
    summary = f"{where}, on {len(targets)} test examples; the largest values below {noise:.2f} can be due to chance"
    return Influences(_table(*strongest, targets, runs, dataset), summary)


def _table(
    source: np.ndarray, value: np.ndarray, error: np.ndarray, targets: np.ndarray, runs: StudyRuns, dataset: Dataset
) -> pd.DataFrame:
    top = source.shape[1] if len(source) else 0
    target, sources = np.repeat(targets, top), source.ravel()
    columns = (
        dataset.ids[target],
        dataset.labels[target],
        runs.cscores["cscore"].to_numpy()[target],
        np.tile(np.arange(1, top + 1), len(targets)),
        dataset.ids[sources],
        dataset.labels[sources],
        value.ravel(),
        error.ravel(),
    )
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))[sources >= 0].reset_index(drop=True)
