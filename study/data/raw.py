"""What a reader hands over: arrays as they lie in the source, before checks and selection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.errors import DataError


@dataclass(frozen=True, eq=False)
class Raw:
    """Examples as they lie in the source, train rows first."""

    images: np.ndarray
    """(n, channels, height, width) uint8 or float32."""
    labels: np.ndarray
    """(n,) int64, positions in `classes`."""
    ids: np.ndarray
    """(n,) str."""
    n_train: int
    classes: tuple[str, ...]
    train: str
    """The file or folder of the train rows, for messages."""
    test: str | None
    """The file or folder of the test rows; None where the source has no test split."""
    maximum: float = 255.0
    unusable: tuple[str, ...] = ()
    """One line each: what lies in the source and is left out, and why."""
    notes: tuple[str, ...] = ()
    """One line each: how what was read was understood."""
    files: np.ndarray | None = None
    """(n,) str, absolute paths of the image files; None where examples are no files."""


def numbered(split: str, n: int) -> list[str]:
    """Ids of an array source, `train/00012`: zero padded to the width of the split's count."""
    width = len(str(n))
    return [f"{split}/{index:0{width}d}" for index in range(n)]


def shown(text: object) -> str:
    r"""A path or name fit for one line of a message: control characters and broken encodings as escapes.

    >>> shown("cat\n1.png")
    'cat\\n1.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return shown(lines[0])[:200] if lines else type(error).__name__


def class_file(folder: Path) -> tuple[str, ...] | None:
    """Names in `classes.txt`, one per line in label order; None where the folder has no such file."""
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").strip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown(path)}: {first_line(error)}; write one class name per line, in UTF-8") from None
    if len(set(names)) < len(names) or not all(names):
        raise DataError(f"{shown(path)}: a name is empty or comes twice; write one class name per line, in label order")
    return names


def name_classes(labels: np.ndarray, names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The class names: those given, else the numbers 0..max as text.

    Args:
        labels: (n,) non-negative integers.
        names: in label order, or None.
        where: the file, for the message.

    Raises:
        DataError: no names are given and a number in 0..max has no example.
    """
    if names is not None:
        return tuple(names)
    present = np.unique(labels)
    if len(present) and present[-1] >= len(present):
        missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise DataError(
            f"{shown(where)}: labels go up to {present[-1]}, but no example has label {missing}; "
            "number the classes 0, 1, 2 ... without gaps"
        )
    return tuple(str(label) for label in present)
