"""Columns of tables by their usual names.  in: names of columns   out: which holds images, labels, splits"""

from collections.abc import Sequence

from study.data.raw import shown
from study.errors import DataError

IMAGES = (
    *("image", "img", "images", "picture", "photo"),
    *("file", "file_name", "filename", "image_path", "img_path", "path", "file_path", "filepath"),
    *("image_id", "id"),
)
LABELS = ("label", "labels", "fine_label", "class", "class_name", "category", "target", "species", "breed")
SPLITS = ("split", "subset", "partition")


def image_column(names: Sequence[str], wanted: str | None, where: object) -> str:
    """The column that `data.columns.image` names, else the first usual name of one; case does not count.

    >>> image_column(["Id", "img", "fine_label"], None, "table")
    'img'
    """
    return _column(names, wanted, IMAGES, where, "image")


def label_column(names: Sequence[str], wanted: str | None, where: object) -> str:
    """The column that `data.columns.label` names, else the first usual name of one; `fine_label` before `category`.

    >>> label_column(["img", "coarse_label", "fine_label"], None, "table")
    'fine_label'
    """
    return _column(names, wanted, LABELS, where, "label")


def split_column(names: Sequence[str], wanted: str | None, where: object) -> str | None:
    """The column that `data.columns.split` names, else the first usual name of one; None without any.

    >>> split_column(["image", "label"], None, "table") is None
    True
    """
    return _column(names, wanted, SPLITS, where, "split") if wanted or _first(names, SPLITS) else None


def _column(names: Sequence[str], wanted: str | None, usual: Sequence[str], where: object, key: str) -> str:
    column = (wanted if wanted in names else None) if wanted else _first(names, usual)
    if column is None:
        what = (
            f"column {shown(wanted)!r}" if wanted else f"{key} column with a usual name ({', '.join(usual[:3])}, ...)"
        )
        raise DataError(
            f"{shown(where)}: no {what}; there are {shown(', '.join(names)) or 'none'}, name it with "
            f"data.columns.{key} (from Python {key}=)"
        )
    return column


def _first(names: Sequence[str], usual: Sequence[str]) -> str | None:
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), None)
