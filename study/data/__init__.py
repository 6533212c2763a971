"""Data sets as arrays in one canonical order.  in: files, arrays, other libraries' data sets   out: Dataset

Train rows come first, then test rows: one axis of n examples.  A reader finds the images (`readers`), `checks` refuses
what cannot be trained on, and the digest says whether two runs have seen the same examples.
"""

from study.data.dataset import Dataset
from study.data.opening import load, open_data
from study.data.types import DataSpec, NoiseSpec

__all__ = ["DataSpec", "Dataset", "NoiseSpec", "load", "open_data"]
