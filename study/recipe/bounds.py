"""How long, large and deep the values of a recipe may be.  in: TOML values   out: the same, or a ValueError"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.progress import printable

TEXT = 10_000  # characters
LABEL = 120  # bytes: it becomes a part of file names
PART = 255  # bytes of one name in a path, the most that file systems take
PATH = 4000  # bytes of a path
ITEMS = 10_000  # entries of a list or a table
DEPTH = 8  # tables and lists inside each other
WHOLE = 2**63  # MLflow, SQLite and numpy end here


def bounded(value: Any, items: int = ITEMS, depth: int = DEPTH) -> None:
    """Refuse what is too long, too large or too deep, and characters that steer a terminal.

    Raises:
        ValueError: says which.
    """
    if isinstance(value, str):
        if len(value) > TEXT:
            raise ValueError(f"the text has {len(value)} characters; up to {TEXT} are taken")
        if printable(value) != value:
            raise ValueError(f"control characters cannot be used: {printable(value)[:80]}")
    elif isinstance(value, int) and abs(value) >= WHOLE:
        raise ValueError("a number must lie between -2**63 and 2**63")
    elif isinstance(value, list | tuple | Mapping):
        if len(value) > items:
            raise ValueError(f"there are {len(value)} entries; up to {items} are taken")
        if depth == 0:
            raise ValueError(f"tables and lists may lie {DEPTH} deep inside each other")
        for entry in (*value, *value.values()) if isinstance(value, Mapping) else value:
            bounded(entry, items, depth - 1)


def label(text: str) -> str:
    """A name that can become a part of a file's.

    Raises:
        ValueError: it is too long, blank, or has a line break.
    """
    if not text.strip() or "\n" in text or len(text.encode()) > LABEL:
        raise ValueError(f"a label is one line of 1 to {LABEL} bytes, this has {len(text.encode())}")
    return text


def path(text: str) -> str:
    """A path that the system can look up.

    Raises:
        ValueError: it or a part of it is too long, or it begins with a user that is not there.
    """
    parts = Path(text).parts
    if len(text.encode()) > PATH or any(len(part.encode()) > PART for part in parts):
        raise ValueError(f"a path has up to {PATH} bytes, each name in it up to {PART}")
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{parts[0]}: there is no such user here; write the whole path") from None
    return text
