"""The data set on the device, once.  in: a Dataset   out: normalized batches, augmented per example"""

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.data.augment import crop_flip
from study.data.noise import channel_statistics
from study.training.types import TrainSpec

PREPARED_BYTES = 4 << 30  # up to here images are normalized once and kept; above, batch by batch
BLOCK = 8192  # images that are normalized at a time
PREPARED_FLOATS = 256 << 20  # the same of floats on the host, where the normalized ones are a second copy


class Examples:
    """All n examples: images as they came (uint8 or float32), labels, and the scaling that networks see."""

    def __init__(self, dataset: Dataset, train: TrainSpec, device: str, dtype: torch.dtype) -> None:
        self.n = len(dataset.labels)
        self.train = train
        self.dtype = dtype
        images = torch.from_numpy(np.require(dataset.images, requirements=["C", "W"]))
        self.labels = torch.from_numpy(np.require(dataset.labels, requirements=["C", "W"])).to(device)
        mean, deviation = 0.0, 1.0  # in units of the maximum
        if train.normalize == "standard":
            statistics = channel_statistics(dataset.images[: dataset.n_train])
            mean, deviation = (value / dataset.maximum for value in statistics)
            deviation = np.maximum(deviation, 1e-8)
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32  # in which images are scaled
        self.scale, self.shift = (
            torch.as_tensor(value, dtype=self.exact, device=device).reshape(-1, 1, 1)
            for value in (1 / (dataset.maximum * deviation), np.divide(mean, deviation))
        )
        self.images = images.to(device)
        bytes_prepared = self.images.numel() * torch.empty(0, dtype=dtype).element_size()
        second_copy = images.is_floating_point() and self.images.device.type == "cpu"
        most = PREPARED_FLOATS if second_copy else PREPARED_BYTES
        self.prepared = not self.augmented and bytes_prepared <= most
        if self.prepared:
            prepared = torch.empty(self.images.shape, dtype=dtype, device=self.images.device)
            for low in range(0, self.n, BLOCK):
                prepared[low : low + BLOCK] = self._normalize(self.images[low : low + BLOCK])
            self.images = prepared

    @property
    def augmented(self) -> bool:
        """Whether training batches are cropped or flipped."""
        return bool(self.train.pad or self.train.flip)

    def _normalize(self, images: Tensor) -> Tensor:
        return images.to(self.exact, copy=True).mul_(self.scale).sub_(self.shift).to(self.dtype)

    def batch(self, rows: Tensor, crop: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """The normalized images of `rows` (any shape), cropped and flipped as drawn: (*rows.shape, channels, h, w)."""
        images = self.images.index_select(0, rows.reshape(-1))
        if crop is not None:
            images = crop_flip(images, *crop, self.train.pad)
        return (images if self.prepared else self._normalize(images)).reshape(*rows.shape, *images.shape[1:])

    def block(self, low: int, high: int) -> Tensor:
        """The normalized images low..high-1, in order: (high - low, channels, h, w)."""
        images = self.images[low:high]
        return images if self.prepared else self._normalize(images)
