"""Lists of image files and labels.  in: a CSV file, or one per split   out: Raw

file,label            every row is a train row
file,label,split      the split is in a column
train.csv test.csv    the split is in the file's name
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from study.data.raw import Raw, first_line, shown
from study.data.readers.columns import image_column, label_column, split_column
from study.data.readers.decode import IMAGE_NAME, Source
from study.data.readers.encoded import Pictures, gather
from study.data.readers.splits import choose, labels_hidden, not_used, split_of, split_of_file, without_labels
from study.data.types import Columns, DataSpec
from study.errors import DataError
from study.progress import Bar

BATCH = 2048
DELIMITERS = ",;\t"
USUAL_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG")  # of files that a list names without their ending


@dataclass(frozen=True)
class Row:
    """One line of a table; `label` is empty in a test split without labels."""

    number: int
    file: str
    label: str
    split: str


@dataclass(frozen=True)
class Part:
    """The rows of one split, with the table that they are in and the folder that their files' names start from."""

    table: Path
    folder: Path
    rows: Sequence[Row]


def read_csv(data: DataSpec, progress: Bar) -> Raw:
    """Rows in the order of the table; ids are the files as the table names them.

    `root` is the table, a folder that holds one table or one per split, or, with `train`, the folder of the images.

    Raises:
        DataError: no such table or column, a train row without a label, a word that is no split, unreadable images.
    """
    train, test, unused = _splits(data)
    if not train.rows:
        raise DataError(f"{shown(train.table)}: no train rows; say 'train' in the split column")
    classes = _classes(train.rows)
    held_out = None if test is None else _pictures(test, classes)
    return gather(
        _pictures(train, classes), held_out, classes, unused, size=data.size, channels=data.channels, progress=progress
    )


def _splits(data: DataSpec) -> tuple[Part, Part | None, list[str]]:
    """The train rows, the test rows where there are any, and a line for each split that is not used."""
    tables, folder = _tables(data)
    read = {
        split: Part(table, folder or table.parent, list(_rows(table, data.columns, is_train=split == "train")))
        for split, table in tables.items()
    }
    if len(read) == 1:
        ((_, part),) = read.items()
        words = list(dict.fromkeys(row.split for row in part.rows))
        read = {word: Part(part.table, part.folder, [r for r in part.rows if r.split == word]) for word in words}
    hidden = {name for name, part in read.items() if labels_hidden(row.label for row in part.rows)}
    split = choose(read, next(iter(tables.values())), hidden.__contains__)
    if split.train is None:
        return Part(next(iter(tables.values())), Path(), []), None, []
    lines = [_unused(read[name].table, name, len(tables) == 1, name in hidden) for name in split.unused]
    return read[split.train], read[split.test] if split.test else None, lines


def _unused(table: Path, split: str, in_column: bool, is_hidden: bool) -> str:
    where = f"{table}: split {split}" if in_column else str(table)
    return without_labels(where) if is_hidden else not_used(where)


def _tables(data: DataSpec) -> tuple[dict[str, Path], Path | None]:
    """The table of each split, "train" alone where one table has them all, and the folder of the images if given."""
    if data.train is None and data.root is None:
        raise DataError(
            "a CSV list needs a place; set data.root to the file, or data.train to it and data.root to the "
            "folder of the images"
        )
    root = None if data.root is None else Path(data.root).expanduser()
    tables = {} if data.test is None else {"test": Path(data.test).expanduser()}
    if data.train is not None:
        return {"train": Path(data.train).expanduser()} | tables, root
    if root is None or not root.is_dir():
        return {"train": root or Path()} | tables, None
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    by_split = {split_of_file(file.name): file for file in reversed(files)}
    if "train" in by_split:
        return {split: file for split, file in by_split.items() if split is not None} | tables, root
    if len(files) != 1:
        there = ", ".join(shown(file.name) for file in files[:5]) or "none"
        raise DataError(f"{shown(root)}: one CSV file is needed, there are {there}; set data.train to yours")
    return {"train": files[0]} | tables, root


def _rows(path: Path, columns: Columns, *, is_train: bool) -> Iterator[Row]:
    """The rows of a table; a table of test rows needs no labels."""
    with _opened(path) as reader:
        names = [name for name in reader.fieldnames or [] if name]
        image = image_column(names, columns.image, path)
        try:
            label = label_column(names, columns.label, path)
        except DataError:
            if is_train:
                raise
            label = None
        split = split_column(names, columns.split, path)
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in names}
            if not cells[image]:
                raise DataError(f"{shown(path)}: line {reader.line_num} has no image; fill it in or drop the line")
            word = (split_of(cells[split]) if split else "train") or ""
            if split and not word:
                raise DataError(
                    f"{shown(path)}: line {reader.line_num}: split is {shown(cells[split])!r}; write train, validation "
                    "or test"
                )
            yield Row(reader.line_num, cells[image], cells[label] if label else "", word)


@contextmanager
def _opened(path: Path) -> Iterator[csv.DictReader]:
    """A reader of the table, whose columns are parted by what the header holds most of: comma, semicolon or tab."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            yield csv.DictReader(file, delimiter=max(DELIMITERS, key=header.count))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{shown(path)}: cannot be read as CSV ({cause}); write UTF-8 with a header") from None


def _classes(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels that there are, sorted; as numbers where all are whole numbers."""
    labels = {row.label for row in rows if row.label}
    return tuple(sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels))


def _pictures(part: Part, classes: tuple[str, ...]) -> Pictures:
    position = {name: number for number, name in enumerate(classes)}
    for row in part.rows:
        if not row.label:
            raise DataError(f"{shown(part.table)}: line {row.number} has no label; fill it in or drop the line")
        if row.label not in position:
            raise DataError(
                f"{shown(part.table)}: line {row.number}: class {shown(row.label)!r} has no train example; use splits "
                "of one data set"
            )
    files = [_file(part.folder / row.file) for row in part.rows]
    if not any(file.is_file() for file in files):
        raise DataError(
            f"{shown(part.table)}: none of its files is there, first {shown(files[0])}; set data.train to the table "
            "and data.root to the folder that the names start from"
        )
    return Pictures(
        where=str(part.table),
        labels=np.array([position[row.label] for row in part.rows], dtype=np.int64),
        ids=[row.file for row in part.rows],
        names=[f"{part.table} line {row.number}: {row.file}" for row in part.rows],
        batches=partial(_batches, files),
        files=files,
    )


def _file(path: Path) -> Path:
    """The path, with one of the usual endings where it has none and the file is there with it."""
    if IMAGE_NAME.search(path.name) or path.is_file():
        return path
    endings = (path.with_name(path.name + ending) for ending in USUAL_ENDINGS)
    return next((file for file in endings if file.is_file()), path)


def _batches(files: Sequence[Path]) -> Iterator[Sequence[Source]]:
    for start in range(0, len(files), BATCH):
        yield files[start : start + BATCH]
