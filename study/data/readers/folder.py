"""Image folders, one folder per class.  in: folders   out: Raw

root/train/cat/1.png   root/test/cat/9.png      two splits (the second may be called val)
root/cat/1.png                                  train examples only
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from study.data.raw import Raw, shown
from study.data.readers.decode import ENDINGS, Source
from study.data.readers.encoded import Pictures, gather
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

BATCH = 2048
IMAGE_NAME = re.compile(rf"\.({ENDINGS})$", re.IGNORECASE)
LAYOUT = "put the images of each class into a folder of its own, <root>/train/<class>/<image>"


class Tree(NamedTuple):
    """The image files of one split."""

    folder: Path
    files: dict[str, list[str]]
    """Class name to the paths of its files below `folder`, `/` separated, sorted."""
    unusable: list[str]


def read_folder(data: DataSpec, progress: Bar) -> Raw:
    """Classes in the order of their names, files in the order of their paths; see the module for the layout.

    Raises:
        DataError: no folder or no class folder, a class without images, image sizes that differ where no size is asked.
    """
    (train, train_prefix), test = _places(data)
    tree = scan(train)
    classes = tuple(sorted(tree.files))
    if not classes:
        raise DataError(f"{shown(train)}: no class folders; {LAYOUT}")
    pictures = _pictures(tree, train_prefix, classes, data.classes)
    held_out, unusable = None, tree.unusable
    if test is not None:
        other = scan(test[0])
        held_out, unusable = _pictures(other, test[1], classes, data.classes), unusable + other.unusable
    return gather(pictures, held_out, classes, unusable, size=data.size, channels=data.channels, progress=progress)


def _places(data: DataSpec) -> tuple[tuple[Path, str], tuple[Path, str] | None]:
    """Folder and id prefix of the train split, and of the test split where there is one."""
    if data.root is None and data.train is None:
        raise DataError("an image folder needs a place; set data.root, or data.train and data.test")
    test = None if data.test is None else (Path(data.test).expanduser(), "test/")
    if data.train is not None:
        return (Path(data.train).expanduser(), "train/"), test
    root = Path(data.root or "").expanduser()
    if not (root / "train").is_dir():
        return (root, "" if test is None else "train/"), test
    if test is None:
        test = next(((root / name, f"{name}/") for name in ("test", "val") if (root / name).is_dir()), None)
    return (root / "train", "train/"), test


def _pictures(tree: Tree, prefix: str, classes: tuple[str, ...], wanted: Sequence[str] | None) -> Pictures:
    """One split; classes that are left out are not decoded."""
    unknown = sorted(set(tree.files) - set(classes))
    if unknown:
        raise DataError(
            f"{shown(tree.folder / unknown[0])}: class {shown(unknown[0])!r} is not in the train split, a test split "
            "with other classes; remove the folder or add train images"
        )
    pairs = [
        (label, path)
        for label, name in enumerate(classes)
        if wanted is None or name in wanted
        for path in tree.files.get(name, ())
    ]
    paths = [tree.folder / path for _, path in pairs]

    def batches() -> Iterator[Sequence[Source]]:
        for start in range(0, len(paths), BATCH):
            yield paths[start : start + BATCH]

    return Pictures(
        where=str(tree.folder),
        labels=np.array([label for label, _ in pairs], dtype=np.int64),
        ids=[prefix + path for _, path in pairs],
        names=[str(path) for path in paths],
        batches=batches,
    )


def scan(folder: Path) -> Tree:
    """List the image files below each class folder.

    Hidden files are passed over; links are followed, but not back into a folder that they lie in.

    Raises:
        DataError: the folder is missing or cannot be listed, or a class folder has no images.
    """
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: no such folder; {LAYOUT}")
    files: dict[str, list[str]] = {}
    unusable: list[str] = []
    for entry in _entries(folder):
        if not _is_dir(entry):
            unusable.append(f"{shown(entry.path)}: not in a class folder")
            continue
        if not _is_utf8(entry.name):
            raise DataError(f"{shown(entry.path)}: the name of this class folder is not UTF-8; rename it")
        images = list(_walk(Path(entry.path), entry.name, {_identity(folder)}, unusable))
        if not images:
            raise DataError(
                f"{shown(entry.path)}: no images in this class folder; remove it or add files ending in "
                f"{ENDINGS.replace('|', ' ')}"
            )
        files[entry.name] = sorted(images)
    return Tree(folder, files, unusable)


def _walk(folder: Path, path: str, above: set[tuple[int, int]], unusable: list[str]) -> Iterator[str]:
    """Paths of the image files below `folder`, which lies at `path` below the split's folder."""
    here = _identity(folder)
    if here in above:
        unusable.append(f"{shown(folder)}: a link back into a folder that it lies in")
        return
    for entry in _entries(folder):
        below = f"{path}/{entry.name}"
        if _is_dir(entry):
            yield from _walk(Path(entry.path), below, above | {here}, unusable)
        elif not _is_utf8(entry.name):
            unusable.append(f"{shown(entry.path)}: its name is not UTF-8")
        elif not IMAGE_NAME.search(entry.name):
            unusable.append(f"{shown(entry.path)}: not an image file by its ending")
        elif not _is_file(entry):
            unusable.append(f"{shown(entry.path)}: not a regular file")
        else:
            yield below


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(folder)}: {error.strerror}; make the folder readable") from None


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{shown(folder)}: {error.strerror}; make the folder readable") from None
    return status.st_dev, status.st_ino


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """False for pipes and devices too: opening one may wait for ever."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
