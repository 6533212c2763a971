"""What cannot be trained on is refused here, and subsets are cut.  in: Raw   out: Raw, or a DataError of one line"""

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from study.data.raw import Raw, shown
from study.errors import DataError, LostImagesError
from study.progress import command

LOSS_ALLOWED = 0.05  # of the files of a split; more unreadable ones mean that the copy is broken, not a file
TINY = 5  # train images of a class; at a subset ratio of .3 every fourth network has seen at most one of five
CLASS_LOSS_ALLOWED = 0.2  # of a class; a class that has lost more stands for fewer kinds of images than its name says


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
    """Refuse a split of which more than 5 % cannot be read, or more than 20 % and two images of one class.

    Args:
        where: the file or folder, for messages.
        labels: (n,) of all examples, readable or not.
        usable: (n,) bool.
        reasons: one line for each that is not usable, in order.
        names: class names.

    Raises:
        LostImagesError: with the count, the first unreadable example and, as its `lines`, all of them.
    """
    cure = f"copy the data anew or remove the broken files; `{command('data')}` lists them all"
    lost, all_of = (np.bincount(rows, minlength=len(names)) for rows in (labels[~usable], labels))
    broken = (lost == all_of) & (lost > 0) | (lost > 2) & (lost > CLASS_LOSS_ALLOWED * all_of)
    if lost.sum() > LOSS_ALLOWED * len(labels):
        what = f"{lost.sum()} of {len(labels)} images cannot be read, first {reasons[0]}"
        raise LostImagesError(f"{shown(where)}: {what}; {cure}", reasons)
    if broken.any():
        label = int(np.argmax(broken))
        first = reasons[int(np.argmax(labels[~usable] == label))]
        what = f"{lost[label]} of {all_of[label]} images of class {shown(names[label])!r} cannot be read, first {first}"
        raise LostImagesError(f"{shown(where)}: {what}; {cure}", reasons)


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
        DataError: fewer than two classes, an empty split, a class without train examples, an id that comes twice; one
            line that names the file and the cure.
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
        if lacking and lacking[0][0] == "train":
            raise DataError(
                f"{shown(raw.train)}: no train example of class {shown(name)!r}, a test split with other classes; "
                "use splits of one data set or choose with data.classes"
            )


def notes_on_classes(raw: Raw) -> tuple[str, ...]:
    """One line each: classes so small that their scores say little, classes that the test split lacks."""
    train, test = (np.bincount(rows, minlength=len(raw.classes)) for rows in np.split(raw.labels, [raw.n_train]))
    lines = []
    if (alone := train == 1).any():
        lines.append(
            f"{_named(raw.classes, alone)}: one train image, which gets no C-score, as networks that hold it out have "
            "not seen its class; add images or choose with data.classes"
        )
    if (tiny := (train > 1) & (train < TINY)).any():
        lines.append(
            f"{_named(raw.classes, tiny)}: fewer than {TINY} train images; their scores rest on few networks, which "
            "have seen few images of the class"
        )
    if raw.test is not None and (absent := test == 0).any():
        lines.append(f"{_named(raw.classes, absent)}: no test image; all other scores are as they would be with one")
    return tuple(lines)


def _named(classes: Sequence[str], which: np.ndarray) -> str:
    """The first five of these classes, and how many more there are."""
    names = [repr(shown(classes[int(label)])) for label in np.flatnonzero(which)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{'classes' if len(names) > 1 else 'class'} {', '.join(names[:5])}{more}"


def check_range(labels: np.ndarray, classes: Sequence[str], where: str) -> None:
    """Refuse a label outside 0..c-1, with its first row in the split."""
    bad = (labels < 0) | (labels >= len(classes))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{shown(where)}: label {labels[row]} at index {row} is outside 0..{len(classes) - 1} "
            f"({len(classes)} classes); mend the label or the list of class names"
        )


LEAST_TEST = 100  # test examples of a class that stay beside fewer training examples: fewer say little


def select(raw: Raw, classes: Sequence[str] | None, limit: int | None, limit_test: int | None = None) -> Raw:
    """Keep some classes and the first examples of each: class and size subsets.

    Args:
        raw: as read.
        classes: names to keep; labels are re-numbered 0..c-1 in this order.  None keeps all.
        limit: the first `limit` train examples of each class in canonical order stay.
        limit_test: the same of test examples; None: with a limit as many, but at least 100.

    Raises:
        DataError: an unknown or repeated class name, a limit below 1.
    """
    if classes is None and limit is None and limit_test is None:
        return raw
    if limit is not None and limit_test is None:
        limit_test = max(limit, LEAST_TEST)
    keep, labels, names = np.ones(len(raw.labels), bool), raw.labels, raw.classes
    if classes is not None:
        names = tuple(classes)
        new = _renumbering(raw, names)
        labels = new[raw.labels]
        keep = labels >= 0
    for key, rows, most in (
        ("limit", slice(0, raw.n_train), limit),
        ("limit_test", slice(raw.n_train, None), limit_test),
    ):
        if most is not None:
            keep[rows] &= _first_of_each(labels[rows], most, key)
    if keep.all() and labels is raw.labels:
        return raw  # a copy would be a second one of all images
    n_train = int(keep[: raw.n_train].sum())
    files = None if raw.files is None else raw.files[keep]
    return replace(
        raw,
        images=raw.images[keep],
        labels=labels[keep],
        ids=raw.ids[keep],
        files=files,
        n_train=n_train,
        classes=names,
    )


def _renumbering(raw: Raw, names: tuple[str, ...]) -> np.ndarray:
    """(all classes,) int64: the new label of each class, -1 for those left out."""
    new = np.full(len(raw.classes), -1)
    for label, name in enumerate(names):
        if name not in raw.classes:
            near = difflib.get_close_matches(name, raw.classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(shown, raw.classes[:20]))}"
            raise DataError(f"{shown(raw.train)}: data.classes names {shown(name)!r}, which is no class; {hint}")
        if new[raw.classes.index(name)] >= 0:
            raise DataError(f"{shown(raw.train)}: data.classes names {shown(name)!r} twice; remove one")
        new[raw.classes.index(name)] = label
    return new


def _first_of_each(labels: np.ndarray, limit: int, key: str) -> np.ndarray:
    """(n,) bool: the first `limit` rows of each label."""
    if limit < 1:
        raise DataError(f"data.{key} is {limit}; keep at least 1 example per class")
    keep = np.ones(len(labels), bool)
    for label in np.unique(labels):
        keep[np.flatnonzero(labels == label)[limit:]] = False
    return keep
