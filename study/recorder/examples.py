"""Whose predictions are recorded.  in: ids, labels, split as a caller has them   out: checked arrays, rows of ids"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.errors import DataError


class Examples:
    """Ids, labels and split of all n examples, and the rows of ids that come in batches.

    ids: (n,) int64 or text, each once.  labels: (n,) int64, or None.  split: (n,) "train" or "test".
    """

    def __init__(self, ids: Any, labels: Any = None, n_classes: int | None = None, split: Any = None) -> None:
        self.ids = _checked_ids(ids)
        self.labels, self.n_classes = _checked_labels(labels, len(self.ids), n_classes)
        self.split = _checked_split(split, len(self.ids))
        self._consecutive = self.ids.dtype.kind == "i" and bool((self.ids == np.arange(self.n)).all())
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]
        self._on: dict[tuple[torch.device, str], Tensor] = {}
        self._unknown: list[Tensor] = []

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.ids)

    def arrays(self) -> dict[str, np.ndarray]:
        """As a folder keeps them."""
        labels = np.empty(0, dtype=np.int64) if self.labels is None else self.labels
        return {"ids": self.ids, "labels": labels, "split": self.split, "n_classes": np.array([self.n_classes])}

    def same_as(self, other: "Examples") -> bool:
        """Whether ids, labels, split and number of classes are the same."""
        pairs = zip(self.arrays().values(), other.arrays().values(), strict=True)
        return all(np.array_equal(one, another) for one, another in pairs)

    def rows(self, ids: Any) -> np.ndarray | Tensor:
        """(b,) rows of the ids of a batch; a tensor if the ids are one on another device than the CPU.

        Raises:
            DataError: an unknown id; of a tensor on another device, at the next `check`.
        """
        if isinstance(ids, Tensor) and ids.device.type != "cpu":
            return self._rows_on_device(ids.flatten())
        batch = _plain(ids)
        if self._consecutive and batch.dtype.kind in "iu":
            rows = batch.astype(np.int64)
            wrong = (rows < 0) | (rows >= self.n)
        else:
            places = np.searchsorted(self._sorted, batch.astype(self.ids.dtype)).clip(max=self.n - 1)
            rows, wrong = self._order[places], self._sorted[places] != batch
        if wrong.any():
            raise DataError(
                f"id {batch[wrong][0].item()!r} is not among the {self.n} ids that the recorder was made with"
            )
        return rows

    def labels_of(self, rows: Tensor) -> Tensor:
        """(b,) labels of rows, on their device."""
        if self.labels is None:
            raise DataError("logits need labels; pass them to the Recorder")
        return self._there(rows.device, "labels", self.labels)[rows]

    def check(self) -> None:
        """Wait for the ids that came on another device than the CPU.

        Raises:
            DataError: some were unknown.
        """
        unknown, self._unknown = self._unknown, []
        if any(bool(each) for each in unknown):
            raise DataError(f"ids on the device are not among the {self.n} ids that the recorder was made with")

    def _rows_on_device(self, ids: Tensor) -> Tensor:
        if self.ids.dtype.kind != "i":
            raise DataError("ids on a device are numbers, and the recorder's ids are text; pass text as a list")
        places = torch.searchsorted(self._there(ids.device, "sorted", self._sorted), ids.long()).clamp(max=self.n - 1)
        self._unknown.append((self._there(ids.device, "sorted", self._sorted)[places] != ids).any())
        return self._there(ids.device, "order", self._order)[places]

    def _there(self, device: torch.device, name: str, array: np.ndarray) -> Tensor:
        if (device, name) not in self._on:
            self._on[device, name] = torch.from_numpy(array).to(device)
        return self._on[device, name]


def _plain(values: Any) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.reshape(-1)


def _checked_ids(ids: Any) -> np.ndarray:
    if isinstance(ids, (int, np.integer)):
        return np.arange(int(ids))
    array = _plain(ids)
    if array.dtype.kind not in "iuUO" or not len(array):
        raise DataError("ids are integers or text, one for each example; pass a list, or the number of examples")
    array = array.astype(np.int64 if array.dtype.kind in "iu" else np.str_)
    values, counts = np.unique(array, return_counts=True)
    if counts.max() > 1:
        raise DataError(f"id {values[counts.argmax()].item()!r} is there {counts.max()} times; ids must be unique")
    return array


def _checked_labels(labels: Any, n: int, n_classes: int | None) -> tuple[np.ndarray | None, int]:
    if labels is None:
        return None, n_classes or 0
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"labels are {array.dtype} {array.shape}, not one class number per example; for several labels or numbers "
            "to predict record losses alone: no labels, and update(ids, loss=...)"
        )
    if len(array) != n:
        raise DataError(f"{len(array)} labels for {n} ids")
    n_classes = n_classes or int(array.max()) + 1
    if array.min() < 0 or array.max() >= n_classes:
        raise DataError(f"labels are {array.min()} to {array.max()}; they must lie in 0..{n_classes - 1} (n_classes)")
    return array.astype(np.int64), n_classes


def _checked_split(split: Any, n: int) -> np.ndarray:
    array = np.full(n, "train") if split is None else np.asarray(split).astype(np.str_)
    others = sorted(set(array.tolist()) - {"train", "test"})
    if array.shape != (n,) or others:
        instead = repr(others[0]) if others else f"{array.shape}"
        raise DataError(f"split is 'train' or 'test' for each of {n} examples, not {instead}")
    return array.astype("U5")
