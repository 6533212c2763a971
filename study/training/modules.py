"""Any timm network, one at a time.  in: a module   out: a learner with the same steps as the MLPs'

The trained parameters are views of one flat block, so one update moves all layers in a few passes; frozen ones
(`requires_grad` False) stay where they are.  Convolution weights lie as the images do.  bfloat16 is torch's autocast
over float32 weights.  Where many networks of a kind train one after the other, the steps are captured for the first and
every other is put in its place.
"""

import torch
from torch import Tensor, nn

from study.models.classifier import classifier_of
from study.training.cuda_graphs import Captured
from study.training.losses import LOSSES
from study.training.optimizers import update_rule
from study.training.types import OptimizerSpec

EVALUATE_ROWS = 128  # at a time on a CPU, whose cache holds them; 2,048 took ResNet-8 2.8 times longer
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class ModuleLearner:
    """One network as torch runs it: BatchNorm takes batch statistics in `step`, running ones in `evaluate`.

    Args:
        network: as `models.build.create` gives it.
        optimizer: see `update_rule`.
        device: where.
        master: precision of the weights.
        compute: of the products.
        loss: a key of LOSSES.
        layout: of images and convolution weights in memory, a key of FORMATS.
        captured: steps on batches of the first one's size are recorded once and replayed; not for networks that draw
            random numbers, nor where somebody else works with the network's gradients.
    """

    stack = 1
    steps_at_once = 1

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerSpec,
        device: str,
        master: torch.dtype,
        compute: torch.dtype,
        loss: str = "cross_entropy",
        *,
        layout: str = "channels_last",
        captured: bool = False,
    ) -> None:
        self.network = network.to(device=device, dtype=master)
        self.compute = compute
        self.autocast = torch.autocast(
            torch.device(device).type, dtype=torch.bfloat16, enabled=compute == torch.bfloat16, cache_enabled=True
        )
        self.format = FORMATS[layout]
        self.weights, self.gradient = _flat_block(self.network, self.format)
        self.update = update_rule(optimizer, self.weights)
        self.loss = LOSSES[loss]
        self.master = master
        self.captured = captured
        self.recorded: Captured | None = None
        self.penultimate: Tensor | None = None
        self.logits: Tensor | None = None  # of the last step's batch, before the step
        classifier_of(self.network).register_forward_pre_hook(self._keep)
        self.training_pass = False
        if self.weights.device.type == "cpu":
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.register_forward_hook(self._lay_out_gradient)

    def _keep(self, classifier: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.penultimate = inputs[0].flatten(1)

    def _lay_out_gradient(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Copy a gradient that comes as a slice of a concatenation's.

        A CPU's BatchNorm goes back from such a one by a far slower path: half of a step of the small Inception.  Passes
        that others make through the network, under torch.func, are left alone.
        """
        if self.training_pass and output.requires_grad:
            output.register_hook(lambda gradient: gradient.contiguous(memory_format=self.format))

    def _logits(self, images: Tensor) -> Tensor:
        self.training_pass = True
        with self.autocast:
            logits = self.network(images.to(self.master).contiguous(memory_format=self.format))
        self.training_pass = False
        return logits

    def step(self, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One step on a batch; returns the mean loss before it."""
        if self.captured and self.recorded is None:
            self.recorded = self._record(images, labels)
        if self.recorded is not None and images.shape == self.recorded.inputs[0].shape:
            loss, self.logits = self.recorded(images, labels, lr)
        else:
            loss, self.logits = self._step(images, labels, lr)
        return loss

    def _step(self, images: Tensor, labels: Tensor, lr: float | Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss and the logits, both before the step."""
        self.network.train()
        self.gradient.zero_()
        logits = self._logits(images)
        loss, gradient = self.loss(logits.detach().to(self.master), labels)
        logits.backward(gradient.to(logits.dtype))
        self.update.step(self.weights, self.gradient, lr)
        return loss, logits.detach()

    def _record(self, images: Tensor, labels: Tensor) -> Captured:
        self.update.on_device()
        inputs = (images.clone(), labels.clone(), torch.zeros((), dtype=torch.float64, device=images.device))
        state = [self.weights, *self.network.buffers(), *self.update.tensors()]
        return Captured(lambda: self._step(*inputs), inputs, state)

    def load(self, network: nn.Module) -> None:
        """Put another network of the same kind in the place of this one: its weights and buffers, no steps taken."""
        with torch.no_grad():
            for of in (nn.Module.parameters, nn.Module.buffers):
                for old, new in zip(of(self.network), of(network), strict=True):
                    old.copy_(new)
        self.update.reset(0)

    def input_gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the mean loss with respect to the images, of their shape.

        As in a step BatchNorm takes batch statistics and dropout draws; running statistics stay as they were.
        """
        self.network.train()
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        images = images.detach().requires_grad_()
        logits = self._logits(images)
        _, gradient = self.loss(logits.detach().to(self.master), labels)
        (gradient,) = torch.autograd.grad(logits, images, gradient.to(logits.dtype))
        for buffer, before in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(before)
        return gradient

    @torch.no_grad()
    def evaluate(self, images: Tensor, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """Logits (b, c), and the classifier's input (b, d) when asked for."""
        self.network.eval()
        rows = EVALUATE_ROWS if images.device.type == "cpu" else len(images)
        blocks = [(self._logits(block), self.penultimate) for block in images.split(rows)]
        logits, penultimate = (torch.cat(each) if len(each) > 1 else each[0] for each in zip(*blocks, strict=True))
        return logits, penultimate if features else None

    def module(self) -> nn.Module:
        """The network itself."""
        return self.network


def _flat_block(network: nn.Module, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Move the trained parameters and their gradients into two blocks, (p,) each, of which they become views."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() for parameter in parameters)
    weights = parameters[0].new_empty(size)
    gradient = torch.zeros_like(weights)
    low = 0
    for parameter in parameters:
        high = low + parameter.numel()
        weight, its_gradient = (_laid_out(block[low:high], parameter.shape, layout) for block in (weights, gradient))
        weight.copy_(parameter.data)
        parameter.data, parameter.grad = weight, its_gradient
        low = high
    return weights, gradient


def _laid_out(row: Tensor, shape: torch.Size, layout: torch.memory_format) -> Tensor:
    if len(shape) != 4 or layout == torch.contiguous_format:
        return row.view(shape)
    outputs, inputs, height, width = shape
    return row.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
