"""Names of splits in folders, files, columns and tables, in any case.  in: names   out: which split each one is"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from study.data.raw import shown
from study.errors import DataError

NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev"),
}
OF_NAME = {name: split for split, names in NAMES.items() for name in names}
LEADING = re.compile(rf"({'|'.join(sorted(OF_NAME, key=len, reverse=True))})(?![a-z])")


class Split(NamedTuple):
    """What was chosen among the names of a source.

    train, test: names, or None where there is none; a validation split stands in for a missing test split.
    unused: names of the second held-out split, and of what is no split at all.
    """

    train: str | None
    test: str | None
    unused: tuple[str, ...]


def split_of(name: str) -> str | None:
    """The split that a whole name means.

    >>> split_of("Training"), split_of("VAL"), split_of("trainer")
    ('train', 'validation', None)
    """
    return OF_NAME.get(name.strip().lower())


def split_of_file(name: str) -> str | None:
    """The split that a file's name begins with.

    >>> split_of_file("Test-00000-of-00001.parquet"), split_of_file("trainer.parquet")
    ('test', None)
    """
    match = LEADING.match(name.lower())
    return OF_NAME[match[1]] if match else None


def choose(names: Iterable[str], where: object, hidden: Callable[[str], bool] = lambda name: False) -> Split:
    """Which of these names is the train split and which is held out.

    Args:
        names: of folders, files or splits.
        where: what holds them, for messages.
        hidden: whether a split's labels are kept back, as in a competition; a validation split then stands in for it.

    Raises:
        DataError: two names for one split, such as `train` and `Training`.

    >>> choose(["Train", "val", "Test"], "root")
    Split(train='Train', test='Test', unused=('val',))
    >>> choose(["train", "val", "test"], "root", hidden=lambda name: name == "test").test
    'val'
    """
    chosen: dict[str, str] = {}
    others = []
    for name in names:
        split = split_of(name)
        if split is None:
            others.append(name)
        elif split in chosen:
            raise DataError(
                f"{shown(where)}: {shown(chosen[split])!r} and {shown(name)!r} both name the {split} split; "
                "remove one, or set data.train and data.test"
            )
        else:
            chosen[split] = name
    held_out = [chosen[split] for split in ("test", "validation") if split in chosen]
    test = next((name for name in held_out if not hidden(name)), None)
    return Split(chosen.get("train"), test, tuple([name for name in held_out if name != test] + others))


def labels_hidden(labels: Iterable[object]) -> bool:
    """Whether a split has no label at all: all are missing or -1.

    >>> labels_hidden([-1, -1]), labels_hidden(["", None]), labels_hidden([-1, 0]), labels_hidden([])
    (True, True, False, False)
    """
    some = False
    for label in labels:
        some = True
        if label is not None and str(label).strip() not in ("", "-1"):
            return False
    return some


def without_labels(where: object) -> str:
    """The line about a held-out split whose labels are kept back."""
    return f"{shown(where)}: not used, it has no labels"


def not_used(where: object) -> str:
    """The line about a split or folder that is left out."""
    return f"{shown(where)}: not used; to hold it out instead, set data.test"
