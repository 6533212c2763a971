"""What cannot be trained on is refused here, and subsets are cut.  in: Raw   out: Raw, or a DataError of one line"""

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from study.data.raw import Raw, shown
from study.errors import DataError

LOSS_ALLOWED = 0.05  # of the files of a split; more unreadable ones mean that the copy is broken, not a file


def whole_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Labels as (n,) int64.

    Args:
        labels: (n,) or (n, 1), integers, booleans, or floats that are whole numbers.
        where: the file, for messages.

    Raises:
        DataError: another shape or kind, NaN, a fraction, or a negative number; names the first row.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iufb":
        raise DataError(
            f"{shown(where)}: labels are {labels.shape} {labels.dtype}; write whole numbers, one per example, (n,)"
        )
    if labels.dtype.kind == "f":
        _refuse_row(~np.isfinite(labels), labels, where, "is not a number")
        _refuse_row(labels != np.floor(labels), labels, where, "is not a whole number")
    _refuse_row(labels < 0, labels, where, "is negative")
    _refuse_row(labels > np.int64(2**31), labels, where, "is too large")
    return labels.astype(np.int64)


def _refuse_row(bad: np.ndarray, labels: np.ndarray, where: str, what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{shown(where)}: label {labels[row]} at index {row} {what} ({int(bad.sum())} such labels); "
            "number the classes 0, 1, 2 ... and drop examples without a label"
        )


def refuse_losses(
    where: str, labels: np.ndarray, usable: np.ndarray, reasons: Sequence[str], names: Sequence[str]
) -> None:
    """Refuse a split of which more than 5 % or a whole class cannot be read.

    Args:
        where: the file or folder, for messages.
        labels: (n,) of all examples, readable or not.
        usable: (n,) bool.
        reasons: one line for each that is not usable, in order.
        names: class names.

    Raises:
        DataError: with the first unreadable example and the count.
    """
    lost = int((~usable).sum())
    gone = np.setdiff1d(labels, labels[usable])
    cure = "copy the data anew or remove the broken files"
    if len(gone):
        first = reasons[int(np.argmax(labels[~usable] == gone[0]))]
        name = shown(names[gone[0]]) if gone[0] < len(names) else gone[0]
        raise DataError(f"{shown(where)}: no image of class {name!r} can be read, first {first}; {cure}")
    if lost > LOSS_ALLOWED * len(labels):
        raise DataError(f"{shown(where)}: {lost} of {len(labels)} images cannot be read, first {reasons[0]}; {cure}")


def check_arrays(raw: Raw) -> None:
    """Refuse arrays of different lengths and labels out of range.

    Raises:
        DataError: one line that names the file and the cure.
    """
    if not len(raw.images) == len(raw.labels) == len(raw.ids):
        raise DataError(
            f"{shown(raw.train)}: {len(raw.images)} images, but {len(raw.labels)} labels; "
            "both must hold one entry per example"
        )
    check_range(raw.labels[: raw.n_train], raw.classes, raw.train)
    check_range(raw.labels[raw.n_train :], raw.classes, raw.test or raw.train)


def check(raw: Raw) -> None:
    """Refuse what no training can use.

    Raises:
        DataError: fewer than two classes, an empty split, a class without examples or with examples in one split only,
            an id that comes twice; one line that names the file and the cure.
    """
    if len(raw.classes) < 2:
        raise DataError(f"{shown(raw.train)}: {len(raw.classes)} class; a C-score needs at least two classes")
    _check_splits(raw)
    names, counts = np.unique(raw.ids, return_counts=True)
    if len(names) < len(raw.ids):
        raise DataError(
            f"{shown(raw.train)}: id {shown(names[counts > 1][0])!r} stands for {counts.max()} examples; "
            "give every example its own"
        )


def _check_splits(raw: Raw) -> None:
    splits = [("train", raw.train, raw.labels[: raw.n_train])]
    if raw.test is not None:
        splits.append(("test", raw.test, raw.labels[raw.n_train :]))
    for split, where, labels in splits:
        if not len(labels):
            raise DataError(f"{shown(where)}: the {split} split is empty; add examples or choose other classes")
    present = [set(np.unique(labels).tolist()) for _, _, labels in splits]
    for label, name in enumerate(raw.classes):
        lacking = [(split, where) for (split, where, _), has in zip(splits, present, strict=True) if label not in has]
        if len(lacking) == len(splits):
            raise DataError(
                f"{shown(raw.train)}: class {shown(name)!r} has no examples; remove its name or set data.classes"
            )
        if lacking:
            split, where = lacking[0]
            raise DataError(
                f"{shown(where)}: no {split} example of class {shown(name)!r}, a test split with other classes; "
                "use splits of one data set or choose with data.classes"
            )


def check_range(labels: np.ndarray, classes: Sequence[str], where: str) -> None:
    """Refuse a label outside 0..c-1, with its first row in the split."""
    bad = (labels < 0) | (labels >= len(classes))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{shown(where)}: label {labels[row]} at index {row} is outside 0..{len(classes) - 1} "
            f"({len(classes)} classes); mend the label or the list of class names"
        )


def select(raw: Raw, classes: Sequence[str] | None, limit: int | None) -> Raw:
    """Keep some classes and the first examples of each: class and size subsets.

    Args:
        raw: as read.
        classes: names to keep; labels are re-numbered 0..c-1 in this order.  None keeps all.
        limit: the first `limit` train examples of each class in canonical order stay; test rows all stay.

    Raises:
        DataError: an unknown or repeated class name, a limit below 1.
    """
    if classes is None and limit is None:
        return raw
    keep, labels, names = np.ones(len(raw.labels), bool), raw.labels, raw.classes
    if classes is not None:
        names = tuple(classes)
        new = _renumbering(raw, names)
        labels = new[raw.labels]
        keep = labels >= 0
    if limit is not None:
        keep &= _first_of_each(labels, raw.n_train, limit)
    n_train = int(keep[: raw.n_train].sum())
    return replace(raw, images=raw.images[keep], labels=labels[keep], ids=raw.ids[keep], n_train=n_train, classes=names)


def _renumbering(raw: Raw, names: tuple[str, ...]) -> np.ndarray:
    """(all classes,) int64: the new label of each class, -1 for those left out."""
    new = np.full(len(raw.classes), -1)
    for label, name in enumerate(names):
        if name not in raw.classes:
            near = difflib.get_close_matches(name, raw.classes, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"there are {', '.join(map(shown, raw.classes[:20]))}"
            raise DataError(f"{shown(raw.train)}: data.classes names {shown(name)!r}, which is no class; {hint}")
        if new[raw.classes.index(name)] >= 0:
            raise DataError(f"{shown(raw.train)}: data.classes names {shown(name)!r} twice; remove one")
        new[raw.classes.index(name)] = label
    return new


def _first_of_each(labels: np.ndarray, n_train: int, limit: int) -> np.ndarray:
    """(n,) bool: the first `limit` train rows of each label, and all test rows."""
    if limit < 1:
        raise DataError(f"data.limit is {limit}; keep at least 1 train example per class")
    keep = np.ones(len(labels), bool)
    for label in np.unique(labels[:n_train]):
        keep[np.flatnonzero(labels[:n_train] == label)[limit:]] = False
    return keep
