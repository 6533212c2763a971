"""Any timm network, one at a time.  in: a module   out: a learner with the same steps as the MLPs'

The parameters are views of one flat block, so the update is the house's own and moves all layers in a few passes.
Convolution weights lie channels last.  bfloat16 is torch's autocast over float32 weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.recipe import Optimizer
from study.training.optimizers import update_rule


class ModuleLearner:
    """One network as torch runs it: BatchNorm takes batch statistics in `step`, running ones in `evaluate`."""

    stack = 1

    def __init__(
        self, network: nn.Module, optimizer: Optimizer, device: str, master: torch.dtype, compute: torch.dtype
    ) -> None:
        self.network = network.to(device=device, dtype=master)
        self.compute = compute
        self.autocast = torch.autocast(
            torch.device(device).type, dtype=torch.bfloat16, enabled=compute == torch.bfloat16, cache_enabled=True
        )
        self.weights, self.gradient = _flat_block(self.network)
        self.update = update_rule(optimizer, self.weights)
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
        """One step on a batch; returns the mean cross-entropy before it."""
        self.network.train()
        self.gradient.zero_()
        logits = self._logits(images)
        loss = functional.cross_entropy(logits.to(self.master), labels)
        loss.backward()
        self.logits = logits.detach()
        self.update.step(self.weights, self.gradient, lr)
        return loss.detach()

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
    parameters = list(network.parameters())
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
