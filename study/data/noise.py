"""Labels and images made wrong on purpose.  in: arrays, NoiseSpec   out: arrays, noisy in the training rows

One order of the training rows is drawn; the first ones in it, as many as the share says, become noisy, each with what
was drawn for its place.  So the noise at 20 % is a part of the noise at 40 %, label by label and pixel by pixel.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from study.data.checks import check_range, whole_labels
from study.data.raw import first_line, shown
from study.data.readers.npz import UNREADABLE
from study.data.types import NoiseSpec
from study.errors import DataError

Streams = Callable[..., np.random.Generator]
DEVIATION = 0.1  # of the images' probabilities of a wrong label, Xia et al. 2020
BLOCK = 4096  # images at a time: their noise is drawn in float64


def noisy_labels(
    labels: np.ndarray,
    ids: np.ndarray,
    n_train: int,
    n_classes: int,
    noise: NoiseSpec,
    stream: Streams,
    images: np.ndarray | None = None,
) -> np.ndarray:
    """Labels with noise in the training rows.

    symmetric: drawn uniformly from all classes, so one in c of them stays right: at a share of .4 and ten classes, 36 %
        of the labels are wrong.  B-fig5 has "randomized (and fixed) 40% of the labels" and does not say whether the
        true one may come up; Zhang et al. 2017, whom the notes on Arpit build on, draw from all classes.
    asymmetric: class c becomes c + 1, the last one the first.
    instance: each image has a share of its own and classes that it is taken for, see `instance_labels`.
    human: what people have said, see `human_labels`.

    Args:
        labels: (n,) int64, train rows first.
        ids: (n,) str; their numbers find the rows of a file.
        n_train: number of train rows.
        n_classes: c.
        noise: which, how much.
        stream: `stream(*name)` gives the generator of that name; see `random_stream`.
        images: (n, channels, h, w), with "instance" alone.

    Returns:
        (n,) int64; the array itself without label noise.

    Raises:
        DataError: human labels that do not fit.
    """
    if noise.labels == "none":
        return labels
    noisy = labels.copy()
    if noise.labels == "human" and noise.file and noise.column:  # NoiseSpec has both
        noisy[:n_train] = human_labels(Path(noise.file), noise.column, labels[:n_train], ids[:n_train], n_classes)
        return noisy
    if noise.labels == "instance" and images is not None:
        noisy[:n_train] = instance_labels(images[:n_train], labels[:n_train], n_classes, noise.share, stream)
        return noisy
    rows = _chosen(n_train, noise.share, stream("noise", "labels", "rows"))
    if noise.labels == "asymmetric":
        noisy[rows] = (labels[rows] + 1) % n_classes
    else:
        noisy[rows] = stream("noise", "labels", "classes").integers(n_classes, size=n_train)[: len(rows)]
    return noisy


def noisy_images(images: np.ndarray, n_train: int, maximum: float, noise: NoiseSpec, stream: Streams) -> np.ndarray:
    """Images with noise instead of what was there in the training rows (A-noise).

    gaussian: each pixel drawn with the mean and the standard deviation of its channel over the training rows, rounded
        for integers and cut off at 0 and the maximum, which makes the deviation a little smaller.
    shuffled: the pixels of each image in an order of its own, channels kept together; Zhang et al. 2017 call this
        random pixels, and one order for all images shuffled pixels.

    Args:
        images: (n, channels, h, w) uint8 or float32, train rows first.
        n_train: number of train rows.
        maximum: the pixel value that counts as 1.0.
        noise: which, how much.
        stream: `stream(*name)` gives the generator of that name; see `random_stream`.

    Returns:
        (n, channels, h, w) of the same dtype; the array itself without noise on the inputs.
    """
    if noise.inputs == "none" or not noise.input_share:
        return images
    noisy = images.copy()
    rows = _chosen(n_train, noise.input_share, stream("noise", "inputs", "rows"))
    rng = stream("noise", "inputs", noise.inputs)
    mean, deviation = channel_statistics(images[:n_train])
    for low in range(0, len(rows), BLOCK):
        block = rows[low : low + BLOCK]
        if noise.inputs == "shuffled":
            flat = images[block].reshape(*images[block].shape[:2], -1)
            order = rng.random((len(block), 1, flat.shape[2])).argsort(axis=2)
            noisy[block] = np.take_along_axis(flat, order, axis=2).reshape(images[block].shape)
        else:
            drawn = rng.standard_normal(images[block].shape) * deviation[:, None, None] + mean[:, None, None]
            cut = drawn.clip(0, maximum)
            noisy[block] = cut.round() if images.dtype.kind in "iu" else cut
    return noisy


def instance_labels(
    images: np.ndarray, labels: np.ndarray, n_classes: int, share: float, stream: Streams
) -> np.ndarray:
    """Labels that go wrong as the image decides: some images more often than others, and for classes of their own.

    An image x of class y is wrong with a probability of its own, normal around `share` with deviation 0.1 and cut off
    at 0 and 1.  A wrong label is drawn from the softmax of x W_y over the other classes; the weights W_y of each
    class are standard normal.  The noise at one share is not a part of the noise at a larger one where the cuts differ.

    Args:
        images: (n, channels, h, w); each channel is brought to mean 0 and deviation 1 first.
        labels: (n,) int64.
        n_classes: c.
        share: mean of the probabilities.
        stream: see `noisy_labels`.

    Returns:
        (n,) int64.

    Source: Xia et al. 2020, "Part-dependent Label Noise", algorithm 2, as their code and others' after it do it.
    """
    from scipy.special import ndtr, ndtri, softmax  # half a second, which reading data does without

    draw = stream("noise", "labels", "instance")
    weights = draw.standard_normal((n_classes, images[0].size, n_classes)).astype(np.float32)
    low, high = ndtr(-share / DEVIATION), ndtr((1 - share) / DEVIATION)
    rates = share + DEVIATION * ndtri(low + (high - low) * draw.random(len(labels)))
    wrong, places = draw.random(len(labels)) < rates, draw.random(len(labels))
    mean, deviation = channel_statistics(images)
    noisy = labels.copy()
    for label in range(n_classes):
        rows = np.flatnonzero(wrong & (labels == label))
        values = (images[rows] - mean[:, None, None]) / np.maximum(deviation, 1e-12)[:, None, None]
        logits = values.reshape(len(rows), -1).astype(np.float32) @ weights[label]
        logits[:, label] = -np.inf
        edges = softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)
        noisy[rows] = (places[rows, None] * edges[:, -1:] >= edges).sum(axis=1)
    return noisy


def _chosen(n_train: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """The rows that become noisy, in the order in which a growing share takes them in."""
    return rng.permutation(n_train)[: round(share * n_train)]


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of (n, channels, h, w) images: two (channels,) float64."""
    count = images.size // images.shape[1]
    total, squares = np.zeros(images.shape[1]), np.zeros(images.shape[1])
    for low in range(0, len(images), BLOCK):
        block = images[low : low + BLOCK].astype(np.float64)
        total += block.sum(axis=(0, 2, 3))
        squares += np.square(block).sum(axis=(0, 2, 3))
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def human_labels(path: Path, column: str, labels: np.ndarray, ids: np.ndarray, n_classes: int) -> np.ndarray:
    """What people have called the training examples, such as CIFAR-10N's (Wei et al. 2022).

    Args:
        path: an .npz file; nothing is unpickled.
        column: its array, (rows of the whole training split,) whole numbers in the data set's order and numbering.
        labels: (n_train,), the data set's own, against which the order is checked.
        ids: (n_train,), whose numbers say which rows of the file go with a part of the data set (`data.limit`).
        n_classes: c.

    Returns:
        (n_train,) int64.

    Raises:
        DataError: no such file or column, another length, a label outside 0..c-1, or labels of which fewer than half
            agree with the data set's: they are in another order.
    """
    given = whole_labels(_column(path, column), f"{shown(path)}: {column}")
    rows = _numbers(ids)
    if len(given) < rows.max() + 1 or (len(given) != len(ids) and np.array_equal(rows, np.arange(len(ids)))):
        raise DataError(
            f"{shown(path)}: {column} holds {len(given)} labels for {len(ids)} training examples, the last of them "
            f"number {rows.max()}; a file of human labels has one for each example of the whole training split"
        )
    given = given[rows]
    check_range(given, [str(index) for index in range(n_classes)], f"{shown(path)}: {column}")
    agree = float((given == labels).mean())
    if agree < 0.5:
        raise DataError(
            f"{shown(path)}: only {agree:.0%} of {column} agree with the data set's labels; "
            "put them into the data set's order and numbering"
        )
    return given


def _column(path: Path, column: str) -> np.ndarray:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if column not in archive.files:
                raise DataError(
                    f"{shown(path)}: has no array {shown(column)!r}; noise.column may be {', '.join(archive.files)}"
                )
            return archive[column]
    except (*UNREADABLE, TypeError) as error:  # a plain array is no context manager
        raise DataError(
            f"{shown(path)}: cannot be read as .npz ({first_line(error)}); set noise.file to a file of human labels"
        ) from None


def _numbers(ids: np.ndarray) -> np.ndarray:
    """(n_train,) the number in each id, `train/00012`; without such numbers, the position."""
    numbers = [name.rpartition("/")[2] for name in ids.tolist()]
    numbered = all(name.startswith("train/") for name in ids.tolist()) and all(map(str.isdigit, numbers))
    return np.array([int(number) for number in numbers]) if numbered else np.arange(len(ids))
