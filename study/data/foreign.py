"""Images of another data set among the training examples.  in: a Dataset, a ForeignSpec   out: a Dataset with both

What a scrape or a faulty camera brings in.  The rows are marked in `Dataset.planted`, as are images that noise has
replaced, so that it can be measured which scores find them.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from study.data.digest import digest_of
from study.data.readers.registry import read
from study.data.types import FOREIGN, DataSpec, ForeignSpec
from study.errors import DataError
from study.progress import Bar, bar
from study.random_streams import random_stream

if TYPE_CHECKING:
    from study.data.dataset import Dataset


def with_foreign(dataset: "Dataset", foreign: ForeignSpec, *, seed: int = 0, progress: Bar = bar) -> "Dataset":
    """Read another data set and mix its images in.

    Args:
        dataset: n examples, with label noise where there is to be some.
        foreign: which data set, how many images.
        seed: of the draw.
        progress: opens a display of the decoding; see `study.progress`.

    Raises:
        DataError: the other data cannot be read, or do not fit these.

    >>> from study.data import Dataset
    >>> digits = Dataset.from_name("digits")
    >>> both = with_foreign(digits, ForeignSpec("digits", share=0.1))
    >>> both.n_train - digits.n_train, str(both.ids[1438])[:14], str(both.planted[1438])
    (144, 'foreign/digits', 'foreign')
    """
    spec = _reading(foreign, dataset)
    other = type(dataset).of_raw(read(spec, progress), spec, spec)
    joined = mixed(dataset, other, foreign.share, seed=seed)
    return replace(joined, spec=dataset.spec and replace(dataset.spec, foreign=foreign))


def _reading(foreign: ForeignSpec, dataset: "Dataset") -> DataSpec:
    """How the other data set is read: its images get the side and the channels of this one's.

    Raises:
        DataError: these images are not square, or no images.
    """
    channels, height, width = dataset.shape
    if dataset.is_features or height != width or channels not in (1, 3):
        raise DataError(f"data.foreign: {dataset.name} has no square images of 1 or 3 channels; leave it out")
    return DataSpec(foreign.name, root=foreign.root, train=foreign.train, size=height, channels=channels)


def mixed(dataset: "Dataset", other: "Dataset", share: float, *, seed: int = 0) -> "Dataset":
    """Put images of another data set behind the training examples, under labels drawn uniformly from all classes.

    Args:
        dataset: n examples.
        other: of the same shape; its training examples are drawn from, ids become `foreign/NAME/ID`.
        share: how many, for each training example.
        seed: of the draw.

    Raises:
        DataError: another shape, or too few images.
    """
    count = round(share * dataset.n_train)
    if other.shape != dataset.shape or count > other.n_train:
        raise DataError(
            f"data.foreign: {other.name} has {other.n_train} training images of shape {other.shape}, "
            f"{count} of {dataset.shape} are needed; lower data.foreign.share"
        )
    rng = random_stream(seed, "foreign", other.name)
    rows = np.sort(rng.choice(other.n_train, count, replace=False))
    values = other.images[rows].astype(np.float64) / other.maximum * dataset.maximum
    images = values.round().astype(dataset.images.dtype) if dataset.images.dtype.kind in "iu" else values
    place, labels = dataset.n_train, rng.integers(dataset.n_classes, size=count)
    ids = np.array([f"foreign/{other.name}/{name}" for name in other.ids[rows].tolist()], dtype=str)
    before, files = dataset.labels_before_noise, dataset.files

    def joined(of_dataset: np.ndarray, of_other: np.ndarray) -> np.ndarray:
        return np.concatenate([of_dataset[:place], of_other.astype(of_dataset.dtype), of_dataset[place:]])

    arrays = {"images": joined(dataset.images, images), "labels": joined(dataset.labels, labels)}
    all_ids = np.concatenate([dataset.ids[:place], ids, dataset.ids[place:]])
    n_train = place + count
    marks = np.full(dataset.n, "", dtype=object) if dataset.planted is None else dataset.planted.astype(object)
    return replace(
        dataset,
        **arrays,
        ids=all_ids,
        n_train=n_train,
        files=None if files is None else np.concatenate([files[:place], np.full(count, ""), files[place:]]),
        labels_before_noise=None if before is None else joined(before, labels),
        planted=np.concatenate([marks[:place], np.full(count, FOREIGN, dtype=object), marks[place:]]).astype(str),
        digest=digest_of(arrays["images"], arrays["labels"], all_ids, n_train),
    )
