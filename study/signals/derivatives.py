"""Gradients of a frozen network.  in: a snapshot   out: gradients of the logits in inputs, in weights

All examples of a block at once, in blocks whose activations fit BUDGET.  In evaluation mode no example sees another, so
the gradient of a sum over examples holds the gradient of each.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from study.kernels.gradient_kde import Factor
from study.models.mlp import MLP, DropoutMLP
from study.signals.registry import Checkpoint

BUDGET = 2**29  # bytes of activations, or of per-example gradients, in one block
ROWS = 2048  # examples in a block at most
LogitGradients = Callable[[Tensor, Tensor], Tensor]
"""Logits (b, c) and labels (b,) to s gradients of functions of the logits (s, b, c), which are propagated back."""


class Frozen:
    """A network's present weights as constants: calling it records no gradient of them and leaves nothing behind."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.network: nn.Module = checkpoint.snapshot.network()
        self.examples = checkpoint.snapshot.examples
        self.progress = checkpoint.progress
        parameters = dict(self.network.named_parameters())
        self.trained = {name: weight.detach() for name, weight in parameters.items() if weight.requires_grad}
        self.constants = {name: weight.detach() for name, weight in parameters.items() if not weight.requires_grad}
        self.constants |= {name: buffer.detach() for name, buffer in self.network.named_buffers()}
        self.dtype = next(iter(parameters.values())).dtype
        self.device = next(iter(parameters.values())).device

    def __call__(self, images: Tensor) -> Tensor:
        """(b, channels, h, w) to (b, c) logits."""
        return functional_call(self.network, {**self.trained, **self.constants}, (images,))

    def layers(self) -> list[nn.Linear] | None:
        """The linear layers of a network that is nothing but these, with ReLU between; else None."""
        plain = type(self.network) in (MLP, DropoutMLP)  # dropout is off in evaluation mode
        return [*self.network.blocks, self.network.classifier] if plain else None

    def image_bytes(self) -> int:
        """Bytes that a backward pass keeps for one example, beside the weights."""
        weights = {each.untyped_storage().data_ptr() for each in (*self.trained.values(), *self.constants.values())}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        image = self.examples.block(0, 1).to(self.dtype).detach().clone().requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = self(image)
        return sum(kept.values()) + image.numel() * image.element_size() + logits.numel() * logits.element_size()

    def blocks(
        self, n: int, bytes_each: int, multiple: int = 1, share: float = 1.0, chosen: np.ndarray | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """The first n examples' rows and images in blocks of about BUDGET bytes; tells `progress` up to `share`.

        Or those of n chosen rows, with slices that count among these.
        """
        rows = max(1, min(ROWS, BUDGET // max(1, bytes_each)) // multiple) * multiple
        for low in range(0, n, rows):
            high = min(low + rows, n)
            if chosen is None:
                images = self.examples.block(low, high)
            else:
                images = self.examples.batch(torch.from_numpy(chosen[low:high]).to(self.device))
            yield slice(low, high), images.to(self.dtype).detach()
            if self.progress:
                self.progress(share * high / n)


def loss_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the cross-entropy of `labels` (b,) with respect to the logits: softmax less one-hot, (b, c).

    The label's entry is minus the sum of the others, so that a confidence of 1 - 1e-12 still has a gradient in float32.
    """
    index = labels.unsqueeze(1)
    others = torch.softmax(logits.detach(), dim=1).scatter(1, index, 0)
    return others.scatter(1, index, -others.sum(dim=1, keepdim=True))


def input_gradient(frozen: Frozen, images: Tensor, gradient_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (b, c), and the gradient (b, channels, h, w) of the sum over classes of gradient_of(logits) * logits."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = frozen(images)
        (gradient,) = torch.autograd.grad(logits, images, gradient_of(logits.detach()))
    return logits.detach(), gradient


def input_jacobian(frozen: Frozen, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (b, c) and the gradient of each with respect to its input, (b, c, d): c backward passes."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = frozen(images)
        classes = logits.shape[1]
        jacobian = images.new_empty(len(images), classes, images[0].numel())
        for index, total in enumerate(logits.sum(dim=0)):
            (gradient,) = torch.autograd.grad(total, images, retain_graph=index < classes - 1)
            jacobian[:, index] = gradient.flatten(1)
    return logits.detach(), jacobian


def mlp_factors(layers: list[nn.Linear], images: Tensor, gradient_of: Callable[[Tensor], Tensor]) -> list[Factor]:
    """Per-example gradients of gradient_of(logits) times logits with respect to an MLP's weights, layer by layer.

    Exact: the gradient of a layer with inputs a and output gradient d is d (a, 1)^T.
    """
    with torch.no_grad():
        hidden = [images.flatten(1)]
        for layer in layers[:-1]:
            hidden.append(torch.relu(layer(hidden[-1])))
        gradient = gradient_of(layers[-1](hidden[-1]))
        factors = []
        for inputs, layer in zip(reversed(hidden), reversed(layers), strict=True):
            factors.insert(0, Factor(inputs, gradient))
            gradient = (gradient @ layer.weight) * (inputs > 0)
    return factors


def per_example_gradients(
    frozen: Frozen, images: Tensor, labels: Tensor, logit_gradients: LogitGradients
) -> dict[str, Tensor]:
    """Gradients (b, s, *weight) of sum(gradient * logits) of each example, by the name of the weight, for any network.

    Args:
        frozen: the network; weights that are not trained have no gradient here.
        images: (b, channels, h, w).
        labels: (b,).
        logit_gradients: of one example at a time, s of them; the forward pass is made once for all.
    """

    def gradients(image: Tensor, label: Tensor) -> dict[str, Tensor]:
        def logits_of(weights: dict[str, Tensor]) -> Tensor:
            return functional_call(frozen.network, {**weights, **frozen.constants}, (image.unsqueeze(0),))

        logits, pull = vjp(logits_of, frozen.trained)
        return vmap(lambda gradient: pull(gradient)[0])(logit_gradients(logits, label.unsqueeze(0)))

    return vmap(gradients)(images, labels)


def weight_bytes(frozen: Frozen) -> int:
    """Bytes of one example's gradient with respect to all trained weights."""
    return sum(weight.numel() * weight.element_size() for weight in frozen.trained.values())
