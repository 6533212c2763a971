"""Update rules on flat blocks of parameters, in place.  in: weights, gradient, rate   out: the weights, moved

One member's parameters are one row of the block, so an update is the same few passes over memory whether the block
holds one network or a stack.  Numbers that all rows share stay Python floats; where rows differ, as the trials of a
search do, they are a (K, 1) column.  Checked against torch.optim in tests.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from study.training import fused_sgd
from study.training.types import OptimizerSpec

Rate = float | Tensor
"""A number for all rows of a block, or (K, 1) float64, one for each."""


class Rule(ABC):
    """What the update rules share: the settings of each row, L2 weight decay in the gradient, fresh state for a row.

    Args:
        optimizers: one for the whole block, or one for each of its rows; they differ in numbers alone.
        weights: (p,), or (K, p) of a stack.

    Raises:
        ValueError: rows with different rules, or with and without Nesterov: they are no one computation.
    """

    def __init__(self, optimizers: Sequence[OptimizerSpec], weights: Tensor) -> None:
        self.optimizers = list(optimizers)
        self.weights = weights
        self.state: dict[str, Tensor] = {}
        self.taken: int | Tensor = 0  # steps; (K, 1) once rows have begun at different times
        self._settle()

    def _settle(self) -> None:
        kinds = {(optimizer.name, optimizer.name == "sgd" and optimizer.nesterov) for optimizer in self.optimizers}
        if len(kinds) > 1:
            raise ValueError(f"one stack, one update rule; these differ: {sorted(kinds)}")
        self.nesterov = kinds.pop()[1]
        self.momentum, self.beta2, self.eps, self.decay = (
            self._rows([getattr(optimizer, name) for optimizer in self.optimizers])
            for name in ("momentum", "beta2", "eps", "weight_decay")
        )

    def on_device(self) -> None:
        """Count steps in a tensor, for a step that is captured once and replayed; state that a step makes is made."""
        if not isinstance(self.taken, Tensor):
            shape = (len(self.weights), 1) if self.weights.dim() == 2 else ()
            self.taken = torch.full(shape, self.taken, dtype=torch.float64, device=self.weights.device)
        self._fresh(*self._kept())

    def tensors(self) -> list[Tensor]:
        """What a step changes beside the weights, once `on_device` was called."""
        return [self.taken, *self.state.values()]

    def keep(self, rows: Tensor, weights: Tensor) -> None:
        """Forget all rows but these; `weights` is the block that holds them now, (K, p)."""
        if len(self.optimizers) > 1:
            self.optimizers = [self.optimizers[row] for row in rows.tolist()]
        self.weights = weights
        self.state = {name: block[rows] for name, block in self.state.items()}
        if isinstance(self.taken, Tensor):
            self.taken = self.taken[rows]
        self._settle()

    @abstractmethod
    def _kept(self) -> tuple[str, ...]:
        """The names of the state that a step needs."""

    def _rows(self, values: Sequence[float]) -> Rate:
        if len(set(values)) == 1:
            return values[0]
        return torch.tensor(values, dtype=torch.float64, device=self.weights.device).unsqueeze(-1)

    def _fresh(self, *names: str) -> list[Tensor]:
        """State tensors of these names, of the block's shape, zeros at first."""
        for name in names:
            if name not in self.state:
                self.state[name] = torch.zeros_like(self.weights)
        return [self.state[name] for name in names]

    def _decayed(self, weights: Tensor, gradient: Tensor) -> Tensor:
        """The gradient in the weights' precision, with the gradient of weight_decay / 2 times the squared weights."""
        gradient = gradient.to(weights.dtype)
        if isinstance(self.decay, Tensor):
            return torch.addcmul(gradient, weights, self.decay.to(weights.dtype))
        return torch.add(gradient, weights, alpha=self.decay) if self.decay else gradient

    def _rate(self, lr: Rate) -> Rate:
        if not isinstance(lr, Tensor):
            return lr
        return lr.to(self.weights.device, torch.float64).reshape((-1, 1) if self.weights.dim() == 2 else ())

    def step(self, weights: Tensor, gradient: Tensor, lr: Rate, used: Tensor | None = None) -> None:
        """Move the block by one step.

        Args:
            weights: float32 or float64, the tensor of the constructor.
            gradient: of its shape; may be of a lower precision.
            lr: learning rate of this step, a number or (K,).
            used: of its shape, takes the new weights in a precision of its own.
        """
        self.taken += 1
        self._move(weights, gradient, self._rate(lr))
        if used is not None:
            used.copy_(weights)

    @abstractmethod
    def _move(self, weights: Tensor, gradient: Tensor, lr: Rate) -> None:
        """Move the weights in place, at a rate that `_rate` has shaped."""

    def reset(self, row: int, optimizer: OptimizerSpec | None = None) -> None:
        """Forget what one row has done, for a new network in its place; with `optimizer` it gets settings of its own.

        Raises:
            ValueError: another rule than the other rows have.
        """
        stacked = self.weights.dim() == 2
        if optimizer is not None:
            if len(self.optimizers) == 1 and stacked:
                self.optimizers *= len(self.weights)
            self.optimizers[row] = optimizer
            self._settle()
        for block in self.state.values():
            (block[row] if stacked else block).zero_()
        if not stacked:
            self.taken = self.taken.zero_() if isinstance(self.taken, Tensor) else 0
            return
        if not isinstance(self.taken, Tensor):
            self.taken = torch.full((len(self.weights), 1), self.taken, dtype=torch.float64, device=self.weights.device)
        self.taken[row] = 0


