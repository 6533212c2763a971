"""Any timm network, one at a time.  in: a module   out: a learner with the same steps as the MLPs'

The trained parameters are views of one flat block, so the update is the house's own and moves all layers in a few
passes; frozen ones (`requires_grad` False) stay where they are.  Convolution weights lie channels last.  bfloat16 is
torch's autocast over float32 weights.
"""

import torch
from torch import Tensor, nn

from study.recipe import Optimizer
from study.training.losses import LOSSES
from study.training.optimizers import update_rule


class ModuleLearner:
    """One network as torch runs it: BatchNorm takes batch statistics in `step`, running ones in `evaluate`."""

    stack = 1

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        device: str,
        master: torch.dtype,
        compute: torch.dtype,
        loss: str = "cross_entropy",
    ) -> None:
        self.network = network.to(device=device, dtype=master)
        self.compute = compute
        self.autocast = torch.autocast(
            torch.device(device).type, dtype=torch.bfloat16, enabled=compute == torch.bfloat16, cache_enabled=True
        )
        self.weights, self.gradient = _flat_block(self.network)
        self.update = update_rule(optimizer, self.weights)
        self.loss = LOSSES[loss]
        self.master = master
        self.penultimate: Tensor | None = None
        self.logits: Tensor | None = None  # of the last step's batch, before the step
        self.network.get_classifier().register_forward_pre_hook(self._keep)

    def _keep(self, classifier: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.penultimate = inputs[0]

    def _logits(self, images: Tensor) -> Tensor:
        with self.autocast:
            return self.network(images.to(self.master).contiguous(memory_format=torch.channels_last))

    def step(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One step on a batch; returns the mean loss before it."""
        self.network.train()
        self.gradient.zero_()
        logits = self._logits(images)
        self.logits = logits.detach()
        loss, slope = self.loss(self.logits.to(self.master), labels)
        logits.backward(slope.to(logits.dtype))
        self.update.step(self.weights, self.gradient, lr)
        return loss

    def input_slope(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the mean loss with respect to the images, of their shape.

        As in a step BatchNorm takes batch statistics and dropout draws; running statistics stay as they were.
        """
        self.network.train()
        kept = [buffer.clone() for buffer in self.network.buffers()]
        images = images.detach().requires_grad_()
        logits = self._logits(images)
        _, slope = self.loss(logits.detach().to(self.master), labels)
        (found,) = torch.autograd.grad(logits, images, slope.to(logits.dtype))
        for buffer, before in zip(self.network.buffers(), kept, strict=True):
            buffer.copy_(before)
        return found

    @torch.no_grad()
    def evaluate(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits (b, c), and the classifier's input (b, d) when asked for."""
        self.network.eval()
        logits = self._logits(images)
        return logits, self.penultimate if features else None

    def module(self) -> nn.Module:
        """The network itself."""
        return self.network


def _flat_block(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Move the trained parameters and their gradients into two blocks, (p,) each, of which they become views."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() for parameter in parameters)
    weights = parameters[0].new_empty(size)
    gradient = torch.zeros_like(weights)
    low = 0
    for parameter in parameters:
        high = low + parameter.numel()
        own, slope = (_laid_out(block[low:high], parameter.shape) for block in (weights, gradient))
        own.copy_(parameter.data)
        parameter.data, parameter.grad = own, slope
        low = high
    return weights, gradient


def _laid_out(row: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return row.view(shape)
    outputs, inputs, height, width = shape
    return row.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
