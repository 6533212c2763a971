"""Data sets as arrays in one canonical order.  in: a recipe's [data] table   out: Dataset

Train rows come first, then test rows: one axis of n examples.  A reader finds the images (`sources`), `checks` refuses
what cannot be trained on, and the digest says whether two runs have seen the same examples.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from study.data.checks import check, check_arrays, select
from study.data.digest import digest_of
from study.data.noise import noisy_images, noisy_labels
from study.data.readers.registry import read
from study.data.resize import fit
from study.errors import DataError
from study.progress import Bar, bar
from study.recipe import Recipe

__all__ = ["Dataset", "load", "open_data"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of one data set, train rows first; two data sets are the same when their digests are."""

    name: str
    images: np.ndarray = field(repr=False)
    """(n, channels, height, width) uint8, or float32 where an npz file holds floats."""
    labels: np.ndarray = field(repr=False)
    """(n,) int64, 0..c-1: what is trained on."""
    ids: np.ndarray = field(repr=False)
    """(n,) str, unique and stable: `train/00012`, or the path of an image file below the root."""
    n_train: int
    classes: tuple[str, ...]
    maximum: float
    """The pixel value that counts as 1.0: 255 for most images, 16 for digits."""
    unusable: tuple[str, ...] = field(repr=False)
    """One line each: what was found in the source and is left out, and why."""
    digest: str
    """The first 16 hex digits of a sha256 over shape, dtype, pixels, labels, n_train and ids."""
    found: np.ndarray | None = field(default=None, repr=False)
    """(n,) int64, the labels as they were before label noise; None: there is none."""

    @property
    def clean_labels(self) -> np.ndarray:
        """(n,) int64, the labels as they were before label noise; without noise, the labels."""
        return self.labels if self.found is None else self.found

    @property
    def label_columns(self) -> dict[str, np.ndarray]:
        """The labels as every table of examples holds them: `label`, and `clean_label` where there is label noise."""
        return {"label": self.labels} if self.found is None else {"label": self.labels, "clean_label": self.found}

    @property
    def n(self) -> int:
        """Number of examples, train and test."""
        return len(self.labels)

    @property
    def n_test(self) -> int:
        """Number of test examples; 0 where the source has no test split."""
        return self.n - self.n_train

    @property
    def n_classes(self) -> int:
        """Number of classes, c."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return tuple(self.images.shape[1:])

    def split(self) -> np.ndarray:
        """(n,) str, "train" or "test": the split column of every table."""
        return np.repeat(np.array(["train", "test"]), [self.n_train, self.n_test])

    def rows(self, split: Literal["train", "test"]) -> slice:
        """The rows of one split, as a slice into any per-example array."""
        return {"train": slice(0, self.n_train), "test": slice(self.n_train, self.n)}[split]


def load(data: Any, *, progress: Bar = bar) -> Dataset:
    """Read, check and digest the data set that a recipe's [data] table names.

    Args:
        data: `recipe.Data`.  `classes` keeps only these and re-numbers the labels 0..c-1 in the order given; `limit`
            then keeps the first `limit` train examples of each class in canonical order (test rows all stay); ids keep
            the numbers that they have in the whole data set.  `size` and `channels` then shape every image.
        progress: opens a display of the decoding; see `study.display`.

    Raises:
        DataError: one line that names the file or folder and the cure.
    """
    raw = read(data, progress)
    check_arrays(raw)
    raw = select(raw, data.classes, data.limit)
    check(raw)
    images = np.ascontiguousarray(fit(raw.images, data.size, data.channels))
    return Dataset(
        name=data.label or data.name,
        images=images,
        labels=raw.labels,
        ids=raw.ids,
        n_train=raw.n_train,
        classes=raw.classes,
        maximum=raw.maximum,
        unusable=raw.unusable,
        digest=digest_of(images, raw.labels, raw.ids, raw.n_train),
    )


def open_data(recipe: Recipe, *, progress: Bar = bar) -> Dataset:
    """The data set that a recipe trains on: read as [data] says, then made noisy as [noise] says (A-noise, B-fig5).

    Every launch comes by here, so ensemble and single runs of one recipe see the same noise.  Test rows stay as they
    are.  The digest covers noisy labels and pixels.

    Raises:
        DataError: see `load`; a file of human labels that does not fit.
    """
    dataset, noise = load(recipe.data, progress=progress), recipe.noise
    if noise.labels == "human" and recipe.data.classes is not None:
        raise DataError("noise.labels = 'human' goes by the class numbers of its file; leave data.classes out")
    images = noisy_images(dataset.images, dataset.n_train, dataset.maximum, noise, recipe.stream)
    labels = noisy_labels(dataset.labels, dataset.ids, dataset.n_train, dataset.n_classes, noise, recipe.stream)
    if images is dataset.images and labels is dataset.labels:
        return dataset
    return replace(
        dataset,
        images=images,
        labels=labels,
        found=None if labels is dataset.labels else dataset.labels,
        digest=digest_of(images, labels, dataset.ids, dataset.n_train),
    )
