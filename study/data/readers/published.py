"""Published data sets in torchvision's layout.  in: a name and a root   out: Raw

torchvision downloads them all, and reads CIFAR and SVHN.  It is imported inside functions, as it costs seven seconds;
the idx files of MNIST and its kin are read here without it.
"""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study.data.raw import Raw, first_line, numbered, shown
from study.data.readers.idx import find_idx, read_idx
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

DIGITS = tuple("0123456789")
SILENCE = 60.0  # seconds without a byte after which a download is given up
IDX_FILES = tuple(f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))


@dataclass(frozen=True)
class Published:
    """How torchvision calls a data set and lays it out below its root."""

    kind: str
    """Class in torchvision.datasets."""
    expected: tuple[str, ...]
    """Files that are there when the data set is."""
    archive: str | None = None
    """What torchvision downloads and unpacks to them."""
    classes: tuple[str, ...] | None = None
    """None: as the data set's own files name them."""

    @property
    def idx(self) -> bool:
        """Whether this is one of MNIST's kin."""
        return len(self.expected) == len(IDX_FILES)


Split = tuple[np.ndarray, np.ndarray]  # images, labels


def _idx(kind: str, classes: tuple[str, ...]) -> Published:
    return Published(kind, tuple(f"{kind}/raw/{name}" for name in IDX_FILES), classes=classes)


GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
PUBLISHED = {
    "mnist": _idx("MNIST", DIGITS),
    "fashion-mnist": _idx("FashionMNIST", GARMENTS),
    "kmnist": _idx("KMNIST", KANA),
    "cifar10": Published(
        "CIFAR10", ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch"), "cifar-10-python.tar.gz"
    ),
    "cifar100": Published("CIFAR100", ("cifar-100-python/test", "cifar-100-python/train"), "cifar-100-python.tar.gz"),
    "svhn": Published("SVHN", ("train_32x32.mat", "test_32x32.mat"), classes=DIGITS),
}


def read_published(data: DataSpec, progress: Bar) -> Raw:
    """Train and test split in torchvision's order.

    A root that holds the data, unpacked or as the archives that torchvision downloads, is read offline and never
    written to.  Else, where `data.download` is true, the data are downloaded into a folder of their own inside the root
    and moved into place file by file: an interrupted or a second launch finds a whole file or none.

    Raises:
        DataError: the data are not there and cannot be fetched, or are damaged.
    """
    source = PUBLISHED[data.name]
    root = Path(data.root or Path("~/.cache/study") / data.name).expanduser()
    if not _present(source, root):
        if source.archive is not None and (root / source.archive).is_file():
            return _read_archive(source, root, source.archive)
        if not data.download:
            raise DataError(f"{_missing(source, root)}; put it there or set data.download=true")
        _download(source, root)
    return _read_idx(source, root) if source.idx else _read(source, root, str(root))


def _present(source: Published, root: Path) -> bool:
    return all((find_idx(root / path) if source.idx else (root / path).is_file()) for path in source.expected)


def _missing(source: Published, root: Path) -> str:
    path = next((root / path for path in source.expected if not (root / path).is_file()), root)
    return f"{shown(root)}: no {source.kind} here (expected {shown(path)})"


def _read_idx(source: Published, root: Path) -> Raw:
    images, labels, test_images, test_labels = (
        read_idx(find_idx(root / path) or root / path, 3 if "images" in path else 1) for path in source.expected
    )
    for (one, two), path in zip(((images, labels), (test_images, test_labels)), source.expected[::2], strict=True):
        if len(one) != len(two):
            raise DataError(f"{shown(root / path)}: {len(one)} images, but {len(two)} labels; download both again")
    return _raw(source, root, (images[:, None], labels), (test_images[:, None], test_labels))


def _raw(source: Published, where: object, train: Split, test: Split, classes: tuple[str, ...] | None = None) -> Raw:
    (images, labels), (test_images, test_labels) = train, test
    if images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"{shown(where)}: train images are {images.shape[1:]}, test images {test_images.shape[1:]}; "
            "download both again"
        )
    return Raw(
        images=np.concatenate([images, test_images]),
        labels=np.concatenate([labels, test_labels]).astype(np.int64),
        ids=np.array(numbered("train", len(images)) + numbered("test", len(test_images)), dtype=str),
        n_train=len(images),
        classes=classes or source.classes or (),
        train=f"{where} (train)",
        test=f"{where} (test)",
    )


def _splits(source: Published, root: Path, download: bool) -> tuple[Any, Any]:
    """torchvision's two objects."""
    import torchvision.datasets

    make = getattr(torchvision.datasets, source.kind)
    if source.kind == "SVHN":
        return tuple(make(root, split=split, download=download) for split in ("train", "test"))
    return tuple(make(root, train=train, download=download) for train in (True, False))


def _read(source: Published, root: Path, where: str) -> Raw:
    try:
        train, test = _splits(source, root, download=False)
        splits = [(_planes(part.data), _labels(part)) for part in (train, test)]
    except Exception as error:  # torchvision asserts, unpickles and views: a damaged file can fail in any way
        raise DataError(
            f"{shown(where)}: the {source.kind} files here are incomplete or damaged ({first_line(error)}); "
            "remove them and let them be downloaded again"
        ) from None
    return _raw(source, where, *splits, classes=source.classes or tuple(train.classes))


def _labels(part: Any) -> np.ndarray:
    return np.asarray(part.labels if hasattr(part, "labels") else part.targets, dtype=np.int64)


def _planes(pixels: np.ndarray) -> np.ndarray:
    """(n, channels, height, width): CIFAR has the channels last, SVHN has them here already."""
    return pixels.transpose(0, 3, 1, 2) if pixels.shape[3] == 3 else pixels


def _read_archive(source: Published, root: Path, archive: str) -> Raw:
    """Let torchvision unpack the archive of `root` into a folder that goes away: the root may be read-only."""
    with tempfile.TemporaryDirectory(prefix="study-") as name:
        folder = Path(name)
        (folder / archive).symlink_to((root / archive).resolve())
        with _guarded(f"{shown(root / archive)}: cannot be unpacked", "remove it and let it be downloaded again"):
            _splits(source, folder, download=True)
        return _read(source, folder, str(root))


def _download(source: Published, root: Path) -> None:
    """Fetch into a folder inside `root`, then move each file into place; a second launch waits and finds it done."""
    what = f"{_missing(source, root)} and it cannot be downloaded"
    with _guarded(what, "put the files there by hand, or try again with network and write access"):
        root.mkdir(parents=True, exist_ok=True)
        with open(root / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _present(source, root):
                return
            for left in root.glob(".download-*"):  # of a launch that was killed: the lock is ours
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder, _patience():
                _splits(source, Path(folder), download=True)
                _move(Path(folder), root)


def _move(folder: Path, root: Path) -> None:
    """Every file but the archives that have been unpacked."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for path in files:
        if path.suffix != ".gz":
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / path, root / path)


@contextmanager
def _guarded(what: str, cure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # network, disk, rights, checksum
        raise DataError(f"{what} ({first_line(error)}); {cure}") from None


@contextmanager
def _patience() -> Iterator[None]:
    """A time limit for every read from the network; urllib alone waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
