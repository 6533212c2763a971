"""Parquet files as on the Hugging Face hub.  in: columns of images and labels   out: Raw

root/train.parquet, root/train-00000-of-00002.parquet    the split is in the file's name
root/data/..., root/plain_text/...                       one folder down
root/default/train/0000.parquet                          the split is in the folder's name
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from study.data.checks import whole_labels
from study.data.raw import Raw, class_file, first_line, name_classes, numbered, shown
from study.data.readers.columns import image_column, label_column
from study.data.readers.decode import Source
from study.data.readers.encoded import Pictures, gather
from study.data.readers.splits import labels_hidden, not_used, split_of, split_of_file, without_labels
from study.data.types import Columns, DataSpec
from study.errors import DataError
from study.progress import Bar

BATCH = 2048


def read_parquet(data: DataSpec, progress: Bar) -> Raw:
    """Rows in file order, files in name order.

    Images are a struct of `bytes` and `path`, plain bytes, or the paths of image files below the table's folder or
    the root; labels are whole numbers, or text, whose classes are then the sorted names.  Class names come from the
    hub's ClassLabel in the schema, else from `classes.txt` beside the train file, else they are the numbers.

    Raises:
        DataError: no such file, a shard that is missing, no such columns, a label that is missing or no whole number.
    """
    train_files, test_files, unused = _places(data)
    train, names = _labels(train_files, data.columns)
    test = None if test_files is None else _labels(test_files, data.columns)[0]
    both = _joined([train] if test is None else [train, test], train_files)
    if both.dtype.kind in "US":
        classes = tuple(np.unique(train).tolist())
        train, test = (
            _positions(train, classes, train_files),
            None if test is None else _positions(test, classes, test_files or []),
        )
    else:
        names = names or class_file(train_files[0].parent)
        classes = name_classes(both, names, str(train_files[0]))
    return gather(
        _pictures("train", train_files, train, data),
        None if test is None else _pictures("test", test_files or [], test, data),
        classes,
        unused,
        size=data.size,
        channels=data.channels,
        progress=progress,
    )


def _places(data: DataSpec) -> tuple[list[Path], list[Path] | None, list[str]]:
    """The files of the train split, of the test split where there is one, and a line for each file that is not used."""
    given = None if data.test is None else _files(Path(data.test).expanduser(), "test", "validation")
    if data.train is not None:
        return _files(Path(data.train).expanduser(), "train"), given, []
    if data.root is None:
        raise DataError("parquet files need a place; set data.train and data.test, or data.root")
    root = Path(data.root).expanduser()
    if root.is_file():
        return [root], given, []
    train, splits = _files(root, "train"), _by_split(root)
    hidden = [] if given else [file for file in splits.get("test", ()) if _labels_hidden(file, data.columns)]
    held_out = splits.get("validation") if hidden else splits.get("test") or splits.get("validation")
    test = given or (_complete(held_out) if held_out else None)
    used = {*train, *(test or [])}
    spare = [file for files in splits.values() for file in files if file not in used]
    return train, test, [without_labels(file) if file in hidden else not_used(file) for file in spare]


def _by_split(folder: Path) -> dict[str | None, list[Path]]:
    """The parquet files of a folder by split: the word that their names, or else their folders' names, begin with.

    A folder without any passes on to the folders in it: `train/`, `test/`, or the one that holds the tables, such as
    `data/`, `plain_text/` or `default/`.

    Raises:
        DataError: several folders hold tables, and none is called after a split.
    """
    splits: dict[str | None, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        splits.setdefault(split_of_file(file.name), []).append(file)
    if splits or not folder.is_dir():
        return splits
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_tables(path)]
    if any(split_of(path.name) == "train" for path in inner):
        for path in inner:
            splits.setdefault(split_of(path.name), []).extend(sorted(path.glob("*.parquet")))
        return splits
    inner = [path for path in inner if path.name == "data"] or inner
    if len(inner) > 1:
        names = ", ".join(shown(path.name) for path in inner)
        raise DataError(f"{shown(folder)}: {names} hold tables; choose one, such as data.root={shown(inner[0])}")
    return _by_split(inner[0]) if inner else {}


def _holds_tables(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))


def _files(path: Path, *wanted: str) -> list[Path]:
    """The file, or the files of a folder: those of the first wanted split that is there, else those of no split.

    Raises:
        DataError: no parquet file, or those of other splits alone.
    """
    if path.is_file():
        return [path]
    splits = _by_split(path)
    if not splits:
        raise DataError(f"{shown(path)}: no parquet file here; point data.train and data.test to files or folders")
    for name in (*wanted, None):
        if name in splits:
            return _complete(splits[name])
    held = ", ".join(shown(file.name) for files in splits.values() for file in files[:1])
    raise DataError(f"{shown(path)}: there is {held}, and no {wanted[0]} split; set data.{wanted[0]} to a file")


def _complete(files: list[Path]) -> list[Path]:
    """The same files; refuses train-00000-of-00003 without its two companions."""
    for file in files:
        match = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(.*)\.parquet", file.name)
        if match is None:
            continue
        count = int(match[3])
        for shard in range(min(count, 100_000)):
            name = f"{match[1]}-{shard:05d}-of-{match[3]}"
            if not any(other.name.startswith(name) for other in files):
                raise DataError(f"{shown(file.parent / name)}*.parquet: this shard of {count} is missing; download it")
    return files


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A ParquetFile; whatever is wrong with the file becomes one line."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            yield opened
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{shown(file)}: not readable as parquet ({first_line(error)}); download it anew") from None


def _labels(files: list[Path], columns: Columns) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """(n,) int64 or str over all files, and the class names that the first file's schema gives."""
    parts, names = [], None
    for file in files:
        with _opened(file) as opened:
            image_column(opened.schema_arrow.names, columns.image, file)
            label = label_column(opened.schema_arrow.names, columns.label, file)
            names = names or _class_label(opened.schema_arrow, label, file)
            parts.append(_label_values(opened.read([label]).column(label), file))
    return _joined(parts, files), names


