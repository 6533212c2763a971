"""Data sets as arrays in one canonical order.  in: a recipe's [data] table   out: Dataset

Train rows come first, then test rows: one axis of n examples.  A reader finds the images (`readers`), `checks` refuses
what cannot be trained on, and the digest says whether two runs have seen the same examples.
"""

from study.data.dataset import Dataset, load, open_data

__all__ = ["Dataset", "load", "open_data"]