class SGD(Rule):
    """Stochastic gradient descent with momentum, Nesterov, L2 weight decay; as torch.optim.SGD defines them."""

    def step(self, weights: Tensor, gradient: Tensor, lr: Rate, used: Tensor | None = None) -> None:
        """Move the block by one step; a stack with a rate for each row takes one kernel where a GPU has it."""
        per_row = any(isinstance(value, Tensor) for value in (self.momentum, self.decay))
        if per_row or not isinstance(lr, Tensor) or "velocity" not in self.state or not fused_sgd.can_move(weights):
            super().step(weights, gradient, lr, used)
            return
        settings = {"momentum": self.momentum, "decay": self.decay, "nesterov": self.nesterov}
        fused_sgd.move(weights, self.state["velocity"], gradient, used, lr.reshape(-1), **settings)

    def _kept(self) -> tuple[str, ...]:
        return ("velocity",) if isinstance(self.momentum, Tensor) or self.momentum or self.state else ()

    def _move(self, weights: Tensor, gradient: Tensor, lr: Rate) -> None:
        if isinstance(self.decay, Tensor) or self.decay:
            gradient = self._decayed(weights, gradient)
        if not self._kept():
            _add(weights, gradient, lr)
            return
        (velocity,) = self._fresh(*self._kept())
        velocity.mul_(_cast(self.momentum, weights)).add_(gradient)
        if self.nesterov:
            _add(weights, gradient, lr)
            _add(weights, velocity, lr * self.momentum)
        else:
            _add(weights, velocity, lr)


class Adam(Rule):
    """Adam with bias correction and L2 weight decay in the gradient; as torch.optim.Adam defines it."""

    def _kept(self) -> tuple[str, ...]:
        return "mean", "square"

    def _move(self, weights: Tensor, gradient: Tensor, lr: Rate) -> None:
        gradient = self._decayed(weights, gradient)
        mean, square = self._fresh(*self._kept())
        mean.lerp_(gradient, _cast(1 - self.momentum, weights))
        if isinstance(self.beta2, Tensor):
            square.mul_(_cast(self.beta2, weights)).add_(gradient.square().mul_(_cast(1 - self.beta2, weights)))
        else:
            square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = (1 - self.beta2**self.taken) ** 0.5
        spread = square.sqrt().div_(_cast(scale, weights)).add_(_cast(self.eps, weights))
        _add_ratio(weights, mean, spread, lr / (1 - self.momentum**self.taken))


class AdaMax(Rule):
    """Adam scaled by the largest recent gradient, not the mean square; as torch.optim.Adamax defines it (Z-fig11).

    Kingma and Ba 2015, Sec. 7.1; eps is added to each gradient's size.
    """

    def _kept(self) -> tuple[str, ...]:
        return "mean", "largest"

    def _move(self, weights: Tensor, gradient: Tensor, lr: Rate) -> None:
        gradient = self._decayed(weights, gradient)
        mean, largest = self._fresh(*self._kept())
        mean.lerp_(gradient, _cast(1 - self.momentum, weights))
        sizes = gradient.abs().add_(_cast(self.eps, weights))
        torch.maximum(largest.mul_(_cast(self.beta2, weights)), sizes, out=largest)
        _add_ratio(weights, mean, largest, lr / (1 - self.momentum**self.taken))


class AdaGrad(Rule):
    """Rates that fall with the sum of the squared gradients; as torch.optim.Adagrad defines it (Z-fig11).

    Without rate decay or an initial sum; `momentum` and `beta2` play no part.
    """

    def _kept(self) -> tuple[str, ...]:
        return ("total",)

    def _move(self, weights: Tensor, gradient: Tensor, lr: Rate) -> None:
        gradient = self._decayed(weights, gradient)
        (total,) = self._fresh(*self._kept())
        total.addcmul_(gradient, gradient)
        _add_ratio(weights, gradient, total.sqrt().add_(_cast(self.eps, weights)), lr)


def _cast(value: Rate, block: Tensor) -> Rate:
    return value.to(block.dtype) if isinstance(value, Tensor) else value


def _add(weights: Tensor, direction: Tensor, rate: Rate) -> None:
    """Weights minus rate times direction, in place."""
    if isinstance(rate, Tensor):
        weights.addcmul_(direction.to(weights.dtype), _cast(rate, weights), value=-1)
    else:
        weights.add_(direction, alpha=-rate)


def _add_ratio(weights: Tensor, direction: Tensor, scale: Tensor, rate: Rate) -> None:
    """Weights minus rate times direction over scale, in place."""
    if isinstance(rate, Tensor):
        weights.addcdiv_(direction * _cast(rate, weights), scale, value=-1)
    else:
        weights.addcdiv_(direction, scale, value=-rate)


RULES: dict[str, type[Rule]] = {"sgd": SGD, "adam": Adam, "adamax": AdaMax, "adagrad": AdaGrad}


def update_rule(optimizers: OptimizerSpec | Sequence[OptimizerSpec], weights: Tensor) -> Rule:
    """The update rule of this name, with fresh state for these weights; settings for all rows or for each."""
    several = list(optimizers) if isinstance(optimizers, Sequence) else [optimizers]
    return RULES[several[0].name](several, weights)
