"""Examples that are rows of numbers.  in: values, labels, words of splits   out: Raw, train rows first"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.data.checks import whole_labels
from study.data.raw import Raw, class_file, name_classes, numbered, shown
from study.data.readers.splits import choose, labels_hidden, not_used, split_of, split_of_file, without_labels
from study.data.types import DataSpec
from study.errors import DataError

BLOCK = 2**22  # numbers that are checked at a time


@dataclass(frozen=True, eq=False)
class Chosen:
    """Which rows of a source are used: `order` (n,) row numbers, train rows first, and a line for each unused split."""

    order: np.ndarray
    n_train: int
    unused: tuple[str, ...]

    @property
    def has_test(self) -> bool:
        """Whether rows are held out."""
        return self.n_train < len(self.order)

    def of(self, array: np.ndarray) -> np.ndarray:
        """The chosen rows of an array, in order; the array itself where these are all of it as it lies."""
        same = len(self.order) == len(array) and np.array_equal(self.order, np.arange(len(array)))
        return array if same else array[self.order]


def places(data: DataSpec, endings: Sequence[str]) -> list[tuple[str | None, Path]]:
    """The files of a source and the split that each one is, None for a file that has all of them.

    Args:
        data: `train` and `test` name files; `root` names one file, or a folder with one file or with one per split.
        endings: of the files, such as ".npz".

    Raises:
        DataError: no place, or a folder without such files.
    """
    if data.size is not None or data.channels is not None:
        raise DataError(f"data.size and data.channels are for images; leave them out with data.name = {data.name!r}")
    test: list[tuple[str | None, Path]] = [] if data.test is None else [("test", Path(data.test).expanduser())]
    if data.train is not None:
        return [("train" if test else None, Path(data.train).expanduser()), *test]
    if data.root is None:
        raise DataError(
            f"data.name = {data.name!r} needs a place; set data.root to the file, or data.train and data.test"
        )
    root = Path(data.root).expanduser()
    if not root.is_dir():
        return [("train" if test else None, root), *test]
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in endings)
    named = [(split_of_file(file.name), file) for file in files]
    if len(files) == 1:
        return [("train" if test else None, files[0]), *test]
    if not any(split == "train" for split, _ in named):
        there = ", ".join(shown(file.name) for file in files[:5]) or "none"
        raise DataError(f"{shown(root)}: one file ({', '.join(endings)}) is needed, there are {there}; set data.train")
    return [(split, file) for split, file in named if split is not None and not (test and split == "test")] + test


def choose_rows(words: np.ndarray, labels: np.ndarray, where: str) -> Chosen:
    """The train rows and those that are held out.

    Args:
        words: (n,) str, in which split each row is: train, validation, test and their usual synonyms.
        labels: (n,); a held-out split without any labels is not used.
        where: the file, for messages.

    Raises:
        DataError: a word that is no split, or no train rows.
    """
    of_word = {word: split_of(word) for word in np.unique(words).tolist()}
    for word, split in of_word.items():
        if split is None:
            raise DataError(f"{shown(where)}: split is {shown(word)!r}; write train, validation or test")
    kinds = np.array([of_word[word] for word in words.tolist()], dtype=str)
    splits = {str(kind): np.flatnonzero(kinds == kind) for kind in np.unique(kinds)}
    hidden = {split for split, rows in splits.items() if labels_hidden(labels[rows].tolist())}
    split = choose(splits, where, hidden.__contains__)
    if split.train is None:
        raise DataError(f"{shown(where)}: no train rows; say 'train' in the split column")
    train, test = splits[split.train], splits[split.test] if split.test else np.empty(0, np.int64)
    line = {name: without_labels if name in hidden else not_used for name in split.unused}
    unused = tuple(line[name](f"{where}: split {name}") for name in split.unused)
    return Chosen(np.concatenate([train, test]), len(train), unused)


def raw_of(
    values: np.ndarray,
    labels: np.ndarray,
    chosen: Chosen,
    where: Path,
    *,
    ids: np.ndarray | None = None,
    files: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Raw:
    """Rows of numbers as a data set; every feature is a channel of one pixel.

    Args:
        values: (n, d) float32, chosen and in order.
        labels: (n,) whole numbers or text, chosen and in order.
        chosen: how many are train rows.
        where: the file, for messages; class names may lie in `classes.txt` beside it.
        ids, files: (n,) str, chosen and in order.
        classes: names of the labels 0..c-1.
        notes: how the source was understood.

    Raises:
        DataError: a value that is not finite, labels of another kind, a class without train rows.
    """
    _refuse_infinite(values, where)
    n_train, n_test = chosen.n_train, len(values) - chosen.n_train
    whole, names = _classes(labels, n_train, classes, where)
    return Raw(
        images=values[:, :, None, None],
        labels=whole,
        ids=np.array(numbered("train", n_train) + numbered("test", n_test), dtype=str) if ids is None else ids,
        n_train=n_train,
        classes=names,
        train=str(where),
        test=str(where) if chosen.has_test else None,
        maximum=1.0,
        unusable=chosen.unused,
        notes=tuple(notes),
        files=files,
    )


def _classes(
    labels: np.ndarray, n_train: int, classes: Sequence[str] | None, where: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) int64 labels and the names of the classes; of text, the sorted words of the train rows."""
    if labels.dtype.kind not in "OUS":
        whole = whole_labels(labels, str(where))
        return whole, name_classes(whole, classes or class_file(where.parent), str(where))
    words = [str(word) for word in labels.tolist()]
    train = set(words[:n_train])
    names = tuple(sorted(train, key=int) if all(word.isdecimal() for word in train) else sorted(train))
    position = {word: number for number, word in enumerate(names)}
    for row, word in enumerate(words):
        if not word.strip() or word not in position:
            what = f"class {shown(word)!r} has no train row" if word.strip() else "a row has no label"
            raise DataError(f"{shown(where)}: {what} (row {row} of those used); mend the label or drop the row")
    return np.array([position[word] for word in words], dtype=np.int64), names


def _refuse_infinite(values: np.ndarray, where: Path) -> None:
    rows = max(1, BLOCK // values.shape[1])
    for low in range(0, len(values), rows):
        bad = ~np.isfinite(values[low : low + rows]).all(axis=1)
        if bad.any():
            raise DataError(
                f"{shown(where)}: features of row {low + int(np.argmax(bad))} hold NaN or infinite values "
                f"({int(bad.sum())} such rows near it); replace the values or drop these rows"
            )
