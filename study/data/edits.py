"""Decisions of a person and lists of examples to keep.  in: a CSV file, a Dataset   out: the Dataset as they change it

A file of decisions is a list of suspects with the column `decision` filled in: keep, relabel or drop.  A keep list
names the training examples that are trained on.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study.data.digest import digest_of
from study.data.raw import first_line, shown
from study.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from study.data.dataset import Dataset

DECISIONS = ("keep", "relabel", "drop")
PREFIX = "sha256:"  # before a digest, lest a spreadsheet takes it for a number
DELIMITERS = ",;\t"
FORMULA = "'"  # the report writes it before text that a spreadsheet would run
MOST_CLASSES = 32_767  # predictions are kept as int16


@dataclass(frozen=True)
class Edit:
    """One file that has changed a data set.

    kind: "decisions" or "keep".
    before: digest of the data that it was applied to.
    file: the first 16 hex digits of the sha256 of its content.
    counts: examples kept, relabelled and dropped by a decision; of a keep list, kept and dropped.
    text: its content.
    """

    kind: str
    before: str
    file: str
    counts: Mapping[str, int]
    text: str

    def summary(self) -> dict[str, object]:
        """All but the content, for the run that trains on the data."""
        return {"kind": self.kind, "before": self.before, "file": self.file, **self.counts}


def decide(dataset: "Dataset", path: Path) -> "Dataset":
    """Relabel and drop examples as a file of decisions says.

    Args:
        dataset: n examples, those of the report that the file comes from.
        path: CSV with the columns `example`, `data_digest`, `decision`, and `new_label` or `suggested` for what is
            relabelled.  Rows without a decision count for nothing.

    Returns:
        The data set without the dropped examples, ids unchanged.

    Raises:
        DataError: a file of other data, unknown ids or labels, no decision, a split or class without examples.
    """
    needed = ("example", "data_digest", "decision")
    text, table = _read(path, needed, f"take suspects.csv of the report of these data, which has {', '.join(needed)}")
    table = [row for row in table if row["decision"].strip()]
    if not table:
        raise DataError(f"{shown(path)}: holds no decision; write keep, relabel or drop into the column decision")
    _check_digest(dataset, table, path)
    rows = _rows(dataset, table, path)
    decisions = [_decision(row, path) for row in table]
    labels, kept = dataset.labels.copy(), np.ones(dataset.n, dtype=bool)
    for row, decision, line in zip(rows, decisions, table, strict=True):
        if decision == "relabel":
            labels[row] = _new_label(line, dataset.classes, path)
        kept[row] = decision != "drop"
    counts = {name: decisions.count(name) for name in DECISIONS}
    edit = Edit("decisions", dataset.digest, _sha(text), counts, text)
    return _edited(replace(dataset, labels=labels), kept, edit, path)


def keep_only(dataset: "Dataset", path: Path) -> "Dataset":
    """Keep the training examples that a list names; test examples all stay.

    Args:
        dataset: n examples.
        path: CSV with the column `example`; a column `data_digest` is checked.

    Raises:
        DataError: a list of other data, unknown ids, test examples, no example, a class without training examples.
    """
    text, table = _read(path, ("example",), "write one id per line below the heading example")
    if not table:
        raise DataError(f"{shown(path)}: names no example; write one id per line below the heading example")
    if "data_digest" in table[0]:
        _check_digest(dataset, table, path)
    rows = np.array(_rows(dataset, table, path))
    if (rows >= dataset.n_train).any():
        first = dataset.ids[rows[rows >= dataset.n_train][0]]
        raise DataError(f"{shown(path)}: {shown(first)!r} is a test example; a keep list names training examples alone")
    kept = np.arange(dataset.n) >= dataset.n_train
    kept[rows] = True
    counts = {"keep": len(rows), "drop": dataset.n_train - len(rows)}
    return _edited(dataset, kept, Edit("keep", dataset.digest, _sha(text), counts, text), path)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path, needed: Sequence[str], cure: str) -> tuple[str, list[dict[str, str]]]:
    """The text of a table, and its rows; empty cells are "".  The cure is for who has no such column.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        reader = csv.DictReader(text.splitlines(), delimiter=max(DELIMITERS, key=header.count), restval="")
        names, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        cause = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{shown(path)}: cannot be read as CSV ({cause}); write UTF-8 with a header") from None
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(f"{shown(path)}: has no column {missing[0]}; {cure}")
    return text, rows


