"""Published C-scores beside ours.  in: a file of scores, a Dataset, a Store   out: a run that reports pick up

Scores are compared by rank, never taken over: the CIFAR-10 file's largest value is .915, so it was averaged otherwise.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from study.data import Dataset
from study.data.raw import first_line
from study.data.readers.npz import UNREADABLE
from study.errors import DataError
from study.tracking import Run, Store

PUBLISHED = "cscores.parquet"  # the table in a folder of `study publish`
EXAMPLES = ("example", "file", "file_name", "filename", "path", "image")  # columns of names; the first that is there


class Scores(NamedTuple):
    """Published scores: labels (n,), scores (n,) in [0, 1], and (n,) names of the examples where the file has them."""

    labels: np.ndarray
    scores: np.ndarray
    examples: np.ndarray | None = None


def read_scores(path: Path) -> Scores:
    """Read labels and scores, one row per training example, in the data set's original order or with their names.

    An `.npz` with `labels` and `scores`, as the paper's authors publish them, or a table (`.csv`, `.parquet`) with the
    columns `label` and `cscore` (or `score`), and `example` or `file` for the names.  Nothing is unpickled.  Of a
    folder of `study publish` its table; where a table has a column `split`, its train rows.

    Raises:
        DataError: not such a file.
    """
    examples = None
    path = path / PUBLISHED if path.is_dir() else path
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                labels, scores = archive["labels"], archive["scores"]
        else:
            table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
            if "split" in table:
                table = pd.DataFrame(table[table["split"] == "train"])
            labels = table["label"].to_numpy()
            scores = table["cscore" if "cscore" in table else "score"].to_numpy()
            names = next((name for name in EXAMPLES if name in table), None)
            examples = None if names is None else table[names].astype(str).to_numpy()
        labels, scores = np.asarray(labels).reshape(-1), np.asarray(scores, dtype=float).reshape(-1)
    except KeyError as error:
        raise DataError(f"{path}: has no {error}; an .npz needs labels and scores, a table label and cscore") from None
    except (*UNREADABLE, TypeError) as error:  # a plain array is no context manager
        raise DataError(f"{path}: cannot be read as .npz, .csv or .parquet ({first_line(error)})") from None
    if len(labels) != len(scores):
        raise DataError(f"{path}: {len(labels)} labels but {len(scores)} scores")
    if pd.isna(labels).any():
        raise DataError(f"{path}: {pd.isna(labels).sum()} rows have no label, first row {pd.isna(labels).argmax()}")
    wrong = np.flatnonzero(~(np.isfinite(scores) & (scores >= 0) & (scores <= 1)))
    if len(wrong):
        raise DataError(f"{path}: {len(wrong)} scores are not between 0 and 1, first in row {wrong[0]}")
    return Scores(labels, scores, examples)


def match(path: Path, published: Scores, dataset: Dataset) -> np.ndarray:
    """Bring scores to the data set's training rows, (n_train,), by name where both have names, else by number.

    The order is checked through the labels: each label of the file must go with one label of the data set and back.

    Raises:
        DataError: a training example without a row, or labels that say that the order is another one.
    """
    labels, scores, examples = published
    rows = _numbered_rows(path, scores, dataset) if examples is None else _named_rows(path, examples, dataset)
    pairs = (
        pd.DataFrame({"theirs": labels[rows], "ours": dataset.clean_labels[: dataset.n_train]})
        .value_counts()
        .reset_index()
    )
    partner = pairs.drop_duplicates("theirs").set_index("theirs")["ours"]
    wrong = np.flatnonzero(partner.loc[labels[rows]].to_numpy() != dataset.clean_labels[: dataset.n_train])
    if len(wrong) or partner.duplicated().any():
        first = f", first at {dataset.ids[wrong[0]]}" if len(wrong) else ""
        raise DataError(
            f"{path}: {len(wrong)} labels are not those of {dataset.name}{first}; the scores are in another order"
        )
    return scores[rows]


def _named_rows(path: Path, examples: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(n_train,) the row of each training example, by its id, else by the last part of it, the file's name."""
    ids = dataset.ids[: dataset.n_train]
    for part in (str, lambda name: name.replace("\\", "/").rpartition("/")[2]):
        theirs = pd.Index([part(name) for name in examples.tolist()])
        ours = [part(name) for name in ids.tolist()]
        if theirs.has_duplicates or len(set(ours)) < len(ours):
            continue
        rows = theirs.get_indexer(pd.Index(ours))
        if (rows >= 0).all():
            return rows
    missing = sorted(set(ids.tolist()) - set(examples.tolist()))
    first = missing[0] if missing else ids[0]
    raise DataError(
        f"{path}: no row for {len(missing)} of {len(ids)} training examples, first {first}; "
        "name them by the path below the root, or by file names that occur once"
    )


def _numbered_rows(path: Path, scores: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(n_train,) the row of each training example, the number in its id; `limit` leaves gaps."""
    try:
        rows = np.array([int(name.rpartition("/")[2]) for name in dataset.ids[: dataset.n_train]])
    except ValueError:
        raise DataError(
            f"{path}: the examples of {dataset.name} have no numbers, so a list of scores cannot be matched "
            "to them; give the table a column `example` with the files' paths"
        ) from None
    if rows.max() >= len(scores):
        raise DataError(f"{path}: holds {len(scores)} scores, but {dataset.name} has an example number {rows.max()}")
    return rows


def log_reference(path: Path, title: str, dataset: Dataset, store: Store) -> Run:
    """Keep published scores as a run of `<data set>/reference`; the next report of this data set compares with them."""
    matched = match(path, read_scores(path), dataset)
    column = np.full(dataset.n, np.nan)
    column[: dataset.n_train] = matched
    tags = {"study.kind": "reference", "study.data": dataset.digest}
    with store.start(f"{title}/reference", path.name, params={"file": path.name}, tags=tags) as run:
        run.table(
            "reference.parquet", pd.DataFrame({"example": dataset.ids, "label": dataset.labels, "cscore": column})
        )
        run.log({"cscore/mean": float(matched.mean()), "cscore/share_at_1": float((matched == 1).mean())})
    return store.get(run.id)
