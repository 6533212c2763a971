"""A number per training example from a file.  in: a CSV file, a Dataset   out: (n_train,)"""

import csv
from pathlib import Path

import numpy as np

from study.data.dataset import Dataset
from study.data.raw import first_line, shown
from study.errors import DataError


def training_values(dataset: Dataset, path: Path, column: str) -> np.ndarray:
    """Read a column of a table that has a row for each training example.

    Args:
        dataset: n examples.
        path: CSV with the columns `example` and the one that is read; other examples may be in it too.
        column: "score" or "weight".

    Returns:
        (n_train,) float64, finite.

    Raises:
        DataError: no such column, an example without a row, or a value that is no finite number.
    """
    try:
        with path.expanduser().open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{shown(path)}: cannot be read as CSV ({cause}); write UTF-8 with a header") from None
    if not rows or not {"example", column} <= set(rows[0]):
        raise DataError(f"{shown(path)}: write a row per training example, with the columns example and {column}")
    values = {row["example"]: row[column] for row in rows}
    missing = [name for name in dataset.ids[: dataset.n_train].tolist() if name not in values]
    if missing:
        raise DataError(
            f"{shown(path)}: {len(missing)} training examples have no {column}, first {shown(missing[0])!r}; "
            "write a row for each"
        )
    try:
        numbers = np.array([float(values[name]) for name in dataset.ids[: dataset.n_train].tolist()])
    except (TypeError, ValueError) as error:
        raise DataError(f"{shown(path)}: {column}: {first_line(error)}; write numbers") from None
    if not np.isfinite(numbers).all():
        raise DataError(f"{shown(path)}: a {column} is not finite; write a number for each training example")
    return numbers
