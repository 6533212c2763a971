"""A CSV file with an image file and a label in each row.  in: a path   out: Raw"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from study.data.raw import Raw, first_line, shown
from study.data.readers.decode import Source
from study.data.readers.encoded import Pictures, gather
from study.errors import DataError
from study.progress import Bar

BATCH = 2048
SPLITS = {"train": "train", "training": "train", "test": "test", "val": "test", "validation": "test", "valid": "test"}


@dataclass(frozen=True)
class Row:
    """One line of the file."""

    number: int
    file: str
    label: str
    split: str


def read_csv(
    path: str | PathLike[str],
    image: str,
    label: str,
    split: str | None,
    root: str | PathLike[str] | None,
    size: int | None,
    channels: int | None,
    progress: Bar,
) -> Raw:
    """See `Dataset.from_csv`.  Ids are the files as the table names them."""
    path = Path(path).expanduser()
    rows = list(_rows(path, image, label, split))
    train, test = ([row for row in rows if row.split == name] for name in ("train", "test"))
    if not train:
        raise DataError(f"{shown(path)}: no train rows; say 'train' in the split column")
    classes = _classes(train)
    folder = path.parent if root is None else Path(root).expanduser()
    pictures = _pictures(path, folder, train, classes)
    held_out = _pictures(path, folder, test, classes) if test else None
    return gather(pictures, held_out, classes, (), size=size, channels=channels, progress=progress)


def _rows(path: Path, image: str, label: str, split: str | None) -> Iterator[Row]:
    """The rows of the file, checked."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            split = split or ("split" if "split" in columns else None)
            for column in filter(None, (image, label, split)):
                if column not in columns:
                    raise DataError(
                        f"{shown(path)}: no column {shown(column)!r}; there are {shown(', '.join(columns)) or 'none'}, "
                        "say which with image=, label= and split="
                    )
            for row in reader:
                yield _row(path, reader.line_num, row, image, label, split)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{shown(path)}: cannot be read as CSV ({cause}); write UTF-8 with a header") from None


def _row(path: Path, number: int, row: dict[str, str | None], image: str, label: str, split: str | None) -> Row:
    file, name = ((row[column] or "").strip() for column in (image, label))
    if not file or not name:
        empty = "label" if file else "image"
        raise DataError(f"{shown(path)}: line {number} has no {empty}; fill it in or drop the line")
    word = (row[split] or "").strip().lower() if split else "train"
    if word not in SPLITS:
        raise DataError(f"{shown(path)}: line {number}: split is {shown(word)!r}; write train or test")
    return Row(number, file, name, SPLITS[word])


def _classes(rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels that there are, sorted; as numbers where all are whole numbers."""
    labels = {row.label for row in rows}
    return tuple(sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels))


def _pictures(path: Path, root: Path, rows: Sequence[Row], classes: tuple[str, ...]) -> Pictures:
    position = {name: number for number, name in enumerate(classes)}
    for row in rows:
        if row.label not in position:
            raise DataError(
                f"{shown(path)}: line {row.number}: class {shown(row.label)!r} has no train example; use splits of one "
                "data set"
            )
    files = [root / row.file for row in rows]

    def batches() -> Iterator[Sequence[Source]]:
        for start in range(0, len(files), BATCH):
            yield files[start : start + BATCH]

    return Pictures(
        where=str(path),
        labels=np.array([position[row.label] for row in rows], dtype=np.int64),
        ids=[row.file for row in rows],
        names=[f"{path} line {row.number}: {row.file}" for row in rows],
        batches=batches,
    )
