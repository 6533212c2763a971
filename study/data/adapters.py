"""Arrays and other libraries' data sets.  in: arrays, torch Datasets, Hugging Face Datasets   out: Raw

torch and datasets are not imported: their objects are recognized by the attributes that are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study.data.arrays import as_numpy, maximum, pixels, planes
from study.data.checks import whole_labels
from study.data.raw import Raw, first_line, name_classes, numbered, shown
from study.data.readers.columns import image_column, label_column
from study.data.readers.decode import Source, bit_depth, eight_bits, plain_pixels
from study.data.readers.encoded import Pictures, gather
from study.data.readers.splits import choose, labels_hidden
from study.errors import DataError
from study.progress import Bar

BATCH = 2048


def from_arrays(
    images: Any,
    labels: Any,
    test_images: Any,
    test_labels: Any,
    ids: Any,
    classes: Sequence[str] | None,
    name: str,
) -> Raw:
    """See `Dataset.from_arrays`."""
    if (test_images is None) != (test_labels is None):
        raise DataError(f"{shown(name)}: test images and test labels go together; give both or none")
    train, test = _planes(images, f"{name} (train)"), None
    labels = np.atleast_1d(as_numpy(labels))
    n_train = len(train)
    if len(labels) != n_train:
        raise DataError(f"{shown(name)}: {n_train} images, but {len(labels)} labels; give one label per image")
    if test_images is not None:
        test = _planes(test_images, f"{name} (test)")
        test_labels = np.atleast_1d(as_numpy(test_labels))
        if len(test) != len(test_labels):
            raise DataError(f"{shown(name)} (test): {len(test)} images, but {len(test_labels)} labels; give as many")
    return assemble(name, train, labels, test, test_labels, ids=ids, classes=classes)


def assemble(
    name: str,
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    *,
    ids: Any = None,
    classes: Sequence[str] | None = None,
) -> Raw:
    """Join two splits of arrays.

    Args:
        name: of the data set, for messages.
        train: (n_train, channels, height, width), pixels as `arrays.pixels` gives them.
        labels: (n_train,) whole numbers or text.
        test: (n_test, channels, height, width).
        test_labels: (n_test,).
        ids: (n_train + n_test,), or None.
        classes: names of the labels 0..c-1, or None.

    Raises:
        DataError: splits of another size or dtype, labels or ids that do not fit.
    """
    images, all_labels = train, labels
    if test is not None and test_labels is not None:
        if (test.shape[1:], test.dtype) != (train.shape[1:], train.dtype):
            raise DataError(
                f"{shown(name)}: test images are {test.shape[1:]} {test.dtype}, train images {train.shape[1:]} "
                f"{train.dtype} (channels, height, width); bring both to one form"
            )
        if (labels.dtype.kind in "OUS") != (test_labels.dtype.kind in "OUS"):
            raise DataError(f"{shown(name)}: labels are text in one split and numbers in the other; use one kind")
        images, all_labels = np.concatenate([train, test]), np.concatenate([labels, test_labels])
    whole, names = _classes(all_labels, labels, classes, name)
    n_test = len(images) - len(train)
    return Raw(
        images=images.astype(np.uint8) if images.dtype == bool else images,
        labels=whole,
        ids=_ids(ids, len(train), n_test, name),
        n_train=len(train),
        classes=names,
        train=f"{name} (train)" if test is not None else name,
        test=f"{name} (test)" if test is not None else None,
        maximum=maximum(images),
    )


def _planes(images: Any, where: str) -> np.ndarray:
    """(n, channels, height, width); of a matrix (n, d) every feature is a channel of one pixel."""
    try:
        array = as_numpy(images)
    except ValueError as error:
        raise DataError(f"{shown(where)}: images do not form an array ({first_line(error)}); give (n, h, w)") from None
    if array.ndim == 2:
        return pixels(array[:, :, None, None], where)
    return pixels(planes(array, where), where)


def _classes(
    labels: np.ndarray, train_labels: np.ndarray, classes: Sequence[str] | None, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) int64 labels and the class names."""
    if labels.ndim == 1 and labels.dtype.kind in "OUS":
        if not all(isinstance(label, str) for label in labels.tolist()):
            raise DataError(f"{shown(name)}: labels are neither whole numbers nor text; drop examples without a label")
        names = tuple(classes) if classes is not None else tuple(sorted(set(train_labels.tolist())))
        position = {word: number for number, word in enumerate(names)}
        unknown = sorted(set(labels.tolist()) - set(names))
        if unknown:
            raise DataError(f"{shown(name)}: label {shown(unknown[0])!r} is not among the {len(names)} classes; add it")
        return np.array([position[word] for word in labels.tolist()], dtype=np.int64), names
    whole = whole_labels(labels, name)
    return whole, name_classes(whole, None if classes is None else [str(word) for word in classes], name)


