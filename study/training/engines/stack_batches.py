"""The batches of an epoch of a whole stack.  in: jobs, their orders   out: steps that read tensors alone"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from study.training.cuda_graphs import Captured
from study.training.device_data import Examples
from study.training.loop import epoch_order, epoch_rates
from study.training.mlp import MLPLearner
from study.training.regularizers import generators, perturbed
from study.training.types import Job


@dataclass(frozen=True)
class EpochDraw:
    """What an epoch takes from the random streams: order (n_subset,), crops in that order, a generator of noise."""

    order: Tensor
    crops: tuple[Tensor, ...]
    generator: torch.Generator | None


def draw_epoch(job: Job, epoch: int, device: torch.device) -> EpochDraw:
    """The draw of an epoch (0-based)."""
    order, *crops = epoch_order(job, epoch)
    noise = generators([job], epoch, device)
    small = tuple(torch.from_numpy(each.astype(np.uint8)) for each in crops)
    return EpochDraw(torch.from_numpy(order.astype(np.int32)), small, noise[0] if noise else None)


class StackBatches:
    """See `loop.Batches`.  All rows have the same edges but for the last, whose examples are counted per row.

    Args:
        learner: the stack, K rows.
        examples: all n.
        job: any of the stack's.
    """

    at_once = 1

    def __init__(self, learner: MLPLearner, examples: Examples, job: Job) -> None:
        self.learner, self.examples, self.training = learner, examples, job.training
        self.edges = job.training.edges(len(job.rows))
        self.size = job.training.batch_size or len(job.rows)
        self.batches, rows = len(self.edges) - 1, learner.stack
        longest = self.edges[-2] + self.size + 1  # a last example joins the batch before it
        zeros = {"device": learner.weights.device}
        self.orders = torch.zeros(rows, longest, dtype=torch.int32, **zeros)
        self.crops = [torch.zeros(rows, longest, dtype=torch.uint8, **zeros) for _ in range(3 * examples.augmented)]
        self.counts = torch.zeros(rows, self.batches, dtype=torch.int64, **zeros)
        self.rates = torch.zeros(rows, self.batches, dtype=torch.float64, **zeros)
        self.position = torch.zeros((), dtype=torch.int64, **zeros)
        self.total = torch.zeros(rows, dtype=learner.weights.dtype, **zeros)
        self.recorded: dict[tuple[int, bool], Captured] = {}
        self.generators: list[torch.Generator | None] = []
        self.settings = self._settings()

    def begin(self, epochs: Sequence[tuple[Job, int] | None], draws: Sequence[EpochDraw | None]) -> None:
        """Send what the epoch of each row reads, one copy for all rows; idle rows have no counts and rate 0."""
        counts, rates = np.zeros(self.counts.shape, dtype=np.int64), np.zeros(self.rates.shape)
        for row, epoch in enumerate(epochs):
            if epoch:
                of_row = epoch_rates(*epoch)
                steps = len(of_row)
                counts[row, :steps] = np.diff(epoch[0].training.edges(len(epoch[0].rows)))[:steps]
                rates[row, :steps] = of_row
        self.host_counts = counts
        self.steps = int(np.flatnonzero(counts.any(axis=0))[-1]) + 1
        last = counts[counts[:, -1] > 0, -1]
        self.last_width = int(last.max()) if len(last) else self.size
        self.last_differs = len(set(last.tolist())) > 1
        self._send(self.counts, torch.from_numpy(counts))
        self._send(self.rates, torch.from_numpy(rates))
        self._send(self.orders, self._padded([draw and draw.order for draw in draws]))
        for index, crop in enumerate(self.crops):
            self._send(crop, self._padded([draw and draw.crops[index] for draw in draws]))
        self.generators = [draw and draw.generator for draw in draws]
        self.position.zero_()
        self.total.zero_()

    def _padded(self, rows: Sequence[Tensor | None]) -> Tensor:
        """(K, longest); beyond its end a row repeats its last number, an example of its own."""
        kind = next(row.dtype for row in rows if row is not None)
        whole = torch.zeros(self.orders.shape, dtype=kind)
        for place, row in zip(whole, rows, strict=True):
            if row is not None:
                place[: len(row)] = row
                place[len(row) :] = row[-1]
        return whole

    def _send(self, there: Tensor, here: Tensor) -> None:
        """Copy from memory from which a GPU reads while the host goes on."""
        there.copy_(here.pin_memory() if there.is_cuda else here, non_blocking=True)

    def train(self, first: int, last: int) -> None:
        """Take one step of every row."""
        is_last = first == self.batches - 1
        way = (self.last_width, self.last_differs) if is_last else (self.size, False)
        if self.training.input_noise or self.training.input_dropout:
            self._step(*way, self.host_counts[:, first].tolist())  # a generator per row, which no graph can hold
            return
        if way not in self.recorded:
            used = [] if self.learner.used is self.learner.weights else [self.learner.used]
            state = [self.learner.weights, *used, *self.learner.update.tensors(), self.position, self.total]
            self.recorded[way] = Captured(lambda: self._step(*way), (), state)
        self.recorded[way]()

    def _step(self, width: int, counted: bool, sizes: Sequence[int] | None = None) -> tuple[()]:
        """One step of every row, read from tensors alone."""
        at = self.position * self.size + torch.arange(width, device=self.orders.device)
        rows = self.orders.index_select(1, at).long()
        crop = [each.index_select(1, at).reshape(-1) for each in self.crops]
        crop = (crop[0].long(), crop[1].long(), crop[2].bool()) if crop else None
        count, rate = (each.index_select(1, self.position.view(1)).squeeze(1) for each in (self.counts, self.rates))
        labels = self.examples.labels[rows]
        images = self.examples.batch(rows, crop)
        images = perturbed(images, labels, self.learner, self.training, self.generators, sizes)
        loss = self.learner.step(images, labels, rate, count if counted else None)
        self.total.add_(loss * count)
        self.position.add_(1).clamp_(max=self.batches - 1)  # runs before a recording stay inside
        return ()

    def mean_loss(self) -> Tensor:
        """(K,)."""
        return self.total / self.counts.sum(dim=1).clamp_(min=1)

    def counts_of(self, row: int) -> np.ndarray:
        """Examples of a row in each batch of the epoch."""
        return self.host_counts[row]

    def check_settings(self) -> None:
        """Record the steps anew where rows with settings of their own have changed: a recorded step holds them fast."""
        settings = self._settings()
        if settings != self.settings or len(settings) > 1:
            self.recorded.clear()
        self.settings = settings

    def _settings(self) -> set[str]:
        return {repr(replace(each, lr=0.0)) for each in self.learner.update.optimizers}
