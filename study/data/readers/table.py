"""Tables of numbers and categories.  in: a CSV file, or one per split   out: Raw, standardized

age,income,country,label           every row is a train row
age,income,country,label,split     the split is in a column; a column `id` names the rows
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study.data.raw import Raw, first_line, shown
from study.data.readers.columns import label_column, split_column
from study.data.readers.csv_table import DELIMITERS
from study.data.readers.rows import choose_rows, places, raw_of
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ENDINGS = (".csv", ".tsv")
IDS = ("id", "ids", "example")
MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
MOST_CATEGORIES = 100  # of one column; more are names or texts, which tell no two rows apart


def read_table(data: DataSpec, progress: Bar) -> Raw:
    """Numbers are standardized, categories become one column per value, both by the train rows alone.

    A missing number stands at the mean, a missing or unknown category at none.  A column of one value is left out.

    Raises:
        DataError: no such file or column, a text column with more than 100 values, no column that is left.
    """
    files = places(data, ENDINGS)
    where = files[0][1]
    table, words = _read(files)
    columns = [str(name) for name in table.columns]
    label, split = label_column(columns, data.columns.label, where), split_column(columns, data.columns.split, where)
    if split is not None and len(files) == 1:
        words = table[split].to_numpy(dtype=str)
    labels = table[label].to_numpy(dtype=str)
    chosen = choose_rows(words, labels, str(where))
    table, labels = table.iloc[chosen.order], chosen.of(labels)
    named = next((name for name in columns if name.lower() in IDS and name not in (label, split)), None)
    encoded = [
        pair
        for name in columns
        if name not in (label, split, named)
        for pair in _encoded(table[name], chosen.n_train, where)
    ]
    if not encoded:
        raise DataError(f"{shown(where)}: no column of numbers or categories beside the label; add some")
    return raw_of(
        np.stack([values for values, _ in encoded], axis=1),
        labels,
        chosen,
        where,
        ids=None if named is None else table[named].to_numpy(dtype=str),
        notes=[line for _, line in encoded if line],
    )


def _read(files: list[tuple[str | None, Path]]) -> "tuple[DataFrame, np.ndarray]":
    """All rows as text, and the split of the file that each is in."""
    import pandas as pd

    tables = []
    for _, file in files:
        try:
            with file.open(encoding="utf-8-sig", newline="") as stream:
                header = stream.readline()
                stream.seek(0)
                delimiter = max(DELIMITERS, key=header.count)
                tables.append(pd.read_csv(stream, sep=delimiter, dtype=str, keep_default_na=False))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            cause = getattr(error, "strerror", None) or first_line(error)
            raise DataError(f"{shown(file)}: cannot be read as CSV ({cause}); write UTF-8 with a header") from None
        if list(tables[0].columns) != list(tables[-1].columns):
            raise DataError(
                f"{shown(file)}: its columns are not those of {shown(files[0][1])}; use splits of one table"
            )
    words = [np.full(len(table), split or "train") for (split, _), table in zip(files, tables, strict=True)]
    whole = pd.concat(tables, ignore_index=True)
    return pd.DataFrame({name: whole[name].str.strip() for name in whole}), np.concatenate(words)


def _encoded(column: "Series", n_train: int, where: Path) -> Iterator[tuple[np.ndarray, str]]:
    """(n,) float32 of each feature that a column gives, and a line where it is to be known."""
    import pandas as pd

    missing = column.str.lower().isin(MISSING).to_numpy()
    numbers = np.asarray(pd.to_numeric(column.mask(missing), errors="coerce"), dtype=np.float64)
    name = shown(column.name)
    if not np.isnan(numbers[~missing]).any():
        present = numbers[:n_train][~missing[:n_train]]
        deviation = present.std() if len(present) else 0.0
        if deviation > 0:
            gaps = f"column {name}: {int(missing.sum())} missing numbers stand at the mean" if missing.any() else ""
            yield np.where(missing, 0, (numbers - present.mean()) / deviation).astype(np.float32), gaps
        return
    values = sorted(set(column[:n_train][~missing[:n_train]]))
    if len(values) > MOST_CATEGORIES:
        raise DataError(
            f"{shown(where)}: column {name!r} has {len(values)} different texts, more than {MOST_CATEGORIES} are no "
            "categories; drop the column, or call it id"
        )
    if len(values) > 1:
        for value in values:
            yield (column == value).to_numpy(dtype=np.float32), ""
