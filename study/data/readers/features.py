"""Features that a pretrained network or another program has computed.  in: an npz or Parquet file   out: Raw

features labels [ids] [split] [files] [classes]    arrays of an npz
features label  [id] [split] [file]                columns of a Parquet table; features are lists of one length

One file has all splits, or each split has its own.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study.data.raw import Raw, first_line, shown
from study.data.readers.columns import LABELS, SPLITS
from study.data.readers.rows import choose_rows, places, raw_of
from study.data.types import Columns, DataSpec
from study.errors import DataError
from study.progress import Bar

ENDINGS = (".npz", ".parquet")
NAMES = {  # of arrays or columns; case does not count, and of several the first is taken
    "features": ("features", "feature", "embeddings", "embedding", "x"),
    "labels": (*LABELS, "y", "targets"),
    "ids": ("ids", "id", "example", "examples"),
    "split": SPLITS,
    "files": ("files", "file", "path", "paths"),
    "classes": ("classes", "class_names"),
}
OPTIONAL = ("ids", "split", "files", "classes")
UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one file: features (n, d) float32, labels (n,), and what else there is, by its key in NAMES."""

    file: Path
    features: np.ndarray
    labels: np.ndarray
    more: dict[str, np.ndarray]


def read_features(data: DataSpec, progress: Bar) -> Raw:
    """Rows in the order of the files; ids are the file's, else `train/00012`.

    Raises:
        DataError: no such file, arrays or columns that are missing or of different lengths, features that are not
            finite.
    """
    files = places(data, ENDINGS)
    parts = [_part(file, data.columns) for _, file in files]
    words = np.concatenate([_words(part, split) for (split, _), part in zip(files, parts, strict=True)])
    labels, where = _joined([part.labels for part in parts], parts), files[0][1]
    chosen = choose_rows(words, labels, str(where))
    names = parts[0].more.get("classes")
    return raw_of(
        chosen.of(_joined([part.features for part in parts], parts)),
        chosen.of(labels),
        chosen,
        where,
        ids=_texts("ids", parts, chosen),
        files=_texts("files", parts, chosen),
        classes=None if names is None else [str(name) for name in names.tolist()],
    )


def _part(file: Path, columns: Columns) -> Part:
    """A file's arrays, checked against each other."""
    if file.suffix.lower() not in ENDINGS:
        raise DataError(f"{shown(file)}: features come as .npz or .parquet; write one of them")
    arrays = _of_npz(file, columns) if file.suffix.lower() == ".npz" else _of_parquet(file, columns)
    features, labels = arrays.pop("features"), arrays.pop("labels")
    if features.ndim != 2 or not features.shape[1] or features.dtype.kind not in "fiub":
        raise DataError(f"{shown(file)}: features are {features.shape} {features.dtype}; write (n, d) numbers")
    if labels.ndim != 1:
        raise DataError(f"{shown(file)}: labels are {labels.shape}; write one label per row")
    for name, array in (("labels", labels), *((name, array) for name, array in arrays.items() if name != "classes")):
        if len(array) != len(features):
            raise DataError(f"{shown(file)}: {len(features)} rows of features, but {len(array)} {name}; write as many")
    return Part(file, np.asarray(features, dtype=np.float32), labels, arrays)


def _of_npz(file: Path, columns: Columns) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            keys = _keys(archive.files, columns, file)
            return {role: archive[key] for role, key in keys.items()}
    except (*UNREADABLE, TypeError) as error:  # a plain array is no context manager
        raise DataError(
            f"{shown(file)}: not readable as npz without pickles ({first_line(error)}); "
            "write it with np.savez(file, features=..., labels=...)"
        ) from None


def _of_parquet(file: Path, columns: Columns) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            keys = _keys(opened.schema_arrow.names, columns, file)
            table = opened.read(list(keys.values()))
        return {role: _column(table.column(key), role) for role, key in keys.items()}
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(
            f"{shown(file)}: not readable as a table of features ({first_line(error)}); write lists of one length"
        ) from None


def _column(column: Any, role: str) -> np.ndarray:
    """A Parquet column; of lists (n, d)."""
    import pyarrow
    from pyarrow.compute import list_flatten, list_value_length  # pyright: ignore[reportAttributeAccessIssue]

    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no {role}")
    if role != "features":
        kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        texts = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
        return np.array(column.to_pylist(), dtype=str) if texts else column.to_numpy()
    flat, lengths = list_flatten(column), set(list_value_length(column).unique().to_pylist())
    if len(lengths) != 1:
        raise ValueError("features are lists of different lengths")
    return flat.to_numpy().reshape(len(column), lengths.pop())


def _keys(names: Sequence[str], columns: Columns, file: Path) -> dict[str, str]:
    """Which array or column has which role."""
    lower = {name.lower(): name for name in reversed(names)}
    wanted = {"features": columns.image, "labels": columns.label, "split": columns.split}
    keys = {}
    for role, usual in NAMES.items():
        if (given := wanted.get(role)) is not None and given not in names:
            raise DataError(f"{shown(file)}: no column {shown(given)!r}; there are {shown(', '.join(names))}")
        key = given or next((lower[name] for name in usual if name in lower), None)
        if key is None and role not in OPTIONAL:
            raise DataError(
                f"{shown(file)}: no {role}; there are {shown(', '.join(names)) or 'none'}: write features and labels"
            )
        if key is not None:
            keys[role] = key
    return keys


def _words(part: Part, split: str | None) -> np.ndarray:
    """(n,) in which split each row is: the file's, else its column's, else train."""
    if split is not None:
        return np.full(len(part.labels), split)
    return part.more["split"].astype(str) if "split" in part.more else np.full(len(part.labels), "train")


def _joined(arrays: list[np.ndarray], parts: list[Part]) -> np.ndarray:
    if len({(array.shape[1:], array.dtype.kind in "OUS") for array in arrays}) > 1:
        raise DataError(
            f"{shown(parts[-1].file)}: features or labels are of another form than in {shown(parts[0].file)}"
        )
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _texts(role: str, parts: list[Part], chosen: Any) -> np.ndarray | None:
    """(n,) str of the chosen rows, where every file has it."""
    if not all(role in part.more for part in parts):
        return None
    return chosen.of(np.concatenate([part.more[role].astype(str) for part in parts]))
