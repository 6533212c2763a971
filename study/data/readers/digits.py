"""scikit-learn's digits.  in: DataSpec   out: Raw

The file is read from the installed package: importing scikit-learn would take longer than a small study's networks.
"""

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.data.raw import Raw, numbered
from study.data.types import DataSpec
from study.progress import Bar

FILE = "datasets/data/digits.csv.gz"
TEST_EVERY = 5  # every fifth is test


def read_digits(data: DataSpec, progress: Bar) -> Raw:
    """scikit-learn's 1797 digits, 8x8, 0..16; examples 4, 9, 14 ... are the test split, the same on every machine."""
    images, labels = _images_and_labels()
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


def _images_and_labels() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(1797, 1, 8, 8) and (1797,), as `sklearn.datasets.load_digits` gives them."""
    package = importlib.util.find_spec("sklearn")
    file = Path(*(package.submodule_search_locations or ()) if package else ()) / FILE
    if file.is_file():
        with gzip.open(file, "rt") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.int64)
        return rows[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), rows[:, -1].copy()
    from sklearn.datasets import load_digits  # of a version that keeps the file elsewhere

    digits: Any = load_digits()
    return digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
