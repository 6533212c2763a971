"""NumPy archives.  in: an npz file, or one per split   out: Raw

images labels  |  x y                                  one split per file
x_train y_train x_test y_test                          all in one file, as Keras
train_images train_labels test_images test_labels      all in one file, as MedMNIST

Case does not count, and splits go by any of the names in `splits`.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from study.data.arrays import maximum, pixels, planes
from study.data.checks import whole_labels
from study.data.raw import Raw, class_file, first_line, name_classes, numbered, shown
from study.data.readers.splits import choose, labels_hidden, not_used, split_of, split_of_file, without_labels
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

IMAGES = ("images", "image", "imgs", "img", "x", "data")  # of several in one file, the first
LABELS = ("labels", "label", "y", "targets", "target")
LAYOUTS = "images/labels, x/y, x_train/y_train or train_images/train_labels"
Place = tuple[Path, tuple[str, str]]  # a file, and its keys of images and labels
UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(data: DataSpec, progress: Bar) -> Raw:
    """Images (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3; integers in 0..255, or floats, kept as float32.

    Floats count from 0 to 1, or to their maximum where that is above 1.  Class names come from `classes.txt` beside
    the train file, else they are the numbers.  Nothing is ever unpickled.

    Raises:
        DataError: another layout, dtype or key; NaN; labels that are no whole numbers; splits that do not fit together.
    """
    splits, unused = _splits(data)
    train_file, train_keys = splits["train"]
    train, train_labels = _arrays(train_file, train_keys)
    test, test_labels = train[:0], train_labels[:0]
    if "test" in splits:
        test_file, test_keys = splits["test"]
        test, test_labels = _arrays(test_file, test_keys)
        if (test.shape[1:], test.dtype) != (train.shape[1:], train.dtype):
            raise DataError(
                f"{shown(test_file)}: test images are {test.shape[1:]} {test.dtype}, train images in "
                f"{shown(train_file)} {train.shape[1:]} {train.dtype} (channels, height, width); bring both to one form"
            )
    labels = np.concatenate([train_labels, test_labels])
    images = np.concatenate([train, test])
    return Raw(
        images=images.astype(np.uint8) if images.dtype == bool else images,
        labels=labels,
        ids=np.array(numbered("train", len(train)) + numbered("test", len(test)), dtype=str),
        n_train=len(train),
        classes=name_classes(labels, class_file(train_file.parent), str(train_file)),
        train=str(train_file),
        test=str(splits["test"][0]) if "test" in splits else None,
        maximum=maximum(images),
        unusable=tuple(unused),
    )


def _splits(data: DataSpec) -> tuple[dict[str, Place], list[str]]:
    """Where "train" and, if there is one, "test" lie, and a line for each split that is not used."""
    places = _places(data)
    hidden = {name for name, place in places.items() if _labels_hidden(*place)}
    split = choose(places, data.root or data.train or "", hidden.__contains__)
    if split.train is None:
        where = next(iter(places.values()))[0]
        raise DataError(f"{shown(where)}: there is {', '.join(places)}, and no train split; set data.train to a file")
    unused = []
    for name in split.unused:
        file, keys = places[name]
        where = f"{file}: {keys[0]}"
        unused.append(without_labels(where) if name in hidden else not_used(where))
    chosen = {"train": places[split.train]} | ({"test": places[split.test]} if split.test else {})
    return chosen, unused


def _places(data: DataSpec) -> dict[str, Place]:
    """File and keys of each split that there is: of files named after splits, or of keys in one file."""
    if data.train is None and data.root is None:
        raise DataError("an npz file needs a place; set data.train (and data.test), or data.root")
    test = {} if data.test is None else {"test": _one_split(Path(data.test).expanduser(), "test")}
    if data.train is not None:
        return _in_file(Path(data.train).expanduser(), only_train=data.test is not None) | test
    root = Path(data.root or "").expanduser()
    if not root.is_dir():
        return _in_file(root, only_train=data.test is not None) | test
    files = {split_of_file(file.name): file for file in sorted(root.glob("*.npz"), reverse=True)}
    if "train" not in files:
        raise DataError(f"{shown(root)}: there is no train.npz here; set data.train to a file")
    kept = {name: file for name, file in files.items() if name and not (data.test and name != "train")}
    return {name: _one_split(file, name) for name, file in kept.items()} | test


def _in_file(file: Path, *, only_train: bool) -> dict[str, Place]:
    """The splits that the keys of one file name; keys without a split are train."""
    splits = {split or "train": (file, keys) for split, keys in reversed(_pairs(file).items())}
    return {"train": splits["train"]} if only_train and "train" in splits else splits


def _one_split(file: Path, split: str) -> Place:
    """The keys of a file of one split: those of this split, else those of none."""
    pairs = _pairs(file)
    keys = pairs.get(split, pairs.get(None))
    if keys is None:
        raise DataError(f"{shown(file)}: holds {', '.join(map(str, pairs))}, and no {split} split; name another file")
    return file, keys


def _pairs(file: Path) -> dict[str | None, tuple[str, str]]:
    """The keys of images and labels of each split that a file names, in any case: `X_train`, `train_images`, `x`."""
    with _opened(file) as archive:
        names = list(archive.files)
    keys: dict[tuple[str | None, str], str] = {}
    for role, usual in (("images", IMAGES), ("labels", LABELS)):
        for name in sorted(names, key=str.lower):
            parts = name.lower().split("_")
            split = next((split_of(part) for part in parts if split_of(part)), None)
            rest = [part for part in parts if not split_of(part)]
            if len(rest) == 1 and rest[0] in usual:
                held = keys.get((split, role))
                if held is None or usual.index(rest[0]) < usual.index(held.lower().split("_")[-1]):
                    keys[split, role] = name
    splits = {split for split, _ in keys}
    pairs = {s: (keys[s, "images"], keys[s, "labels"]) for s in splits if {(s, "images"), (s, "labels")} <= set(keys)}
    if not pairs:
        raise DataError(f"{shown(file)}: needs arrays {LAYOUTS}; found {shown(', '.join(names)) or 'nothing'}")
    return pairs


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The archive; whatever is wrong with the file becomes one line."""
    try:
        if not file.is_file():
            raise FileNotFoundError("no such file")
        with open(file, "rb") as stream:  # np.load by name leaves a broken file open
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one bare array")
            with archive:
                yield archive
    except UNREADABLE as error:
        raise DataError(
            f"{shown(file)}: not readable as npz without pickles ({first_line(error)}); "
            "write it anew with np.savez(file, images=..., labels=...)"
        ) from None


def _labels_hidden(file: Path, keys: tuple[str, str]) -> bool:
    with _opened(file) as archive:
        return labels_hidden(np.unique(archive[keys[1]]).tolist())


def _arrays(file: Path, keys: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """(n, channels, height, width) uint8, float32 or bool, and (n,) int64."""
    with _opened(file) as archive:
        images, labels = archive[keys[0]], archive[keys[1]]
    images, labels = pixels(planes(images, file), file), whole_labels(labels, str(file))
    if len(images) != len(labels):
        raise DataError(f"{shown(file)}: {len(images)} images, but {len(labels)} labels; write one label per image")
    return images, labels
