"""The files of MNIST and its kin, plain or gzipped, without torchvision's import.  in: a file   out: uint8 array"""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from study.data.raw import first_line, shown
from study.errors import DataError

BYTES_ALLOWED = 2**32  # a header may lie


def find_idx(path: Path) -> Path | None:
    """The file itself, else its gzipped form, else None."""
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Unsigned bytes of the shape that the header says.

    Args:
        path: an idx file: 0, 0, 8, number of axes, then each axis' length as four bytes, then the values.
        ndim: axes expected: 3 for images, 1 for labels.

    Raises:
        DataError: another header, or a file that is longer or shorter than its header says.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim or header[:4] != bytes((0, 0, 8, ndim)):
                raise ValueError(f"not an idx file of bytes with {ndim} axes")
            shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
            if prod(shape) > BYTES_ALLOWED:
                raise ValueError(f"its header says {shape}")
            values = np.frombuffer(bytearray(file.read(prod(shape) + 1)), np.uint8)
    except (OSError, ValueError, EOFError, MemoryError, zlib.error) as error:
        raise DataError(f"{shown(path)}: {first_line(error)}; {_CURE}") from None
    if len(values) != prod(shape):
        much = "longer" if len(values) > prod(shape) else "shorter"
        raise DataError(f"{shown(path)}: {much} than the {prod(shape)} values that its header says; {_CURE}")
    return values.reshape(shape)


_CURE = "remove it and let it be downloaded again"
