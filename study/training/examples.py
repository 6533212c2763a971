"""The data set on the device, once.  in: a Dataset   out: normalized batches, augmented per example"""

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.data.augment import crop_flip
from study.recipe import Train

PREPARED_BYTES = 4 << 30  # up to here the normalized images are kept beside nothing else; above, batch by batch


class Examples:
    """All n examples: images as they came (uint8 or float32), labels, and the scaling that networks see."""

    def __init__(self, dataset: Dataset, train: Train, device: str, dtype: torch.dtype) -> None:
        self.n = len(dataset.labels)
        self.train = train
        self.dtype = dtype
        images = torch.from_numpy(np.require(dataset.images, requirements=["C", "W"]))
        self.labels = torch.from_numpy(np.require(dataset.labels, requirements=["C", "W"])).to(device)
        mean, deviation = channel_statistics(dataset) if train.normalize == "standard" else (0.0, 1.0)
        shape = (-1, 1, 1)
        self.scale = torch.as_tensor(1 / (dataset.maximum * deviation), dtype=torch.float32, device=device).reshape(
            shape
        )
        self.shift = torch.as_tensor(np.divide(mean, deviation), dtype=torch.float32, device=device).reshape(shape)
        self.images = images.to(device)
        bytes_prepared = self.images.numel() * torch.empty(0, dtype=dtype).element_size()
        if not self.augmented and bytes_prepared <= PREPARED_BYTES:
            self.images = torch.cat([self._normalize(block) for block in self.images.split(8192)])

    @property
    def augmented(self) -> bool:
        """Whether training batches are cropped or flipped."""
        return bool(self.train.pad or self.train.flip)

    def _normalize(self, images: Tensor) -> Tensor:
        if images.dtype == self.dtype and images.is_floating_point() and not self.augmented:
            return images
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        return images.to(exact).mul_(self.scale).sub_(self.shift).to(self.dtype)

    def batch(self, rows: Tensor, crop: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """The normalized images of `rows` (any shape), cropped and flipped as drawn: (*rows.shape, channels, h, w)."""
        images = self.images.index_select(0, rows.reshape(-1))
        if crop is not None:
            images = crop_flip(images, *crop, self.train.pad)
        return self._finish(images).reshape(*rows.shape, *images.shape[1:])

    def block(self, low: int, high: int) -> Tensor:
        """The normalized images low..high-1, in order: (high - low, channels, h, w)."""
        return self._finish(self.images[low:high])

    def _finish(self, images: Tensor) -> Tensor:
        ready = images.dtype == self.dtype and not self.augmented
        return images if ready else self._normalize(images)


def channel_statistics(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over the training split, in units of the maximum: two (channels,)."""
    images = dataset.images[: dataset.n_train]
    count = images.size // images.shape[1]
    total = np.zeros(images.shape[1])
    squares = np.zeros(images.shape[1])
    for low in range(0, len(images), 4096):
        block = images[low : low + 4096].astype(np.float64) / dataset.maximum
        total += block.sum(axis=(0, 2, 3))
        squares += np.square(block).sum(axis=(0, 2, 3))
    mean = total / count
    return mean, np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1e-8)