def _ids(ids: Any, n_train: int, n_test: int, name: str) -> np.ndarray:
    if ids is None:
        return np.array(numbered("train", n_train) + (numbered("test", n_test) if n_test else []), dtype=str)
    texts = np.array([str(value) for value in np.asarray(ids).tolist()], dtype=str)
    if texts.shape != (n_train + n_test,):
        raise DataError(
            f"{shown(name)}: {len(texts)} ids for {n_train} train and {n_test} test examples; give one per example, "
            "train first"
        )
    return texts


def from_torch(train: Any, test: Any, name: str) -> Raw:
    """See `Dataset.from_torch`."""
    images, labels = _items(train, f"{name} (train)")
    names = _named_classes(train, labels)
    if test is None:
        (images,) = _as_bytes([images])
        return assemble(name, images, labels, classes=names)
    test_images, test_labels = _items(test, f"{name} (test)")
    images, test_images = _as_bytes([images, test_images])
    return assemble(name, images, labels, test_images, test_labels, classes=names)


def _as_bytes(splits: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Splits of 16-bit images as uint8, by the largest value in all of them; others stay as they are."""
    if any(images.dtype != np.uint16 for images in splits):
        return list(splits)
    bits = bit_depth(max(int(images.max()) for images in splits))
    return [eight_bits(images, bits) for images in splits]


def _named_classes(train: Any, labels: np.ndarray) -> list[str] | None:
    """The attribute `classes` where it names the labels; of a `Subset`, that of the data set beneath."""
    names = getattr(train, "classes", None)
    if names is None and hasattr(train, "indices") and hasattr(train, "dataset"):
        names = getattr(train.dataset, "classes", None)
    if not isinstance(names, (list, tuple)) or labels.dtype.kind not in "iu":
        return None
    return [str(name) for name in names]


def _items(source: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Read every (image, label): (n, channels, height, width) pixels and (n,) labels.

    Labels that lie in the attribute `targets` or `labels` are checked before the first image is decoded.
    """
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise DataError(
            f"{shown(where)}: a {type(source).__name__} has no length and no items; give a map-style torch Dataset, "
            "for a DataLoader its `dataset`"
        )
    for attribute in ("targets", "labels"):
        targets = getattr(source, attribute, None)
        if targets is not None and len(targets) == len(source) and as_numpy(targets).dtype.kind in "iuf":
            whole_labels(as_numpy(targets), where)
    images, labels = [], []
    for row in range(len(source)):
        image, label = _pair(source[row], row, where)
        if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise DataError(
                f"{shown(where)}: item {row} is {image.shape} {image.dtype}, item 0 {images[0].shape} "
                f"{images[0].dtype} (channels, height, width); give the data set a transform that resizes"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise DataError(f"{shown(where)}: the data set is empty")
    stacked = np.stack(images)
    return stacked if stacked.dtype == np.uint16 else pixels(stacked, where), np.array(labels)


def _pair(item: Any, row: int, where: str) -> tuple[np.ndarray, int | str]:
    """One item as (channels, height, width) and its label."""
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(f"{shown(where)}: item {row} is a {type(item).__name__}, not (image, label)")
    image, label = item[0], item[1]
    if not isinstance(label, str):
        label = as_numpy(label)
        if label.size != 1:
            raise DataError(f"{shown(where)}: the label of item {row} is {label.shape}, not one number")
        label = label.item()
    return _image(image, row, where), label


def _image(image: Any, row: int, where: str) -> np.ndarray:
    """(channels, height, width) of a PIL image, a tensor (c, h, w), an array (h, w, c), a gray one, or a vector."""
    if hasattr(image, "getexif"):  # a PIL image
        array = plain_pixels(image)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    array = as_numpy(image)
    if array.ndim == 1:
        return array[None, None]
    if hasattr(image, "detach") and array.ndim == 3 and array.shape[0] in (1, 3):
        return array
    return planes(array[None], f"{where}, item {row}")[0]


def huggingface_splits(train: Any, test: Any, label: str | None, name: str | None) -> tuple[Any, Any, str]:
    """The two splits and the name of a Dataset or a DatasetDict; a test split without labels is passed over.

    Raises:
        DataError: a DatasetDict without a train split, a streamed data set.
    """
    if isinstance(train, Mapping):
        splits = train
        split = choose(map(str, train), "the DatasetDict", lambda key: _labels_hidden(splits[key], label))
        if split.train is None:
            raise DataError(f"a DatasetDict needs a split 'train', this one has {', '.join(map(str, train))}")
        train = splits[split.train]
        test = splits[split.test] if test is None and split.test is not None else test
    for part in (train, test):
        if part is not None and not (hasattr(part, "column_names") and hasattr(part, "__len__")):
            kind = type(part).__name__
            raise DataError(f"a {kind} cannot be read as a whole; load the data set with streaming=False")
    return train, test, str(name or getattr(train.info, "dataset_name", None) or "huggingface")


def _labels_hidden(part: Any, label: str | None) -> bool:
    names = getattr(part, "column_names", ())  # what is no Dataset is refused later
    return bool(names) and labels_hidden(part[label_column(names, label, "the DatasetDict")][:])


def from_huggingface(
    train: Any,
    test: Any,
    image: str | None,
    label: str | None,
    size: int | None,
    channels: int | None,
    name: str,
    progress: Bar,
) -> Raw:
    """See `Dataset.from_huggingface`."""
    image, label = image_column(train.column_names, image, name), label_column(train.column_names, label, name)
    splits = [part for part in (train, test) if part is not None]
    labels = [_labels(part, label, name) for part in splits]
    names = getattr(train.features[label], "names", None)
    whole, classes = _classes(np.concatenate(labels), labels[0], names, name)
    cuts = np.split(whole, [len(labels[0])])
    if not hasattr(train.features[image], "decode"):  # not encoded images: arrays or nested lists
        arrays = [_planes(part.with_format("numpy")[:][image], name) for part in splits]
        return assemble(name, arrays[0], cuts[0], *(arrays[1:] and (arrays[1], cuts[1])), classes=classes)
    pictures = _pictures(train, "train", image, cuts[0], name)
    held_out = None if test is None else _pictures(test, "test", image, cuts[1], name)
    return gather(pictures, held_out, classes, (), size=size, channels=channels, progress=progress)


def _labels(part: Any, label: str, name: str) -> np.ndarray:
    values = part[label][:]
    if any(value is None for value in values):
        row = next(row for row, value in enumerate(values) if value is None)
        raise DataError(f"{shown(name)}: row {row} has no label; drop such rows")
    return np.array(values)


def _pictures(part: Any, split: str, image: str, labels: np.ndarray, name: str) -> Pictures:
    feature = part.features[image]
    encoded = part.cast_column(image, type(feature)(decode=False)).select_columns([image])

    def batches() -> Iterator[Sequence[Source]]:
        for start in range(0, len(encoded), BATCH):
            yield [_source(row) for row in encoded[start : start + BATCH][image]]

    where = f"{name} ({split})"
    rows = [f"{where} row {row}" for row in range(len(labels))]
    return Pictures(where, labels, numbered(split, len(labels)), rows, batches)


def _source(row: Any) -> Source:
    """The bytes of an encoded image, or its file."""
    if not row or (row.get("bytes") is None and not row.get("path")):
        return "no image in this row"
    return row["bytes"] if row["bytes"] is not None else Path(row["path"])
