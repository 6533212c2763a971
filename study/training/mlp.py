"""MLPs by hand, alone or stacked.  in: MLP modules   out: a learner that steps K of them as one computation

The forward and backward pass of linear layers and ReLU is written out, because that is what the ensemble spends its
time on: no graph is recorded, gradients go straight into one flat block, and one update moves all layers.  With K > 1
every product is a batched one; with K = 1 it is a plain one, which is faster on a CPU.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from study.models.mlp import MLP
from study.training.losses import LOSSES, of_counted
from study.training.optimizers import update_rule
from study.training.types import OptimizerSpec

EVEN = 64  # numbers to which a bfloat16 row of a stack is filled up, so that every row begins at 128 bytes


class MLPLearner:
    """K MLPs of one shape: parameters are rows of one (K, p) block, or one (p,) row when alone.

    Args:
        networks: K of them, without dropout.
        optimizer: of all, or one for each; see `update_rule`.
        device: where.
        master: precision of the weights that are updated.
        compute: precision of the products.
        loss: a key of LOSSES.
    """

    steps_at_once = 1  # that a plain training may take in one call of `steps`

    def __init__(
        self,
        networks: Sequence[MLP],
        optimizer: OptimizerSpec | Sequence[OptimizerSpec],
        device: str,
        master: torch.dtype,
        compute: torch.dtype,
        loss: str = "cross_entropy",
    ) -> None:
        self.stack = len(networks)
        self.template = networks[0]
        self.shapes = [tuple(layer.weight.shape) for layer in _layers(networks[0])]
        rows = [flat(network) for network in networks]
        if self.stack > 1 and compute == torch.bfloat16:
            rows = [functional.pad(row, (0, -len(row) % EVEN)) for row in rows]
        self.weights = (torch.stack(rows) if self.stack > 1 else rows[0]).to(device=device, dtype=master)
        self.compute = compute
        self.used = self.weights.to(compute) if compute != master else self.weights
        self.gradient = torch.zeros_like(self.used)
        self.loss = LOSSES[loss]
        self.update = update_rule(optimizer, self.weights)
        self.logits: Tensor | None = None  # of the last step's batch, before the step
        self._view_layers()

    def _view_layers(self) -> None:
        """Make the layers views of the blocks."""
        self.product = torch.bmm if self.stack > 1 else torch.mm
        self.layers = self._views(self.used)
        self.gradients = self._views(self.gradient)

    def _views(self, block: Tensor) -> list[tuple[Tensor, Tensor]]:
        views, low = [], 0
        lead = block.shape[:-1]
        for outputs, inputs in self.shapes:
            middle, high = low + outputs * inputs, low + outputs * inputs + outputs
            bias = block[..., middle:high]
            views.append((block[..., low:middle].view(*lead, outputs, inputs), bias.unsqueeze(-2) if lead else bias))
            low = high
        return views

    def _forward(self, images: Tensor) -> list[Tensor]:
        affine = torch.baddbmm if self.stack > 1 else torch.addmm
        hidden = [images.flatten(-3)]
        for weight, bias in self.layers[:-1]:
            hidden.append(affine(bias, hidden[-1], weight.mT).relu_())
        weight, bias = self.layers[-1]
        return [*hidden, affine(bias, hidden[-1], weight.mT)]

    def step(self, images: Tensor, labels: Tensor, lr: float | Tensor, counts: Tensor | None = None) -> Tensor:
        """One step on a batch; returns the mean loss before it, (K,), or one number when alone.

        Args:
            images: (K, b, channels, h, w), or without K when alone.
            labels: (K, b) or (b,).
            lr: learning rate of this step, of all or (K,).
            counts: (K,) examples of each network's batch, in a stack; those beyond are padding.
        """
        *hidden, self.logits = self._forward(images)
        logits = self.logits.to(self.weights.dtype)
        loss, gradient = self.loss(logits, labels) if counts is None else of_counted(self.loss, logits, labels, counts)
        gradient = gradient.to(self.compute)
        for index in reversed(range(len(self.layers))):
            weight_gradient, bias_gradient = self.gradients[index]
            self.product(gradient.mT, hidden[index], out=weight_gradient)
            torch.sum(gradient, dim=-2, keepdim=self.stack > 1, out=bias_gradient)
            if index:
                gradient = self._below(gradient, hidden, index)
        self.update.step(self.weights, self.gradient, lr, None if self.used is self.weights else self.used)
        return loss

    def _below(self, gradient: Tensor, hidden: Sequence[Tensor], index: int) -> Tensor:
        """The gradient at the output of the layer before `index`, through its ReLU."""
        gradient = self.product(gradient, self.layers[index][0])
        return torch.ops.aten.threshold_backward(gradient, hidden[index], 0)

    def input_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the mean loss with respect to the images, of their shape."""
        *hidden, logits = self._forward(images)
        _, gradient = self.loss(logits.to(self.weights.dtype), labels)
        gradient = gradient.to(self.compute)
        for index in reversed(range(1, len(self.layers))):
            gradient = self._below(gradient, hidden, index)
        return self.product(gradient, self.layers[0][0]).view(images.shape)

    def reset(self, row: int, network: MLP | Tensor, optimizer: OptimizerSpec | None = None) -> None:
        """Put a new network in a row of the stack: its weights, no memory of steps, and settings of its own if given.

        Args:
            row: which.
            network: or what `flat` makes of it.
            optimizer: of this row.

        Raises:
            ValueError: another update rule than the other rows have.
        """
        self.update.reset(row, optimizer)
        start = network if isinstance(network, Tensor) else flat(network)
        one = self.row(row)
        one.weights[: len(start)].copy_(start, non_blocking=True)
        if one.used is not one.weights:
            one.used.copy_(one.weights)

    def row(self, row: int) -> "MLPLearner":
        """One network of the stack, to be evaluated as if it had trained alone; it shares the weights."""
        if self.stack == 1:
            return self
        one = copy.copy(self)
        one.stack, one.weights, one.gradient = 1, self.weights[row], self.gradient[row]
        one.used = one.weights if self.used is self.weights else self.used[row]
        one._view_layers()
        return one

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows of the stack but these, two or more."""
        chosen = torch.tensor(rows, device=self.weights.device)
        self.stack, self.weights = len(rows), self.weights[chosen]
        self.used = self.weights.to(self.compute)
        self.gradient = torch.zeros_like(self.used)
        self.update.keep(chosen, self.weights)
        self._view_layers()

    def evaluate(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits (K, b, c), without K when alone, and the penultimate layer (b, d) when asked for."""
        if self.stack > 1:
            images = images.expand(self.stack, *images.shape)
        *hidden, logits = self._forward(images)
        return logits, hidden[-1] if features else None

    def module(self) -> MLP:
        """The network, when it trains alone, as a module that shares the weights."""
        network = self.template.to(self.weights.device, self.weights.dtype)
        for layer, (weight, bias) in zip(_layers(network), self._views(self.weights), strict=True):
            layer.weight.data, layer.bias.data = weight, bias
        return network


def _layers(network: MLP) -> list[torch.nn.Linear]:
    return [*network.blocks, network.classifier]


def flat(network: MLP) -> Tensor:
    """(p,), weights and biases layer by layer."""
    return torch.cat([torch.cat([layer.weight.flatten(), layer.bias]) for layer in _layers(network)]).detach()