def _check_digest(dataset: "Dataset", table: Sequence[Mapping[str, str]], path: Path) -> None:
    """Refuse a list that was made of other data."""
    for digest in dict.fromkeys(row["data_digest"].strip().removeprefix(PREFIX) for row in table):
        if digest != dataset.digest:
            raise DataError(
                f"{shown(path)}: is of other data (digest {shown(digest) or 'missing'}, here {dataset.digest}); "
                "take the list of a report of these data, with the same noise, limits and sizes"
            )


def _rows(dataset: "Dataset", table: Sequence[Mapping[str, str]], path: Path) -> list[int]:
    """The row of each id.

    Raises:
        DataError: an id that is not there, or comes twice.
    """
    places = {name: row for row, name in enumerate(dataset.ids.tolist())}
    names = [_plain(line["example"], places) for line in table]
    unknown = [name for name in names if name not in places]
    if unknown:
        raise DataError(
            f"{shown(path)}: {len(unknown)} unknown examples, first {shown(unknown[0])!r}; "
            f"ids of these data look like {shown(dataset.ids[0])!r}"
        )
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"{shown(path)}: {shown(name)!r} comes {count} times; decide once about each example")
    return [places[name] for name in names]


def _plain(text: str, names: Mapping[str, object]) -> str:
    """A name as it was before the report made it safe for spreadsheets."""
    return text if text in names else text.removeprefix(FORMULA)


def _decision(line: Mapping[str, str], path: Path) -> str:
    decision = line["decision"].strip().lower()
    if decision not in DECISIONS:
        raise DataError(
            f"{shown(path)}: {shown(line['example'])!r} has the decision {shown(decision)!r}; "
            "take keep, relabel or drop, or leave it empty"
        )
    return decision


def _new_label(line: Mapping[str, str], classes: Sequence[str], path: Path) -> int:
    """The class that a person has given, or else the suggested one."""
    labels = {name: label for label, name in enumerate(classes)}
    name = _plain(line.get("new_label", "").strip() or line.get("suggested", "").strip(), labels)
    if not name:
        raise DataError(
            f"{shown(path)}: {shown(line['example'])!r} is to be relabelled, but has no new_label; write a class"
        )
    if name not in labels:
        raise DataError(
            f"{shown(path)}: {shown(line['example'])!r} has the new label {shown(name)!r}, which is no class of "
            f"these data{did_you_mean(name, map(shown, classes))}"
        )
    return labels[name]


def _edited(dataset: "Dataset", kept: np.ndarray, edit: Edit, path: Path) -> "Dataset":
    """The kept rows of a data set, checked."""
    labels, n_train = dataset.labels[kept], int(kept[: dataset.n_train].sum())
    counts = np.bincount(labels[:n_train], minlength=dataset.n_classes)
    if not counts.all():
        name = shown(dataset.classes[int(np.argmin(counts))])
        raise DataError(f"{shown(path)}: leaves no training example of class {name!r}; keep some of each class")
    if dataset.n_test and n_train == len(labels):
        raise DataError(f"{shown(path)}: leaves no test example; keep some")
    before, images = dataset.labels_before_noise, dataset.images[kept]
    return replace(
        dataset,
        images=images,
        labels=labels,
        ids=dataset.ids[kept],
        n_train=n_train,
        files=None if dataset.files is None else dataset.files[kept],
        labels_before_noise=None if before is None else before[kept],
        planted=None if dataset.planted is None else dataset.planted[kept],
        digest=digest_of(images, labels, dataset.ids[kept], n_train),
        edits=(*dataset.edits, edit),
    )


def with_unique_classes(dataset: "Dataset") -> "Dataset":
    """The training examples alone, each a class of its own that has the example's id for its name (A-sensitivity).

    Raises:
        DataError: more examples than there can be classes.
    """
    n, ids = dataset.n_train, dataset.ids[: dataset.n_train]
    if n > MOST_CLASSES:
        raise DataError(f"noise.labels = 'unique' makes {n:,} classes, more than {MOST_CLASSES:,}; set data.limit")
    images, labels = dataset.images[:n], np.arange(n, dtype=dataset.labels.dtype)
    return replace(
        dataset,
        images=images,
        labels=labels,
        ids=ids,
        classes=tuple(ids.tolist()),
        files=None if dataset.files is None else dataset.files[:n],
        digest=digest_of(images, labels, ids, n),
    )
