"""MLPs by the project's own kernel, one network on one core.  in: an MLP module   out: a learner that takes many steps

A whole run of steps is one call into C++, during which other threads run.  The weights live in the kernel, in the order
in which it goes through them; `weights` brings them to torch when somebody reads them.
"""

import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from study.kernels import native
from study.models.mlp import MLP
from study.training.mlp import MLPLearner
from study.training.types import OptimizerSpec

KINDS = {torch.bfloat16: 0, torch.float32: 1, torch.float64: 2}
LOSS_NUMBERS = {"cross_entropy": 0, "zero_hinge": 1}
STEPS = 32  # in one call: about 50 ms


def trains(optimizer: OptimizerSpec, compute: torch.dtype) -> bool:
    """Whether the kernel is there for this update rule and this precision."""
    library = native.library()
    if library is None or optimizer.name != "sgd":
        return False
    return compute in KINDS and (compute != torch.bfloat16 or bool(library.study_has_bfloat16()))


class NativeLearner(MLPLearner):
    """One MLP under stochastic gradient descent; what is read beside logits is torch's, as the MLPLearner's is.

    Args:
        network: without dropout.
        optimizer: sgd.
        master: float32, or float64 when `compute` is.
        compute: precision of images, activations and their gradients.
        batch: the largest that will come.
        loss: a key of LOSSES.

    Raises:
        MemoryError: too little for the kernel's copies of the weights.
    """

    steps_at_once = STEPS

    def __init__(
        self,
        network: MLP,
        optimizer: OptimizerSpec,
        master: torch.dtype,
        compute: torch.dtype,
        batch: int,
        loss: str = "cross_entropy",
    ) -> None:
        self.optimizer = optimizer
        self._handle = None
        super().__init__([network], optimizer, "cpu", master, compute, loss)
        self._loss = LOSS_NUMBERS[loss]
        self._library = native.library()
        widths = np.array([self.shapes[0][1], *(outputs for outputs, _ in self.shapes)], dtype=np.int64)
        self._classes = int(widths[-1])
        kind = KINDS[compute]
        self._handle = self._library.study_mlp_new(kind, len(self.shapes), widths.ctypes.data, batch)
        if not self._handle:
            raise MemoryError("too little memory for the weights of a network; set runtime.threads lower")
        weakref.finalize(self, self._library.study_mlp_free, self._handle)
        self._library.study_mlp_read(self._handle, self._weights.data_ptr())
        self._moved = False

    @property
    def weights(self) -> Tensor:
        """(p,) as they are now; not to be changed."""
        if self._handle and self._moved:
            self._library.study_mlp_write(self._handle, self._weights.data_ptr())
            if self.used is not self._weights:
                self.used.copy_(self._weights)
            self._moved = False
        return self._weights

    @weights.setter
    def weights(self, block: Tensor) -> None:
        self._weights = block

    def steps(
        self, images: Tensor, rows: Tensor | None, labels: Tensor, edges: Sequence[int], rates: Sequence[float]
    ) -> Tensor:
        """Several steps on end; leaves `logits` (b, c) of all examples in them, each before the step on it.

        Args:
            images: (n, channels, h, w) of the precision `compute`.
            rows: (b,) which of the images, batch by batch; None: the b images as they come.
            labels: (b,).
            edges: (steps + 1,) of the batches, from 0 to b.
            rates: (steps,) learning rates.

        Returns:
            (steps,) mean loss of each batch before the step on it.
        """
        images, labels = images.contiguous(), labels.contiguous()
        rows = rows if rows is None else rows.contiguous()
        numbers = np.ascontiguousarray(edges, dtype=np.int64), np.ascontiguousarray(rates, dtype=np.float64)
        losses = np.empty(len(rates))
        self.logits = torch.empty((len(labels), self._classes), dtype=self._weights.dtype)
        self._library.study_mlp_train(
            self._handle,
            images.data_ptr(),
            None if rows is None else rows.data_ptr(),
            labels.data_ptr(),
            *(each.ctypes.data for each in numbers),
            len(rates),
            self.optimizer.momentum,
            self.optimizer.weight_decay,
            self.optimizer.nesterov,
            self._loss,
            self.logits.data_ptr(),
            losses.ctypes.data,
        )
        self._moved = True
        return torch.from_numpy(losses)

    def step(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One step on a batch, (b, channels, h, w); returns the mean loss before it."""
        (loss,) = self.steps(images.to(self.compute), None, labels, (0, len(labels)), (lr,))
        return loss

    def evaluate(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits (b, c), in the master precision, and by torch the penultimate layer (b, d) when asked for."""
        if features:
            return super().evaluate(images, features)
        images = images.to(self.compute).contiguous()
        logits = torch.empty((len(images), self._classes), dtype=self._weights.dtype)
        self._library.study_mlp_answer(self._handle, images.data_ptr(), len(images), logits.data_ptr())
        native.count_flops(2 * len(images) * sum(outputs * inputs for outputs, inputs in self.shapes))
        return logits, None

    def _forward(self, images: Tensor) -> list[Tensor]:
        self.weights  # noqa: B018  brings `used` up to date
        return super()._forward(images)

    def reset(self, row: int, network: MLP | Tensor, optimizer: OptimizerSpec | None = None) -> None:
        """Put a new network in place of this one: its weights, no memory of steps."""
        self.optimizer = optimizer or self.optimizer
        super().reset(row, network, optimizer)
        self._library.study_mlp_read(self._handle, self._weights.data_ptr())
        self._moved = False
