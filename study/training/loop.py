"""One epoch.  in: batches of a network or of a stack   out: the mean loss, the networks moved"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from study.data.augment import draw_crop_flip
from study.errors import Stopped
from study.training.device_data import Examples
from study.training.evaluation import Learner
from study.training.regularizers import generators, perturbed
from study.training.results import AnyOf
from study.training.sampling import sampled_rows
from study.training.schedules import rate_factor
from study.training.types import Job


class Batches(Protocol):
    """The batches of one epoch and how they are trained on.

    edges: where they begin and end in the epoch's order.
    steps: batches of this epoch; the last epoch of a training may be cut short.
    at_once: steps that may be taken in one call.
    """

    edges: list[int]
    steps: int
    at_once: int

    def train(self, first: int, last: int) -> None:
        """Take the steps first..last-1."""
        ...

    def mean_loss(self) -> Tensor:
        """The mean over the examples of all steps taken, before the step on them: one number, or (K,) of a stack."""
        ...


def train_epoch(
    batches: Batches,
    stop: threading.Event | AnyOf,
    progress: Callable[[int], None],
    pauses: Sequence[int] = (),
    pause: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Train on all batches of an epoch.

    Args:
        batches: of a network or of a stack.
        stop: set to end after the step under way.
        progress: hears of the examples trained on.
        pauses: numbers of steps of this epoch, rising, after which `pause` is called with the number.
        pause: called between two steps.

    Raises:
        Stopped: `stop` was set.
    """
    first, waiting = 0, deque(pauses)
    while first < batches.steps:
        if stop.is_set():
            raise Stopped
        last = min(first + batches.at_once, *list(waiting)[:1], batches.steps)
        batches.train(first, last)
        progress(batches.edges[last] - batches.edges[first])
        first = last
        if waiting and last == waiting[0]:
            pause(waiting.popleft())
    return batches.mean_loss()


class SingleBatches:
    """The batches of a job that trains alone.

    Args:
        learner: its network.
        job: whose epoch.
        epoch: 0-based.
        examples: all n.
        online: (n,) bool, filled with what was right before the update; None to leave it.
    """

    def __init__(self, learner: Learner, job: Job, epoch: int, examples: Examples, online: Tensor | None) -> None:
        device = examples.labels.device
        self.learner, self.job, self.examples, self.online = learner, job, examples, online
        self.rows, *self.crops = (torch.from_numpy(each).to(device) for each in epoch_order(job, epoch))
        self.labels = examples.labels[self.rows]
        self.edges = job.training.edges(len(self.rows))
        self.rates = epoch_rates(job, epoch)
        self.steps = len(self.rates)
        self.generators = generators([job], epoch, device)
        plain = examples.prepared and not self.generators and not job.training.adversarial
        self.at_once = learner.steps_at_once if plain else 1
        self.total = torch.zeros((), dtype=learner.weights.dtype, device=device)

    def train(self, first: int, last: int) -> None:
        """Take the steps first..last-1."""
        low, high = self.edges[first], self.edges[last]
        rows, labels = self.rows[low:high], self.labels[low:high]
        if self.at_once > 1:
            starts = [edge - low for edge in self.edges[first : last + 1]]
            losses = self.learner.steps(self.examples.images, rows, labels, starts, self.rates[first:last])
            self.total.add_((losses * torch.tensor(np.diff(starts))).sum())
        else:
            images = self.examples.batch(rows, tuple(each[low:high] for each in self.crops) or None)
            images = perturbed(images, labels, self.learner, self.job.training, self.generators)
            self.total.add_(self.learner.step(images, labels, self.rates[first]), alpha=high - low)
        if self.online is not None:
            self.online[rows] = self.learner.logits.argmax(dim=-1) == labels

    def mean_loss(self) -> Tensor:
        """One number."""
        return self.total / self.edges[self.steps]


def epoch_order(job: Job, epoch: int) -> list[np.ndarray]:
    """The order of an epoch, (n_subset,) row numbers; where images are augmented dy, dx and mirrored after it.

    From the streams that the job alone draws from, so it is the same wherever the job trains.
    """
    if job.sampling is None:
        order = job.stream("order", epoch).permutation(job.rows)
    else:
        order = sampled_rows(job, job.sampling, epoch)
    pad, flip = job.training.pad, job.training.flip
    if not (pad or flip):
        return [order]
    return [order, *draw_crop_flip(len(order), pad, flip, job.stream("augment", epoch))]


def epoch_rates(job: Job, epoch: int) -> list[float]:
    """The learning rate of each step of an epoch (0-based)."""
    per_epoch = len(job.training.edges(len(job.rows))) - 1
    _, steps = job.training.length(len(job.rows))
    numbers = range(epoch * per_epoch, min((epoch + 1) * per_epoch, steps))
    return [job.optimizer.lr * rate_factor(job.schedule, number, steps, per_epoch) for number in numbers]
