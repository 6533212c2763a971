"""MLPs by hand, alone or stacked.  in: MLP modules   out: a learner that steps K of them as one computation

The forward and backward pass of linear layers and ReLU is written out, because that is what the ensemble spends its
time on: no graph is recorded, gradients go straight into one flat block, and one update moves all layers.  With K > 1
every product is a batched one; with K = 1 it is a plain one, which is faster on a CPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from study.networks.mlp import MLP
from study.recipe import Optimizer
from study.training.optimizers import update_rule


class MLPLearner:
    """K MLPs of one shape: parameters are rows of one (K, p) block, or one (p,) row when alone."""

    def __init__(
        self, networks: Sequence[MLP], optimizer: Optimizer, device: str, master: torch.dtype, compute: torch.dtype
    ) -> None:
        self.stack = len(networks)
        self.template = networks[0]
        layers = [[*network.blocks, network.classifier] for network in networks]
        self.shapes = [tuple(layer.weight.shape) for layer in layers[0]]
        rows = [torch.cat([torch.cat([layer.weight.flatten(), layer.bias]) for layer in each]) for each in layers]
        block = torch.stack(rows).detach() if self.stack > 1 else rows[0].detach()
        self.weights = block.to(device=device, dtype=master)
        self.compute = compute
        self.used = self.weights.to(compute) if compute != master else self.weights
        self.gradient = torch.zeros_like(self.used)
        self.minus_one = self.weights.new_tensor(-1.0)
        self.update = update_rule(optimizer, self.weights)
        self.logits: Tensor | None = None  # of the last step's batch, before the step
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

    def step(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One step on a batch; returns the mean cross-entropy before it.

        Args:
            images: (K, b, channels, h, w), or without K when alone.
            labels: (K, b) or (b,).
            lr: learning rate of this step.
        """
        product = torch.bmm if self.stack > 1 else torch.mm
        *hidden, self.logits = self._forward(images)
        log_p = torch.log_softmax(self.logits.to(self.weights.dtype), dim=-1)
        target = labels.unsqueeze(-1)
        loss = log_p.gather(-1, target).mean(dim=(-2, -1)).neg_()
        slope = log_p.exp_()
        slope.scatter_add_(-1, target, self.minus_one.expand(target.shape))
        slope = slope.mul_(1 / labels.shape[-1]).to(self.compute)
        for index in reversed(range(len(self.layers))):
            weight_slope, bias_slope = self.gradients[index]
            product(slope.mT, hidden[index], out=weight_slope)
            torch.sum(slope, dim=-2, keepdim=self.stack > 1, out=bias_slope)
            if index:
                slope = product(slope, self.layers[index][0])
                slope = torch.ops.aten.threshold_backward(slope, hidden[index], 0)
        self.update.step(self.weights, self.gradient, lr)
        if self.used is not self.weights:
            self.used.copy_(self.weights)
        return loss

    def evaluate(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits (K, b, c), without K when alone, and the penultimate layer (b, d) when asked for."""
        if self.stack > 1:
            images = images.expand(self.stack, *images.shape)
        *hidden, logits = self._forward(images)
        return logits, hidden[-1] if features else None

    def module(self) -> MLP:
        """The network, when it trains alone, as a module that shares the weights."""
        network = self.template.to(self.weights.device, self.weights.dtype)
        for layer, (weight, bias) in zip([*network.blocks, network.classifier], self._views(self.weights), strict=True):
            layer.weight.data, layer.bias.data = weight, bias
        return network
