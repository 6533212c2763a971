"""Published C-scores beside ours.  in: a file of scores, a Dataset, a Store   out: a run that reports pick up

Scores are compared by rank, never taken over: the CIFAR-10 file's largest value is .915, so it was averaged otherwise.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from study.data import Dataset
from study.data.raw import first_line
from study.data.readers.npz import UNREADABLE
from study.errors import DataError
from study.tracking import Run, Store


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read labels and scores, one row per training example in the data set's original order.

    An `.npz` with `labels` and `scores`, as the paper's authors publish them, or a table (`.csv`, `.parquet`) with the
    columns `label` and `cscore` (or `score`).  Nothing is unpickled.

    Returns:
        labels (n,), scores (n,) in [0, 1].

    Raises:
        DataError: not such a file.
    """
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                labels, scores = archive["labels"], archive["scores"]
        else:
            table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
            labels = table["label"].to_numpy()
            scores = table["cscore" if "cscore" in table else "score"].to_numpy()
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
    return labels, scores


def match(path: Path, labels: np.ndarray, scores: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Bring scores to the data set's training rows, (n_train,), by the number in each id; `limit` leaves gaps.

    The order is checked through the labels: each label of the file must go with one label of the data set and back.

    Raises:
        DataError: fewer rows than the ids need, or labels that say that the order is another one.
    """
    try:
        rows = np.array([int(name.rpartition("/")[2]) for name in dataset.ids[: dataset.n_train]])
    except ValueError:
        raise DataError(
            f"{path}: the examples of {dataset.name} have no numbers, so a list of scores cannot be matched "
            "to them; published scores go with a published data set"
        ) from None
    if rows.max() >= len(scores):
        raise DataError(f"{path}: holds {len(scores)} scores, but {dataset.name} has an example number {rows.max()}")
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


def log_reference(path: Path, title: str, dataset: Dataset, store: Store) -> Run:
    """Keep published scores as a run of `<data set>/reference`; the next report of this data set compares with them."""
    labels, scores = read_scores(path)
    matched = match(path, labels, scores, dataset)
    column = np.full(dataset.n, np.nan)
    column[: dataset.n_train] = matched
    tags = {"study.kind": "reference", "study.data": dataset.digest}
    with store.start(f"{title}/reference", path.name, params={"file": path.name}, tags=tags) as run:
        run.table(
            "reference.parquet", pd.DataFrame({"example": dataset.ids, "label": dataset.labels, "cscore": column})
        )
        run.log({"cscore/mean": float(matched.mean()), "cscore/share_at_1": float((matched == 1).mean())})
    return store.get(run.id)
