"""Random crop and flip against a loop over the images."""

import numpy as np
import pytest
import torch
from torch.nn.functional import pad as pad_zeros

from study.data.augment import crop_flip, draw_crop_flip


def loop(images, dy, dx, mirrored, pad):
    """The plain way: pad, slice, flip, image by image."""
    height, width = images.shape[2:]
    out = []
    for i, image in enumerate(pad_zeros(images, (pad,) * 4)):
        crop = image[:, dy[i] : dy[i] + height, dx[i] : dx[i] + width]
        out.append(crop.flip(-1) if mirrored[i] else crop)
    return torch.stack(out)


def drawn(b, pad, flip=True, seed=0):
    """Draws as tensors."""
    return tuple(torch.from_numpy(draw) for draw in draw_crop_flip(b, pad, flip, np.random.default_rng(seed)))


def images_of(dtype, b=40, channels=3, height=9, width=7):
    return torch.randint(1, 256, (b, channels, height, width), generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_equals_the_loop_over_images(dtype, pad):
    images = images_of(dtype)
    draw = drawn(len(images), pad, seed=pad)
    ours = crop_flip(images, *draw, pad)
    assert ours.dtype == dtype
    assert torch.equal(ours, loop(images, *draw, pad))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_equals_the_loop_on_a_gpu():
    images = images_of(torch.uint8)
    draw = drawn(len(images), 4)
    ours = crop_flip(images.cuda(), *draw, 4)
    assert ours.is_cuda
    assert torch.equal(ours.cpu(), loop(images, *draw, 4))


def test_the_same_stream_draws_the_same():
    """A member that is trained again sees the same crops."""
    assert all(torch.equal(one, two) for one, two in zip(drawn(40, 4, seed=7), drawn(40, 4, seed=7), strict=True))


def test_global_randomness_is_left_alone():
    """A member's batch order must not depend on who else has drawn."""
    before = torch.get_rng_state()
    images = images_of(torch.uint8)
    crop_flip(images, *drawn(len(images), 4), 4)
    assert torch.equal(before, torch.get_rng_state())


def test_each_example_has_its_own_draw():
    """torchvision's transforms would give one crop to the whole batch."""
    dy, dx, mirrored = drawn(2000, 2)
    seen = {(y, x, m) for y, x, m in zip(dy.tolist(), dx.tolist(), mirrored.tolist(), strict=True)}
    assert len(seen) == 5 * 5 * 2


def test_draws_are_uniform():
    b = 50_000
    dy, dx, mirrored = drawn(b, 4)
    for draw, size in ((dy, 9), (dx, 9), (mirrored.long(), 2)):
        share = torch.bincount(draw, minlength=size) / b
        assert share.sub(1 / size).abs().max() < 5 * (1 / size / b) ** 0.5


def test_no_pad_and_no_flip_change_nothing():
    images = images_of(torch.float32)
    assert torch.equal(crop_flip(images, *drawn(len(images), 0, flip=False), 0), images)


def test_draws_fit_any_image_size():
    images = images_of(torch.uint8, b=3, channels=1, height=1, width=1)
    centre = torch.full((3,), 2)
    assert torch.equal(crop_flip(images, centre, centre, torch.ones(3, dtype=torch.bool), 2), images)


def test_input_is_not_changed():
    images = images_of(torch.uint8)
    copy = images.clone()
    crop_flip(images, *drawn(len(images), 4), 4)
    assert torch.equal(images, copy)
