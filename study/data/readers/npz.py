"""NumPy archives.  in: an npz file, or one per split   out: Raw

images labels  |  x y                                  one split per file
x_train y_train x_test y_test                          both in one file, as Keras
train_images train_labels test_images test_labels      both in one file, as MedMNIST
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
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

SINGLE = (("images", "labels"), ("x", "y"))
TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"))
TEST = (("x_test", "y_test"), ("test_images", "test_labels"))
UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(data: DataSpec, progress: Bar) -> Raw:
    """Images (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3; integers in 0..255, or floats, kept as float32.

    Floats count from 0 to 1, or to their maximum where that is above 1.  Class names come from `classes.txt` beside
    the train file, else they are the numbers.  Nothing is ever unpickled.

    Raises:
        DataError: another layout, dtype or key; NaN; labels that are no whole numbers; splits that do not fit together.
    """
    train_file, test_file = _places(data)
    train, train_labels = _split(train_file, TRAIN + SINGLE)
    test_file = test_file or (train_file if _holds(train_file, TEST) else None)
    test, test_labels = train[:0], train_labels[:0]
    if test_file is not None:
        test, test_labels = _split(test_file, TEST + SINGLE)
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
        test=None if test_file is None else str(test_file),
        maximum=maximum(images),
        unusable=_left_over(train_file),
    )


def _places(data: DataSpec) -> tuple[Path, Path | None]:
    """The train file, and the test file where it is another one."""
    if data.train is None and data.root is None:
        raise DataError("an npz file needs a place; set data.train (and data.test), or data.root")
    if data.train is not None:
        return Path(data.train).expanduser(), None if data.test is None else Path(data.test).expanduser()
    root = Path(data.root or "").expanduser()
    if data.test is not None:
        test = Path(data.test).expanduser()
    else:
        test = root / "test.npz" if (root / "test.npz").is_file() else None
    return root / "train.npz" if root.is_dir() else root, test


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


def _holds(file: Path, pairs: tuple[tuple[str, str], ...]) -> bool:
    with _opened(file) as archive:
        return any(images in archive.files for images, _ in pairs)


def _left_over(file: Path) -> tuple[str, ...]:
    """A validation split, as in MedMNIST, is neither train nor test."""
    with _opened(file) as archive:
        return tuple(f"{shown(file)}: {key}, not used" for key in archive.files if key in ("val_images", "x_val"))


def _split(file: Path, pairs: tuple[tuple[str, str], ...]) -> tuple[np.ndarray, np.ndarray]:
    """(n, channels, height, width) uint8, float32 or bool, and (n,) int64, under the first pair of keys."""
    with _opened(file) as archive:
        keys = next((pair for pair in pairs if set(pair) <= set(archive.files)), None)
        if keys is None:
            layouts = ", ".join("/".join(pair) for pair in pairs)
            raise DataError(
                f"{shown(file)}: needs one of {layouts}; found {shown(', '.join(archive.files)) or 'nothing'}"
            )
        images, labels = archive[keys[0]], archive[keys[1]]
    images, labels = pixels(planes(images, file), file), whole_labels(labels, str(file))
    if len(images) != len(labels):
        raise DataError(f"{shown(file)}: {len(images)} images, but {len(labels)} labels; write one label per image")
    return images, labels
