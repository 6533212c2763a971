"""The fingerprint of a data set.  in: arrays   out: 16 hex digits"""

import hashlib

import numpy as np


def digest_of(images: np.ndarray, labels: np.ndarray, ids: np.ndarray, n_train: int) -> str:
    """Hash shape, dtype, pixels, labels, n_train and ids: the same on every machine and for every path.

    Args:
        images: (n, channels, height, width).
        labels: (n,) integers.
        ids: (n,) str.
        n_train: number of train rows.

    Returns:
        The first 16 hex digits of the sha256.
    """
    sha = hashlib.sha256()
    kind = images.dtype.newbyteorder("<")
    sha.update(repr((images.shape, kind.str, int(n_train))).encode())
    for start in range(0, len(images), 4096):  # block by block: a data set may fill most of the memory
        sha.update(np.ascontiguousarray(images[start : start + 4096], dtype=kind).data)
    sha.update(np.ascontiguousarray(labels, dtype="<i8").data)
    for name in ids.tolist():
        encoded = name.encode("utf-8")
        sha.update(len(encoded).to_bytes(4, "little") + encoded)  # with its length: a|bc differs from ab|c
    return sha.hexdigest()[:16]
