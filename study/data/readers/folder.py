"""Image folders, one folder per class.  in: folders   out: Raw

root/train/cat/1.png   root/test/cat/9.png      two splits, under any of the names in `splits`
root/cat/1.png                                  train examples only
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from study.data.raw import Raw, shown
from study.data.readers.decode import ENDINGS, IMAGE_NAME, Source, is_image
from study.data.readers.encoded import Pictures, gather
from study.data.readers.splits import Split, choose, not_used, split_of
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

BATCH = 2048
JUNK = frozenset(("__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "@eadir"))
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
    (train, train_prefix), test, unused = _places(data)
    tree = scan(train)
    classes = _classes(tree)
    pictures = _pictures(tree, train_prefix, classes, data.classes)
    held_out, unusable = None, [*unused, *tree.unusable]
    if test is not None:
        other = _scan_test(test[0], train)
        held_out, unusable = _pictures(other, test[1], classes, data.classes), unusable + other.unusable
    return gather(pictures, held_out, classes, unusable, size=data.size, channels=data.channels, progress=progress)


def _places(data: DataSpec) -> tuple[tuple[Path, str], tuple[Path, str] | None, list[str]]:
    """Folder and id prefix of the train split, the same of the test split if any, lines about what is not used."""
    if data.root is None and data.train is None:
        raise DataError("an image folder needs a place; set data.root, or data.train and data.test")
    test = None if data.test is None else (Path(data.test).expanduser(), "test/")
    if data.train is not None:
        return (Path(data.train).expanduser(), "train/"), test, []
    root = Path(data.root or "").expanduser()
    names = [entry.name for entry in _entries(root) if _is_dir(entry)] if root.is_dir() else []
    split = choose(names, root)
    if split.train is None:
        _refuse_split_as_class(root, names, split)
        return (root, "" if test is None else "train/"), test, []
    given = None if test is None else test[0].resolve()
    spare = [name for name in (*split.unused, *([split.test] if test else [])) if name]
    unused = [not_used(root / name) for name in spare if (root / name).resolve() != given]
    if test is None and split.test is not None:
        test = (root / split.test, f"{split.test}/")
    return (root / split.train, f"{split.train}/"), test, unused


def _refuse_split_as_class(root: Path, names: Sequence[str], split: Split) -> None:
    """Without a train folder, a folder named like a split is a class only where it holds images and no class folders.

    Raises:
        DataError: all folders are named like splits, or one of them holds folders of its own.
    """
    splits = [name for name in names if split_of(name)]
    inside = {name: [entry.name for entry in _entries(root / name) if _is_dir(entry)] for name in splits}
    if splits and (len(splits) == len(names) or any(inside.values())):
        raise DataError(
            f"{shown(root)}: {', '.join(map(shown, splits))} is named like a split, but there is no train folder; "
            f"rename the folder of the training images to 'train', or set data.train={shown(root / names[0])}"
        )


def _classes(tree: Tree) -> tuple[str, ...]:
    """The class folders in the order of their names."""
    classes = tuple(sorted(tree.files))
    if not classes:
        raise DataError(f"{shown(tree.folder)}: no class folders; {LAYOUT}")
    if len(classes) == 1:
        inner = tree.folder / classes[0]
        raise DataError(f"{shown(tree.folder)}: only one folder, {shown(classes[0])}: set data.root={shown(inner)}")
    return classes


def _scan_test(folder: Path, train: Path) -> Tree:
    """The test split; one without class folders has no labels."""
    tree = scan(folder)
    if not tree.files and tree.unusable:
        raise DataError(
            f"{shown(folder)}: no class folders, so these images have no labels; to do without a test split, "
            f"set data.train={shown(train)}"
        )
    return tree


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
        files=paths,
    )


def scan(folder: Path) -> Tree:
    """List the image files below each class folder.

    Hidden files and those of operating systems are passed over; links are followed, but no folder is read twice for one
    class: links may form circles, and a few folders of links have millions of paths.

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


def _walk(folder: Path, path: str, read: set[tuple[int, int]], unusable: list[str]) -> Iterator[str]:
    """Paths of the image files below `folder`, which lies at `path` below the split's folder; `read` grows."""
    here = _identity(folder)
    if here in read:
        unusable.append(f"{shown(folder)}: a link to a folder that is read already")
        return
    read.add(here)
    for entry in _entries(folder):
        below = f"{path}/{entry.name}"
        if _is_dir(entry):
            yield from _walk(Path(entry.path), below, read, unusable)
        elif not _is_utf8(entry.name):
            unusable.append(f"{shown(entry.path)}: its name is not UTF-8")
        elif not _is_file(entry):
            unusable.append(f"{shown(entry.path)}: not a regular file")
        elif not IMAGE_NAME.search(entry.name) and not is_image(Path(entry.path)):
            unusable.append(f"{shown(entry.path)}: not an image file, by its ending and its first bytes")
        else:
            yield below


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _is_junk(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(folder)}: {error.strerror}; make the folder readable") from None


def _is_junk(name: str) -> bool:
    """Hidden files, and what operating systems put beside images."""
    return name.startswith(".") or name.lower() in JUNK


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
