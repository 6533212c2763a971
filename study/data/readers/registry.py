"""Which reader knows which name.  in: a recipe's [data] table   out: Raw"""

import difflib
from typing import Any

import numpy as np

from study.data.raw import Raw, numbered, shown
from study.data.readers.folder import read_folder
from study.data.readers.npz import read_npz
from study.data.readers.parquet import read_parquet
from study.data.readers.published import PUBLISHED, read_published
from study.errors import DataError
from study.progress import Bar

FILES = {"folder": read_folder, "npz": read_npz, "parquet": read_parquet}
NAMES = ("digits", *PUBLISHED, *FILES)
TEST_EVERY = 5  # every fifth of the digits is test


def read(data: Any, progress: Bar) -> Raw:
    """The examples as they lie in the source.

    Raises:
        DataError: an unknown name, or whatever the reader finds.
    """
    if data.name == "digits":
        return read_digits()
    if data.name in PUBLISHED:
        return read_published(data)
    if data.name in FILES:
        return FILES[data.name](data, progress)
    near = difflib.get_close_matches(data.name, NAMES, n=1)
    hint = f"did you mean {near[0]!r}" if near else f"there are {', '.join(NAMES)}"
    raise DataError(f"no data set is called {shown(data.name)!r}; {hint}")


def read_digits() -> Raw:
    """scikit-learn's 1797 digits, 8x8, 0..16; examples 4, 9, 14 ... are the test split, the same on every machine."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
    test = np.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1
    order = np.argsort(test, kind="stable")  # train rows first, each split in its own order
    n_train = int((~test).sum())
    return Raw(
        images=images[order],
        labels=labels[order],
        ids=np.array(numbered("train", n_train) + numbered("test", int(test.sum())), dtype=str),
        n_train=n_train,
        classes=tuple("0123456789"),
        train="digits (train)",
        test="digits (test)",
        maximum=16.0,
    )
