"""The statistics of all epochs.  in: one epoch's arrays   out: series (e, n), from memory or from a folder

A folder holds header.json, examples.npz and one file per epoch, each written whole or not at all: what was recorded up
to the last epoch survives a crash.
"""

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np

from study.errors import DataError, StoreError
from study.recorder.statistics import LATEST, LOGITS, missing, present

FORMAT = 1
KINDS = ("online", "end")
"""Traces: predictions made in training, before the step on the batch; and those at epoch ends."""
EXAMPLES = "examples.npz"
Arrays = dict[str, np.ndarray]


class Trace:
    """Arrays (n,) of each epoch, of both kinds.

    Args:
        examples: ids, labels, split, n_classes; a folder of others is refused.
        folder: where epochs are kept; None: in memory.
    """

    def __init__(self, examples: Arrays, folder: Path | None = None) -> None:
        self.folder = folder
        self._held: dict[tuple[str, int], Arrays] = {}
        if folder:
            _prepare(folder, examples)

    def epochs(self, kind: str) -> list[int]:
        """The epochs of one kind, rising; 0 is before the first step."""
        if not self.folder:
            return sorted(epoch for held, epoch in self._held if held == kind)
        names = (re.fullmatch(rf"{kind}-(\d+)\.npz", path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def add(self, kind: str, epoch: int, arrays: Arrays) -> None:
        """Keep one epoch; an epoch that is there is replaced.  Memory has LATEST of the last one alone."""
        if self.folder:
            write_arrays(self._file(kind, epoch), arrays)
            return
        for earlier in self.epochs(kind):
            for name in LATEST:
                self._held[kind, earlier].pop(name, None)
        self._held[kind, epoch] = dict(arrays)

    def names(self, kind: str, epoch: int) -> set[str]:
        """The statistics that one epoch has."""
        if not self.folder:
            return set(self._held[kind, epoch])
        with read_arrays(self._file(kind, epoch)) as file:
            return set(file.files)

    def array(self, kind: str, epoch: int, name: str) -> np.ndarray:
        """One statistic of one epoch, (n, ...)."""
        if not self.folder:
            return self._held[kind, epoch][name]
        with read_arrays(self._file(kind, epoch)) as file:
            return file[name]

    def arrays(self, kind: str, epoch: int) -> Arrays:
        """All statistics of one epoch."""
        return {name: self.array(kind, epoch, name) for name in sorted(self.names(kind, epoch))}

    def seen(self, kind: str, epoch: int) -> np.ndarray:
        """(n,) bool, the examples of which one epoch has a statistic."""
        name = min(self.names(kind, epoch) - {LOGITS})
        array = self.array(kind, epoch, name)
        return present(array, missing(name))

    def drop_after(self, epoch: int) -> None:
        """Forget the epochs after this one."""
        for kind in KINDS:
            for later in (each for each in self.epochs(kind) if each > epoch):
                if self.folder:
                    self._file(kind, later).unlink()
                else:
                    del self._held[kind, later]

    def _file(self, kind: str, epoch: int) -> Path:
        assert self.folder
        return self.folder / f"{kind}-{epoch:05d}.npz"


def digest_of(*arrays: np.ndarray) -> str:
    """A short digest of arrays: their types, shapes and bytes; text by its UTF-8."""
    digest = hashlib.sha256()
    for array in arrays:
        texts = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        digest.update(f"{texts.dtype.str} {texts.shape} ".encode())
        digest.update(np.ascontiguousarray(texts).tobytes())
    return digest.hexdigest()[:16]


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz whole or not at all.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(f"{path}: {error.strerror}; free space or take another folder") from None


def read_arrays(path: Path) -> np.lib.npyio.NpzFile:
    """Open an .npz; nothing in it is unpickled.

    Raises:
        StoreError: not there, or damaged.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}); remove it to go on without") from None


def read_header(folder: Path) -> dict[str, object]:
    """What header.json says.

    Raises:
        StoreError: the folder holds no trace, or one of a later version.
    """
    try:
        header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise StoreError(f"{folder} holds no recorded trace; name the folder that a Recorder has written") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise StoreError(f"{folder} was recorded by another version of study; record again, or use that version")
    return header


def _prepare(folder: Path, examples: Arrays) -> None:
    digest = digest_of(*examples.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}; name a folder that can be written") from None
    if (folder / "header.json").exists():
        if read_header(folder).get("digest") != digest:
            raise DataError(f"{folder} holds the trace of other examples or labels; name another folder")
        return
    if any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no trace; name an empty or a new folder")
    write_arrays(folder / EXAMPLES, examples)
    partial = folder / f".header.{os.getpid()}"
    partial.write_text(json.dumps({"format": FORMAT, "digest": digest}), encoding="utf-8")
    os.replace(partial, folder / "header.json")
