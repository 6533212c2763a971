"""Arrays of images in the package's layout.  in: numpy arrays or torch tensors   out: (n, channels, height, width)"""

from typing import Any

import numpy as np

from study.data.raw import shown
from study.errors import DataError


def as_numpy(array: Any) -> np.ndarray:
    """A numpy array of whatever holds numbers: an array, a torch tensor on any device, a list, a pandas column."""
    if hasattr(array, "detach"):  # a torch tensor; bfloat16 has no numpy type
        array = array.detach().cpu()
        return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    return np.asarray(array)


def planes(images: np.ndarray, where: object) -> np.ndarray:
    """Bring images to (n, channels, height, width); where both ends could be the channels, the last axis is.

    Args:
        images: (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3.
        where: the file, for messages.

    Raises:
        DataError: another shape.
    """
    if 0 in images.shape[1:]:
        raise DataError(f"{shown(where)}: images are {images.shape}, without a pixel; save (n, h, w)")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    raise DataError(
        f"{shown(where)}: images are {images.shape}; save (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels"
    )


def pixels(images: np.ndarray, where: object) -> np.ndarray:
    """Pixels as uint8, finite float32 or bool.

    Args:
        images: (n, channels, height, width); integers in 0..255, floats or bool.
        where: the file, for messages.

    Raises:
        DataError: integers outside 0..255, NaN or infinite values, another kind.
    """
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        bad = ~np.isfinite(images).all(axis=(1, 2, 3))
        if bad.any():
            raise DataError(
                f"{shown(where)}: {int(bad.sum())} images hold NaN or infinite pixels, first at index "
                f"{np.argmax(bad)}; replace the values or drop these images"
            )
        return images
    if images.dtype.kind in "iu" and images.dtype != np.uint8:
        if images.size and (images.min() < 0 or images.max() > 255):
            raise DataError(
                f"{shown(where)}: pixels are {images.dtype} from {images.min()} to {images.max()}; bring them to "
                "0..255 or save floats"
            )
        return images.astype(np.uint8)
    if images.dtype.kind not in "ub":
        raise DataError(f"{shown(where)}: pixels are {images.dtype}; save uint8 or floats")
    return images


def maximum(images: np.ndarray) -> float:
    """The pixel value that counts as 1.0: 255 for bytes, 1 for bool, for floats 1 or their maximum if that is larger.

    >>> maximum(np.array([0.5, 2.0], np.float32))
    2.0
    """
    if images.dtype == np.uint8:
        return 255.0
    if images.dtype == bool or not images.size:
        return 1.0
    return max(1.0, float(images.max()))
