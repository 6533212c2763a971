"""A data set.  in: arrays, files, data sets of other libraries   out: Dataset, checked and digested

Train rows come first, then test rows: one axis of n examples.  The digest says whether two runs have seen the same
examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from study.data import adapters
from study.data.checks import check, check_arrays, notes_on_classes, select
from study.data.digest import digest_of
from study.data.edits import Edit, decide, keep_only, with_unique_classes
from study.data.findings import same_pixels
from study.data.noise import noisy_images, noisy_labels
from study.data.raw import Raw
from study.data.readers.registry import read
from study.data.resize import fit
from study.data.types import REPLACED, Columns, DataSpec, NoiseSpec
from study.errors import DataError
from study.progress import Bar, bar
from study.random_streams import random_stream


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of one data set, train rows first; two data sets are the same when their digests are.

    >>> digits = Dataset.from_name("digits")
    >>> digits.n_train, digits.n_test, digits.shape, digits.n_classes
    (1438, 359, (1, 8, 8), 10)
    """

    name: str
    images: np.ndarray = field(repr=False)
    """(n, channels, height, width) uint8, or float32 where the source holds floats; features are (n, d, 1, 1)."""
    labels: np.ndarray = field(repr=False)
    """(n,) int64, 0..c-1: what is trained on."""
    ids: np.ndarray = field(repr=False)
    """(n,) str, unique and stable: `train/00012`, or the path of an image file below the root."""
    n_train: int
    classes: tuple[str, ...]
    maximum: float
    """The pixel value that counts as 1.0: 255 for most images, 16 for digits."""
    unusable: tuple[str, ...] = field(repr=False)
    """One line each: what lies in the source and is left out, and why."""
    digest: str
    """The first 16 hex digits of a sha256 over shape, dtype, pixels, labels, n_train and ids."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """One line each: how the source was understood, classes that are too small or that the test split lacks."""
    files: np.ndarray | None = field(default=None, repr=False)
    """(n,) str, absolute paths of the image files, or of those that features are of; None where there are none."""
    labels_before_noise: np.ndarray | None = field(default=None, repr=False)
    """(n,) int64, the labels as they were before label noise; None: there is none."""
    spec: DataSpec | None = field(default=None, repr=False)
    """How a recipe names the same examples; None where they came as arrays or from another library."""
    planted: np.ndarray | None = field(default=None, repr=False)
    """(n,) str, "foreign" or "random image" of images that were put in on purpose, else ""; None: there are none."""
    noise: NoiseSpec = field(default=NoiseSpec(), repr=False)
    """The noise that is in the examples, drawn with `noise_seed`."""
    noise_seed: int = field(default=0, repr=False)
    edits: tuple[Edit, ...] = field(default=(), repr=False)
    """Files of decisions and keep lists that have changed the data, in their order."""

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        test_images: Any = None,
        test_labels: Any = None,
        ids: ArrayLike | None = None,
        classes: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> Self:
        """Take numpy arrays or torch tensors.

        Args:
            images: (n_train, h, w), (n_train, h, w, c) or (n_train, c, h, w) with c 1 or 3, or a matrix of features
                (n_train, d), each a channel of one pixel.  uint8 counts from 0 to 255; floats from 0 to 1, or to their
                maximum where that is above 1.
            labels: (n_train,) whole numbers 0..c-1, or text, whose classes are then the sorted names.
            test_images: (n_test, ...) in the same form and dtype; test rows are held out by every ensemble member.
            test_labels: (n_test,).
            ids: (n_train + n_test,) unique names of the examples; `train/00012` unless given.
            classes: names of the labels 0..c-1; the numbers unless given.
            name: of the data set, in tables and in MLflow.

        Raises:
            DataError: shapes, dtypes, labels or ids that do not fit; one line that names the cure.

        >>> rng = np.random.default_rng(0)
        >>> Dataset.from_arrays(rng.random((6, 8, 8)), [0, 1, 0, 1, 0, 1]).shape
        (1, 8, 8)
        """
        raw = adapters.from_arrays(images, labels, test_images, test_labels, ids, classes, name)
        return cls.of_raw(raw, DataSpec(name))

    @classmethod
    def from_torch(cls, train: Any, test: Any = None, *, name: str | None = None) -> Self:
        """Take map-style torch Datasets that give (image, label).

        Args:
            train: has `__len__` and `__getitem__`; images are PIL images, tensors (c, h, w) or arrays (h, w, c), all of
                one size.  Its attribute `classes` names the classes.  Every item is read once, so transforms that draw
                random numbers are applied once.
            test: the same, for the test rows.
            name: of the data set; the class's name unless given.

        Raises:
            DataError: items of another form; labels or sizes that do not fit.

        >>> pairs = [(np.full((8, 8), value, np.uint8), value % 2) for value in range(6)]
        >>> Dataset.from_torch(pairs, name="pairs").labels
        array([0, 1, 0, 1, 0, 1])
        """
        name = name or type(train).__name__.lower()
        return cls.of_raw(adapters.from_torch(train, test, name), DataSpec(name))

    @classmethod
    def from_huggingface(
        cls,
        train: Any,
        test: Any = None,
        *,
        image: str | None = None,
        label: str | None = None,
        size: int | None = None,
        channels: int | None = None,
        name: str | None = None,
        progress: Bar = bar,
    ) -> Self:
        """Take Hugging Face's `datasets.Dataset` or `DatasetDict`.

        Args:
            train: a Dataset, or a DatasetDict with a split "train" and perhaps "test" or "validation"; the test split
                is held out, the validation split where there is none or the test split has no labels.
            test: a Dataset for the test rows.
            image: column of the images; a usual name ("image", "img", ...) unless given.
            label: column of the labels; a usual name ("label", "fine_label", ...) unless given.  A ClassLabel names the
                classes.
            size: every image is resized to size x size.
            channels: 1 or 3 to force gray or colour.
            name: of the data set; the builder's name unless given.
            progress: opens a display of the decoding; see `study.progress`.

        Raises:
            DataError: no such column; images or labels that do not fit.
        """
        train, test, name = adapters.huggingface_splits(train, test, label, name)
        raw = adapters.from_huggingface(train, test, image, label, size, channels, name, progress)
        return cls.of_raw(raw, DataSpec(name, size=size, channels=channels))

    @classmethod
    def from_folder(
        cls,
        path: str | PathLike[str],
        *,
        size: int | None = None,
        channels: int | None = None,
        limit: int | None = None,
        classes: Sequence[str] | None = None,
        name: str | None = None,
        progress: Bar = bar,
    ) -> Self:
        """Read image files, one folder per class: `path/train/cat/1.png` and `path/test/...`, or `path/cat/1.png`.

        Args:
            path: the folder.
            size: every image is resized to size x size; needed where sizes differ.
            channels: 1 or 3 to force gray or colour.
            limit: the first so many train images of each class.
            classes: names of the class folders that are kept.
            name: of the data set; "folder" unless given.
            progress: opens a display of the decoding; see `study.progress`.

        Raises:
            DataError: no class folders, an empty class, sizes that differ, too many unreadable files.
        """
        spec = DataSpec("folder", name, root=str(path), size=size, channels=channels, limit=limit)
        spec = replace(spec, classes=None if classes is None else tuple(classes))
        return cls.of_raw(read(spec, progress), spec, spec)

    @classmethod
    def from_csv(
        cls,
        path: str | PathLike[str],
        *,
        image: str | None = None,
        label: str | None = None,
        split: str | None = None,
        root: str | PathLike[str] | None = None,
        size: int | None = None,
        channels: int | None = None,
        name: str | None = None,
        progress: Bar = bar,
    ) -> Self:
        """Read a CSV file that names an image file and a label in each row.

        Args:
            path: the CSV file, with a header.
            image: column of the image files; a usual name (image, file, filename, path, ...) unless given.
            label: column of the labels, numbers or text; a usual name (label, class, ...) unless given.  Classes are
                the sorted values.
            split: column that says train, validation or test, in the usual words; the column "split" is taken where
                there is one.  The test rows are held out; validation rows where there are none, or without labels.
                Without the column every row is a train row.
            root: folder that the files' names start from; the CSV file's unless given.
            size: every image is resized to size x size; needed where sizes differ.
            channels: 1 or 3 to force gray or colour.
            name: of the data set; the file's name unless given.
            progress: opens a display of the decoding; see `study.progress`.

        Raises:
            DataError: no such file or column, an empty label, another word in the split column, unreadable images.
        """
        spec = DataSpec(
            "csv",
            name or Path(path).stem,
            root=None if root is None else str(root),
            train=str(path),
            size=size,
            channels=channels,
            columns=Columns(image, label, split),
        )
        return cls.of_raw(read(spec, progress), spec, spec)

    @classmethod
    def from_name(cls, name: str, *, progress: Bar = bar, **settings: Any) -> Self:
        """Open a data set by the name of its reader: "digits", "mnist", "cifar10", "npz", ...

        Args:
            name: see `study.list_datasets`.
            settings: what `DataSpec` takes, such as root="data", limit=100, size=32.
            progress: opens a display of the decoding; see `study.progress`.

        Raises:
            DataError: an unknown name or setting; files that are missing or damaged.
        """
        try:
            spec = DataSpec(name, **settings)
        except TypeError as error:
            raise DataError(f"data set {name!r}: {str(error).removeprefix('DataSpec.__init__() ')}") from None
        return cls.of_raw(read(spec, progress), spec, spec)

    @classmethod
    def of_raw(cls, raw: Raw, shape: DataSpec, spec: DataSpec | None = None) -> Self:
        """Check, select, shape and digest what a reader has read; `shape` says name, classes, limit, size, channels."""
        check_arrays(raw)
        raw = select(raw, shape.classes, shape.limit, shape.limit_test)
        check(raw)
        images = np.ascontiguousarray(fit(raw.images, shape.size, shape.channels))
        return cls(
            name=shape.title,
            images=images,
            labels=raw.labels,
            ids=raw.ids,
            n_train=raw.n_train,
            classes=raw.classes,
            maximum=raw.maximum,
            unusable=raw.unusable,
            notes=raw.notes + notes_on_classes(raw),
            files=raw.files,
            digest=digest_of(images, raw.labels, raw.ids, raw.n_train),
            spec=spec,
        )

    def with_noise(self, noise: NoiseSpec, *, seed: int = 0) -> "Dataset":
        """The same examples, made noisy in the training rows (A-noise, B-fig5); the digest covers the noise.

        Args:
            noise: which, how much.
            seed: of the noise; a recipe's noise is drawn with the recipe's seed.

        Raises:
            DataError: the examples are noisy already, or a file of human labels does not fit.

        >>> noisy = Dataset.from_name("digits").with_noise(NoiseSpec(labels="symmetric", share=0.4))
        >>> float((noisy.labels != noisy.clean_labels)[: noisy.n_train].mean().round(2))
        0.36
        """
        if self.noise != NoiseSpec():
            raise DataError(f"{self.name}: the examples are noisy already; start from the data set without noise")
        if noise.labels == "human" and self.spec is not None and self.spec.classes is not None:
            raise DataError("noise.labels = 'human' goes by the class numbers of its file; leave data.classes out")
        if noise.inputs != "none" and self.is_features:
            raise DataError(f"noise.inputs = {noise.inputs!r} is for images; features have no pixels, leave it out")
        stream = partial(random_stream, seed)
        images = noisy_images(self.images, self.n_train, self.maximum, noise, stream)
        if noise.labels == "unique":
            return with_unique_classes(replace(self, images=images, noise=noise, noise_seed=seed))
        labels = noisy_labels(self.labels, self.ids, self.n_train, self.n_classes, noise, stream, self.images)
        if images is self.images and labels is self.labels:
            return self
        replaced = None if images is self.images else (images != self.images).any(axis=(1, 2, 3))
        return replace(
            self,
            images=images,
            labels=labels,
            planted=self.planted if replaced is None else np.where(replaced, REPLACED, ""),
            labels_before_noise=None if labels is self.labels else self.labels,
            digest=digest_of(images, labels, self.ids, self.n_train),
            noise=noise,
            noise_seed=seed,
        )

    def with_decisions(self, path: str | PathLike[str]) -> "Dataset":
        """Relabel and drop examples as a person has decided in `suspects.csv` of a report of these data.

        Args:
            path: CSV with the columns `example`, `data_digest`, `decision` (keep, relabel, drop, or empty), and
                `new_label` or `suggested` for examples that are relabelled.

        Raises:
            DataError: a file of other data, unknown ids or labels, no decision; a split or class that is left empty.
        """
        changed = decide(self, Path(path))
        spec = self.spec and replace(self.spec, decisions=(*self.spec.decisions, str(path)))
        return replace(changed, spec=spec)

    def with_only(self, path: str | PathLike[str]) -> "Dataset":
        """Keep the training examples that a list names; test examples all stay.

        Args:
            path: CSV with the column `example`; a column `data_digest`, where there is one, is checked.

        Raises:
            DataError: a list of other data, unknown ids, test examples, no example; a class that is left empty.
        """
        changed = keep_only(self, Path(path))
        return replace(changed, spec=self.spec and replace(self.spec, keep=str(path)))

    @property
    def profile(self) -> dict[str, Any]:
        """What a run says of its data beside name, digest and size: classes, and what has changed the data."""
        edits = [edit.summary() for edit in self.edits]
        return {"classes": self.n_classes, **({"edits": edits} if edits else {})}

    @property
    def clean_labels(self) -> np.ndarray:
        """(n,) int64, the labels as they were before label noise; without noise, the labels."""
        return self.labels if self.labels_before_noise is None else self.labels_before_noise

    @property
    def label_columns(self) -> dict[str, np.ndarray]:
        """What every table of examples says of them: `label`, `clean_label` where there is label noise, `planted`."""
        columns = {"label": self.labels, "clean_label": self.labels_before_noise, "planted": self.planted}
        return {name: values for name, values in columns.items() if values is not None}

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
    def is_features(self) -> bool:
        """Whether an example is a row of numbers, (d, 1, 1), and no picture."""
        return self.shape[1:] == (1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @cached_property
    def train_duplicates(self) -> list[np.ndarray]:
        """Groups of training rows whose images have the same pixels; see `findings.same_pixels`."""
        return same_pixels(self.images[: self.n_train])

    def split(self) -> np.ndarray:
        """(n,) str, "train" or "test": the split column of every table."""
        return np.repeat(np.array(["train", "test"]), [self.n_train, self.n_test])

    def rows(self, split: Literal["train", "test"]) -> slice:
        """The rows of one split, as a slice into any per-example array."""
        return {"train": slice(0, self.n_train), "test": slice(self.n_train, self.n)}[split]
