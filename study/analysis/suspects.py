"""The examples to check first.  in: joined tables of a study's runs   out: a row per example, the most suspect first"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.load import StudyRuns
from study.data import Dataset
from study.data.edits import PREFIX
from study.data.findings import same_pixels
from study.kernels.knn import nearest
from study.proxies import PROXIES, oriented

# proxies of the training itself that rank planted label flips highest (docs/tutorials/own_images.md has the numbers),
# the best first
RANKING = ("target_confidence", "cumulative_confidence", "cumulative_loss", "aum", "cbtl")
CONFIDENCE = "target_confidence"
NEIGHBOURS = 5
SEPARATOR = " | "  # between ids of one cell, for people
ENSEMBLE_WEIGHT = 0.2  # of the soft C-score in `label_confidence`; in two draws .1 to .2 ranked best, beside one run


def ranking_proxies(runs: StudyRuns) -> list[str]:
    """The proxies that rank suspects, the best first: those of `RANKING` that every single run has; else any that
    sees label errors.

    Empty without single runs.
    """
    fit = [name for name, spec in PROXIES.items() if spec.on == "train" and "flip" not in spec.blind_to]
    held = [name for name in fit if all(name in table for table in runs.scores)]
    preferred = [name for name in RANKING if name in held]
    return (preferred or held[:1]) if runs.scores else []


def ranked_by(runs: StudyRuns) -> str:
    """The column of `suspects` that orders it; "" without any score.

    `label_confidence` where an ensemble and single runs are there, else the soft C-score, the C-score, the best proxy.
    """
    if runs.ensemble and "cscore_soft" in runs.cscores and CONFIDENCE in ranking_proxies(runs):
        return "label_confidence"
    if runs.ensemble or runs.reference:
        return "cscore_soft" if "cscore_soft" in runs.cscores else "cscore"
    return next(iter(ranking_proxies(runs)), "")


def suspects(runs: StudyRuns, dataset: Dataset) -> pd.DataFrame:
    """Every example that has a score, the most suspect first, with names of classes.

    Returns:
        example, the id; for files the path below the root | path, absolute, of files that are there | label |
        planted, as in `Dataset.planted`, where there are such images |
        predicted, the class that most networks predict which were trained without it | label_confidence, a fifth of
        the soft C-score and four fifths of the single runs' confidence in the label, for test examples the soft C-score
        alone | cscore_soft cscore stderr held_out published, as far as there are any | a column per proxy of
        `ranking_proxies`: the mean over the repeats, low means suspect; NaN for test examples, which are no part of the
        training.
    """
    names = dict(enumerate(dataset.classes))
    columns: dict[str, Any] = {"example": runs.cscores["example"]}
    if dataset.files is not None:
        columns["path"] = [path if Path(path).is_file() else "" for path in dataset.files.tolist()]
    columns["label"] = runs.cscores["label"].map(names.get)
    if dataset.planted is not None:
        columns["planted"] = dataset.planted
    if runs.ensemble:
        columns["predicted"] = runs.cscores["consensus"].map(names.get).fillna("")
        computed = ("cscore_soft", "cscore", "stderr", "held_out")
        columns |= {name: runs.cscores[name] for name in computed if name in runs.cscores}
    if "published" in runs.cscores:
        columns["published"] = runs.cscores["published"]
    for name in ranking_proxies(runs):
        repeats = [oriented(PROXIES[name], table[name].to_numpy(dtype=float)) for table in runs.scores]
        columns[name] = np.where(dataset.split() == "train", np.mean(repeats, axis=0), np.nan)
    table, order = pd.DataFrame(columns), ranked_by(runs)
    if not order:
        return table.iloc[:0]
    if order == "label_confidence":
        weighted = ENSEMBLE_WEIGHT * table["cscore_soft"] + (1 - ENSEMBLE_WEIGHT) * table[CONFIDENCE]
        test = dataset.split() == "test"
        table.insert(list(table).index("cscore_soft"), order, weighted.mask(test, table["cscore_soft"]))
    order = order if order in table else "published"
    ties = [name for name in ("cscore", *ranking_proxies(runs)) if name in table and name != order]
    return table.dropna(subset=[order]).sort_values([order, *ties], kind="stable")


@dataclass(frozen=True)
class Review:
    """What a person needs to decide about suspects.

    rows: (q,) of the suspects in the data set.
    suggested: (q,) a class other than the label, or "": that which most networks predict that were trained without
        the example; without an ensemble the class of most of its neighbours.
    neighbours: (q, k) rows of the nearest training examples by their pixels, the nearest first.
    duplicates: (q,) rows of the examples with the same pixels.
    """

    rows: np.ndarray
    suggested: Sequence[str]
    neighbours: np.ndarray
    duplicates: Sequence[np.ndarray]


def review(table: pd.DataFrame, dataset: Dataset) -> Review:
    """Find the neighbours and duplicates of suspects.

    Args:
        table: rows of `suspects`.
        dataset: n examples.
    """
    rows = pd.Index(dataset.ids).get_indexer(pd.Index(table["example"]))
    neighbours = _neighbours(rows, dataset)
    groups = {int(row): group for group in same_pixels(dataset.images) for row in group}
    none = np.array([], dtype=np.int64)
    duplicates = [group[group != row] for row, group in ((row, groups.get(int(row), none)) for row in rows)]
    votes = [_majority(dataset.labels[each]) for each in neighbours]
    predicted = table["predicted"] if "predicted" in table else [_name(vote, dataset) for vote in votes]
    suggested = [
        name if name != label else "" for name, label in zip(predicted, table["label"].astype(str), strict=True)
    ]
    return Review(rows, suggested, neighbours, duplicates)


def editable(table: pd.DataFrame, reviewed: Review, dataset: Dataset) -> pd.DataFrame:
    """The table with the columns that a person fills in, and what helps to.

    Returns:
        The columns of `table`, after `label` the new ones `decision` (empty: keep, relabel or drop), `new_label`
        (empty), `suggested`, and at the end `neighbours`, their ids, `neighbour_labels`, `duplicates`, ids of the
        examples with the same pixels, and `data_digest`, by which `data.decisions` knows the data.
    """
    table, place = table.copy(), list(table).index("label") + 1
    for name, values in (("suggested", reviewed.suggested), ("new_label", ""), ("decision", "")):
        table.insert(place, name, values)
    classes = np.array(dataset.classes)
    table["neighbours"] = [SEPARATOR.join(dataset.ids[rows]) for rows in reviewed.neighbours]
    table["neighbour_labels"] = [SEPARATOR.join(classes[dataset.labels[rows]]) for rows in reviewed.neighbours]
    table["duplicates"] = [SEPARATOR.join(dataset.ids[rows]) for rows in reviewed.duplicates]
    return table.assign(data_digest=PREFIX + dataset.digest)


def _neighbours(rows: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(q, k) the nearest training rows of each row, itself left out."""
    k = min(NEIGHBOURS, dataset.n_train - 1)
    if not len(rows):
        return np.empty((0, k), dtype=np.int64)
    _, nearby = nearest(dataset.images[: dataset.n_train], k + 1, queries=dataset.images[rows])
    return np.array([[other for other in near if other != row][:k] for row, near in zip(rows, nearby, strict=True)])


def _majority(labels: np.ndarray) -> int:
    """The class of more than half of the labels; -1 where there is none."""
    counts = np.bincount(labels)
    return int(np.argmax(counts)) if 2 * counts.max() > len(labels) else -1


def _name(label: int, dataset: Dataset) -> str:
    return dataset.classes[label] if label >= 0 else ""
