"""Update rules on flat blocks of parameters, in place.  in: weights, gradient, rate   out: the weights, moved

One member's parameters are one row of the block, so an update is the same few passes over memory whether the block
holds one network or a stack.  Checked against torch.optim in tests.
"""

import torch
from torch import Tensor

from study.recipe import Optimizer


class SGD:
    """Stochastic gradient descent with momentum, Nesterov, L2 weight decay; as torch.optim.SGD defines them."""

    def __init__(self, optimizer: Optimizer, weights: Tensor) -> None:
        self.settings = optimizer
        self.velocity = torch.zeros_like(weights) if optimizer.momentum else None

    def step(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Move `weights` (float32 or float64) by one step; `gradient` may be of a lower precision."""
        settings = self.settings
        if settings.weight_decay:
            gradient = torch.add(gradient.to(weights.dtype), weights, alpha=settings.weight_decay)
        if self.velocity is None:
            weights.add_(gradient, alpha=-lr)
            return
        self.velocity.mul_(settings.momentum).add_(gradient)
        if settings.nesterov:
            weights.add_(gradient, alpha=-lr).add_(self.velocity, alpha=-lr * settings.momentum)
        else:
            weights.add_(self.velocity, alpha=-lr)


class Adam:
    """Adam with bias correction and L2 weight decay in the gradient; as torch.optim.Adam defines it."""

    def __init__(self, optimizer: Optimizer, weights: Tensor) -> None:
        self.settings = optimizer
        self.mean = torch.zeros_like(weights)
        self.square = torch.zeros_like(weights)
        self.taken = 0

    def step(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        """Move `weights` by one step."""
        settings = self.settings
        self.taken += 1
        gradient = gradient.to(weights.dtype)
        if settings.weight_decay:
            gradient = torch.add(gradient, weights, alpha=settings.weight_decay)
        self.mean.lerp_(gradient, 1 - settings.momentum)
        self.square.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        debias = 1 - settings.momentum**self.taken
        scale = (1 - settings.beta2**self.taken) ** 0.5
        weights.addcdiv_(self.mean, self.square.sqrt().div_(scale).add_(settings.eps), value=-lr / debias)


def update_rule(optimizer: Optimizer, weights: Tensor) -> SGD | Adam:
    """The update rule that the recipe names, with fresh state for these weights."""
    return {"sgd": SGD, "adam": Adam}[optimizer.name](optimizer, weights)
