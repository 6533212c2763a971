"""Noise on the inputs of a training batch (A-reg).  in: a batch, a learner, generators   out: the batch, perturbed

Training alone sees it, evaluations never do.  What is drawn comes from the job's own generator, so that a network in a
stack gets what it gets alone.  A generator lives on the device: a CPU and a GPU draw other numbers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from study.training.evaluation import Learner
from study.training.types import Job, TrainSpec


def generators(jobs: Sequence[Job], epoch: int, device: torch.device) -> list[torch.Generator]:
    """One generator per job for one epoch (0-based); none where the jobs draw no noise."""
    if not (jobs[0].training.input_noise or jobs[0].training.input_dropout):
        return []
    seeds = (int(job.stream("regularize", epoch).integers(2**63)) for job in jobs)
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def perturbed(
    images: Tensor,
    labels: Tensor,
    learner: Learner,
    train: TrainSpec,
    drawing: Sequence[torch.Generator | None],
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Apply input noise, input dropout and the adversarial step, in this order.

    input_noise: adds Gaussian noise of this SD to the normalized inputs; nothing is clipped.
    input_dropout: sets each input (of each channel) to 0 with this probability and divides those that stay by 1 minus
        it, as a dropout layer in front of the network would; the mean of an input is then that of evaluation.
    adversarial: one step of this length along the sign of the loss's gradient with respect to the inputs (the fast
        gradient sign method of Goodfellow et al. 2015), at the present weights.  The network trains on the perturbed
        batch alone; Goodfellow et al. mix its loss with that of the clean batch, half and half.

    Args:
        images: (K, b, channels, h, w), or without K when alone.
        labels: (K, b) or (b,).
        learner: whose loss the adversarial step climbs.
        train: strengths; 0 is off.
        drawing: the jobs' generators, see `generators`.
        sizes: (K,) of the batches in a stack, where shorter ones are padded to b; nothing is drawn for padding.

    Source: the notes on Arpit et al. 2017 (A-reg) name regularizers, dropout as the strongest, without settings.
    """
    if train.input_noise:
        images = images.add(_drawn(torch.randn, images, drawing, sizes), alpha=train.input_noise)
    if train.input_dropout:
        stays = _drawn(torch.rand, images, drawing, sizes, torch.float32) >= train.input_dropout
        images = images.mul(1 / (1 - train.input_dropout)).mul_(stays)
    if train.adversarial:
        images = images.add(learner.input_gradient(images, labels).sign_(), alpha=train.adversarial)
    return images


def _drawn(
    draw: Callable[..., Tensor],
    images: Tensor,
    drawing: Sequence[torch.Generator | None],
    sizes: Sequence[int] | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Random numbers of the batch's shape, drawn in float32, each network's from its own generator; 0 for padding."""
    if sizes is None:
        (generator,) = drawing
        return draw(images.shape, generator=generator, device=images.device).to(dtype or images.dtype)
    drawn = torch.zeros(images.shape, dtype=dtype or images.dtype, device=images.device)
    for row, generator, size in zip(drawn, drawing, sizes, strict=True):
        if size:
            row[:size] = draw((size, *images.shape[2:]), generator=generator, device=images.device)
    return drawn