def _labels_hidden(file: Path, columns: Columns) -> bool:
    """Whether the file has no label, as the test split of a competition."""
    with _opened(file) as opened:
        label = label_column(opened.schema_arrow.names, columns.label, file)
        return labels_hidden(opened.read([label]).column(label).unique().to_pylist())


def _joined(parts: list[np.ndarray], files: list[Path]) -> np.ndarray:
    if len({part.dtype.kind for part in parts}) > 1:
        raise DataError(f"{shown(files[0].parent)}: labels are text in some files and numbers in others; use one kind")
    return np.concatenate(parts)


def _label_values(column: Any, file: Path) -> np.ndarray:
    import pyarrow

    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{shown(file)}: row {row} has no label ({column.null_count} such rows); drop them")
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        return np.array(column.to_pylist(), dtype=str)
    return whole_labels(column.to_numpy(), str(file))


def _class_label(schema: Any, label: str, file: Path) -> tuple[str, ...] | None:
    """Names of the hub's ClassLabel feature, from the schema's metadata."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        names = json.loads(text)["info"]["features"][label].get("names")
    except (ValueError, KeyError, TypeError, AttributeError):  # another feature type, or another version's form
        return None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{shown(file)}: the class names in its metadata are no list of text; write the file anew")
    return None if names is None else tuple(names)


def _positions(labels: np.ndarray, classes: tuple[str, ...], files: list[Path]) -> np.ndarray:
    """(n,) int64: where each name stands in the sorted classes."""
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise DataError(
            f"{shown(files[0])}: class {shown(unknown[0])!r} is not in the train split, a test split with other "
            "classes; use splits of one data set"
        )
    return np.searchsorted(classes, labels).astype(np.int64)


def _pictures(split: str, files: list[Path], labels: np.ndarray, data: DataSpec) -> Pictures:
    rows = []
    for file in files:
        with _opened(file) as opened:
            rows += [f"{file} row {row}" for row in range(opened.metadata.num_rows)]
    where = str(files[0] if len(files) == 1 else files[0].parent)
    return Pictures(where, labels, numbered(split, len(labels)), rows, lambda: _encoded(files, data))


def _encoded(files: list[Path], data: DataSpec) -> Iterator[list[Source]]:
    """The encoded images of each file, batch by batch."""
    for file in files:
        folders = [file.parent, *([Path(data.root).expanduser()] if data.root else [])]
        with _opened(file) as opened:
            column = image_column(opened.schema_arrow.names, data.columns.image, file)
            for batch in opened.iter_batches(BATCH, columns=[column]):
                yield _sources(batch.column(0), folders, file)


def _sources(column: Any, folders: list[Path], file: Path) -> list[Source]:
    """Bytes, or the path of an image file below one of the folders, or the reason why there is neither."""
    import pyarrow
    from pyarrow.compute import struct_field  # pyright: ignore[reportAttributeAccessIssue]  made at its import

    kind = column.type
    encoded, paths = [None] * len(column), [None] * len(column)
    if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        if kind.get_field_index("path") >= 0:
            paths = struct_field(column, "path").to_pylist()
        encoded = struct_field(column, "bytes").to_pylist()
    elif pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        encoded = column.to_pylist()
    elif pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        paths = column.to_pylist()
    else:
        raise DataError(
            f"{shown(file)}: images are {shown(kind)}; write encoded files (PNG, JPEG) as bytes, or paths as text"
        )
    return [_source(image, path, folders) for image, path in zip(encoded, paths, strict=True)]


def _source(image: bytes | None, path: str | None, folders: list[Path]) -> Source:
    if image is not None:
        return image
    if not path:
        return "no image in this row"
    below = [(folder / path).resolve().is_relative_to(folder.resolve()) for folder in folders]
    if not any(below):
        return f"the path {shown(path)} leads out of the folder of the parquet file"
    places = [folder / path for folder, inside in zip(folders, below, strict=True) if inside]
    return next((place for place in places if place.is_file()), f"no image bytes, and no file {shown(places[0])}")
