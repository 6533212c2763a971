"""Images in the size and with the channels that are wanted.  in: arrays, files   out: arrays"""

import numpy as np
from PIL import Image

LUMA = (19595, 38470, 7471)  # ITU-R 601 in 1/65536, as Pillow's convert("L")


def fit(images: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Resize to size x size and repeat or mix channels; None leaves that as it is.

    Args:
        images: (n, channels, height, width) uint8 or float32.
        size: height and width wanted.
        channels: 1 (luma of the colours) or 3 (the grey values three times).

    Returns:
        (n, channels, size, size) of the same dtype; the array itself where nothing changes.
    """
    if channels == 1 and images.shape[1] == 3:
        images = _luma(images)
    if size is not None and images.shape[2:] != (size, size):
        images = _resized(images, size)
    return np.repeat(images, 3, axis=1) if channels == 3 and images.shape[1] == 1 else images


def _luma(images: np.ndarray) -> np.ndarray:
    """(n, 1, height, width): weighted sums over the colours, rounded for integers."""
    if images.dtype == np.uint8:
        red, green, blue = (weight * images[:, i].astype(np.uint32) for i, weight in enumerate(LUMA))
        return ((red + green + blue + 32768) >> 16).astype(np.uint8)[:, None]
    weights = np.array(LUMA, images.dtype) / 65536
    return np.einsum("nchw,c->nhw", images, weights)[:, None].astype(images.dtype)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """Plane by plane with Pillow's bilinear filter, which averages when it shrinks."""
    out = np.empty((*images.shape[:2], size, size), images.dtype)
    for position in np.ndindex(images.shape[:2]):
        plane = Image.fromarray(np.ascontiguousarray(images[position]))  # "L" for uint8, "F" for float32
        out[position] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
    return out


def thumbnail(file: str, side: int) -> np.ndarray | None:
    """An image file in colours and small, as it looks; None where there is none that can be read.

    Args:
        file: its path.
        side: pixels of the longer side, at most.

    Returns:
        (height, width, 3) uint8.
    """
    try:
        with Image.open(file) as image:
            image.thumbnail((side, side))
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
