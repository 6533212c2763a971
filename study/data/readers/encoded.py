"""Splits of encoded images to Raw: what image folders and parquet files have in common.  in: Pictures   out: Raw"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.data.checks import check_range, refuse_losses
from study.data.raw import Raw, shown
from study.data.readers.decode import Source, Stack, decode_all, size_of
from study.progress import Bar

SIZES_READ = 32  # images whose size is read to say what resizing costs


@dataclass(frozen=True, eq=False)
class Pictures:
    """One split of encoded images, in canonical order."""

    where: str
    labels: np.ndarray
    """(n,) int64."""
    ids: Sequence[str]
    names: Sequence[str]
    """(n,) what to call each image in a message."""
    batches: Callable[[], Iterator[Sequence[Source]]]
    files: Sequence[Path] | None = None
    """(n,) the image files, where every image is one."""


def gather(
    train: Pictures,
    test: Pictures | None,
    classes: tuple[str, ...],
    unusable: Sequence[str],
    *,
    size: int | None,
    channels: int | None,
    progress: Bar,
) -> Raw:
    """Decode both splits into one array; an image that cannot be read is listed and left out.

    Raises:
        DataError: sizes differ, a label is out of range, or too much of a split cannot be read.
    """
    splits = [split for split in (train, test) if split is not None]
    total = sum(len(split.labels) for split in splits)
    stack, masks, lines = Stack(total), [], list(unusable)
    with progress("reading images", total) as advance:
        for split in splits:
            check_range(split.labels, classes, split.where)
            decoder = decode_all(split.batches(), size, channels, advance)
            with closing(decoder) as decoded:
                usable, reasons = _fill(stack, split, decoded)
            refuse_losses(split.where, split.labels, usable, reasons, classes)
            masks.append(usable)
            lines += reasons
    images, notes = stack.images()
    notes += _note_on_size(train, size)
    kept = list(zip(splits, masks, strict=True))
    return Raw(
        images=images,
        labels=np.concatenate([split.labels[usable] for split, usable in kept]),
        ids=np.concatenate([np.array(split.ids, dtype=str)[usable] for split, usable in kept]),
        n_train=int(masks[0].sum()),
        classes=classes,
        train=train.where,
        test=None if test is None else test.where,
        unusable=tuple(lines),
        notes=notes,
        files=_files(splits, np.concatenate(masks)),
    )


def _note_on_size(pictures: Pictures, size: int | None) -> tuple[str, ...]:
    """A line where images lose more than half of their side, by some of the first ones."""
    first = next(pictures.batches(), ()) if size is not None else ()
    sizes = [pixels for pixels in map(size_of, first[:: max(1, len(first) // SIZES_READ)]) if pixels is not None]
    if size is None or not sizes:
        return ()
    width, height = (int(median) for median in np.median(sizes, axis=0))
    if min(width, height) <= 2 * size:
        return ()
    return (
        f"images of about {width} x {height} pixels are resized to {size} x {size}; --set data.size={2 * size} keeps "
        "more of them and takes about four times as long",
    )


def _files(splits: Sequence[Pictures], usable: np.ndarray) -> np.ndarray | None:
    """(n,) str, the absolute paths of the images; None where some are no files of their own."""
    paths = [file for split in splits for file in split.files or ()]
    return np.array([os.path.abspath(path) for path in paths], dtype=str)[usable] if len(paths) == len(usable) else None


def _fill(stack: Stack, split: Pictures, decoded: Iterator[np.ndarray | str]) -> tuple[np.ndarray, list[str]]:
    """Stack what could be decoded.

    Returns:
        (n,) bool, whether each image of the split is in the stack, and one line for each that is not.
    """
    usable, reasons = np.zeros(len(split.labels), bool), []
    for row, pixels in enumerate(decoded):
        if isinstance(pixels, str):
            reasons.append(f"{shown(split.names[row])}: {pixels}")
        else:
            stack.add(pixels, split.names[row])
            usable[row] = True
    return usable, reasons
