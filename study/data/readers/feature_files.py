"""Files of features, read block by block.  in: an npz or Parquet file   out: its small arrays, blocks of its rows

The features are as large as the memory allows; nothing here holds them whole, but arrays that were written column by
column.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from study.data.raw import first_line, shown
from study.data.readers.columns import LABELS, SPLITS
from study.data.types import Columns
from study.errors import DataError

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
BLOCK_BYTES = 2**22  # of the features of a block
BLOCK_ROWS = 1024  # of a Parquet table
BUFFER = 2**20  # bytes of a Parquet column that are read at a time; pre_buffer would read a whole row group
UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one file: shape (n, d) and kind of the features, labels (n,), and what else there is by its key in
    NAMES.
    """

    file: Path
    shape: tuple[int, ...]
    kind: np.dtype
    labels: np.ndarray
    more: dict[str, np.ndarray]
    read: Callable[[], Iterator[np.ndarray]]

    def blocks(self) -> Iterator[np.ndarray]:
        """(b, d) features in the order of the file.

        Raises:
            DataError: the file is damaged, or holds rows of different lengths.
        """
        with refused(self.file):
            for block in self.read():
                if block.shape[1:] != self.shape[1:]:
                    raise ValueError("features are lists of different lengths")
                yield block


def open_part(file: Path, columns: Columns) -> Part:
    """A file's small arrays, checked against each other and against its features.

    Raises:
        DataError: no such file, another form, arrays or columns that are missing or of different lengths.
    """
    if file.suffix.lower() not in ENDINGS:
        raise DataError(f"{shown(file)}: features come as .npz or .parquet; write one of them")
    with refused(file):
        part = (_of_npz if file.suffix.lower() == ".npz" else _of_parquet)(file, columns)
    if len(part.shape) != 2 or not part.shape[1] or part.kind.kind not in "fiub":
        raise DataError(f"{shown(file)}: features are {part.shape} {part.kind}; write (n, d) numbers")
    if part.labels.ndim != 1:
        raise DataError(f"{shown(file)}: labels are {part.labels.shape}; write one label per row")
    for name, array in {"labels": part.labels, **part.more}.items():
        if name != "classes" and len(array) != part.shape[0]:
            raise DataError(f"{shown(file)}: {part.shape[0]} rows of features, but {len(array)} {name}; write as many")
    return part


@contextmanager
def refused(file: Path) -> Iterator[None]:
    """Whatever a library raises at a damaged file, as one line."""
    import pyarrow

    try:
        yield
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        npz = file.suffix.lower() == ".npz"
        form = "npz without pickles" if npz else "a table of features"
        cure = "it with np.savez(file, features=..., labels=...)" if npz else "lists of one length"
        raise DataError(f"{shown(file)}: not readable as {form} ({first_line(error)}); write {cure}") from None


def _of_npz(file: Path, columns: Columns) -> Part:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        keys = _keys(archive.files, columns, file)
        member = f"{keys.pop('features')}.npy"
        arrays = {role: archive[key] for role, key in keys.items()}
        with archive.zip.open(member) as opened:
            shape, by_column, kind = _header(opened)
    read = partial(_whole_npz, file, member) if by_column else partial(_npz_blocks, file, member)
    return Part(file, shape, kind, arrays.pop("labels"), arrays, read)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the array lies column by column, and type of the numbers."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _npz_blocks(file: Path, member: str) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(file) as archive, archive.open(member) as opened:
        (n, width), _, kind = _header(opened)
        rows = max(1, BLOCK_BYTES // (width * kind.itemsize))
        for low in range(0, n, rows):
            block = np.empty((min(rows, n - low), width), dtype=kind)
            _fill(opened, block.reshape(-1).view(np.uint8).data)
            yield block


def _fill(opened: IO[bytes], bytes_of: memoryview) -> None:
    """Read until all is filled."""
    low = 0
    while low < len(bytes_of):
        part = opened.read(len(bytes_of) - low)
        if not part:
            raise EOFError("the file ends too early")
        bytes_of[low : low + len(part)] = part
        low += len(part)


def _whole_npz(file: Path, member: str) -> Iterator[np.ndarray]:
    """One block of all rows, of an array that was written column by column."""
    with np.load(file, allow_pickle=False) as archive:
        yield archive[member.removesuffix(".npy")]


def _of_parquet(file: Path, columns: Columns) -> Part:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as opened:
        keys = _keys(opened.schema_arrow.names, columns, file)
        key = keys.pop("features")
        table = opened.read(list(keys.values()))
        arrays = {role: _column(table.column(name), role) for role, name in keys.items()}
        n = opened.metadata.num_rows
    first = next(_parquet_blocks(file, key), np.empty((0, 0), dtype=np.float32))
    return Part(
        file, (n, *first.shape[1:]), first.dtype, arrays.pop("labels"), arrays, partial(_parquet_blocks, file, key)
    )


def _parquet_blocks(file: Path, key: str) -> Iterator[np.ndarray]:
    import pyarrow.parquet
    from pyarrow.compute import list_flatten, list_value_length  # pyright: ignore[reportAttributeAccessIssue]

    with pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as opened:
        for batch in opened.iter_batches(BLOCK_ROWS, columns=[key]):
            column = batch.column(0)
            _refuse_gaps(column, "features")
            lengths = list_value_length(column).unique().to_pylist()
            if len(lengths) != 1:
                raise ValueError("features are lists of different lengths")
            yield list_flatten(column).to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])


def _column(column: Any, role: str) -> np.ndarray:
    """A Parquet column of one value per row."""
    import pyarrow

    _refuse_gaps(column, role)
    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    texts = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
    return np.array(column.to_pylist(), dtype=str) if texts else column.to_numpy()


def _refuse_gaps(column: Any, role: str) -> None:
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no {role}")


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
