"""A look at a network between two steps.  in: a learner, all examples   out: what it says of each, the network"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from study.training.device_data import Examples
from study.training.job import Outcome
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner

EVALUATE_ROWS = 2048
Learner = MLPLearner | ModuleLearner
Measure = Callable[[Tensor, Tensor], Tensor]
"""Logits (b, c) in the master precision and labels (b,) of a block of examples, to a number of each, (b,)."""


@dataclass
class Snapshot:
    """One network that trains alone, at one moment of its training.

    What `outcome`, `measure` and `features` have found is kept for as long as the look is, so that no two readers of
    one moment pay for the same pass.

    examples: all n, normalized as the network sees them, `examples.block(low, high)`, without augmentation.
    online: (n,) bool on the device, right in passing in the epoch that ends here, before the step on its batch; False
        where an example was not seen.  None unless `Hooks.online`.
    """

    learner: Learner
    examples: Examples
    online: Tensor | None = None
    _outcome: Outcome | None = field(default=None, init=False, repr=False)
    _features: np.ndarray | None = field(default=None, init=False, repr=False)
    _measured: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.learner.weights.device

    def outcome(self) -> Outcome:
        """Every example through the network."""
        if self._outcome is None:
            self.measure({})
        return self._outcome

    def measure(self, measures: Mapping[str, Measure]) -> dict[str, np.ndarray]:
        """Numbers per example made of its logits, by name, (n,) float32 each; one pass for all of them and `outcome`.

        The logits themselves are not kept.
        """
        missing = {name: formula for name, formula in measures.items() if name not in self._measured}
        if missing or self._outcome is None:
            told, found = answers(self.learner, self.examples, missing, EVALUATE_ROWS)
            self._outcome = _read(told)
            self._measured |= {name: each.cpu().numpy() for name, each in found.items()}
        return {name: self._measured[name] for name in measures}

    def network(self) -> nn.Module:
        """The network in evaluation mode, with its present weights in the master precision; not to be changed."""
        return self.learner.module().eval()

    def logits(self) -> Tensor:
        """(n, c) of every example, in the master precision."""
        return torch.cat([self.learner.evaluate(block)[0].to(self.learner.weights.dtype) for block in self._blocks()])

    def features(self) -> np.ndarray:
        """(n, d) float32, the penultimate layer of every example; not to be changed."""
        if self._features is None:
            blocks = [self.learner.evaluate(block, True)[1].float().cpu() for block in self._blocks()]
            self._features = torch.cat(blocks).numpy()
        return self._features

    def _blocks(self) -> Iterator[Tensor]:
        edges = range(0, self.examples.n, EVALUATE_ROWS)
        return (self.examples.block(low, min(low + EVALUATE_ROWS, self.examples.n)) for low in edges)


def look(learner: Learner, examples: Examples) -> Outcome:
    """Every example through the network, without augmentation."""
    told, _ = answers(learner, examples, {}, EVALUATE_ROWS)
    return _read(told)


@torch.no_grad()
def answers(
    learner: Learner, examples: Examples, measures: Mapping[str, Measure], size: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What one network says of all examples, `size` of them at a time; on its device, so nothing waits.

    Returns:
        Prediction (n,) int16, confidence and top confidence (n,) float32; measures by name, (n,) float32.
    """
    blocks = []
    for low in range(0, examples.n, size):
        high = min(low + size, examples.n)
        labels = examples.labels[low:high]
        logits = learner.evaluate(examples.block(low, high))[0].to(learner.weights.dtype)
        p = torch.softmax(logits, dim=-1)
        top, best = p.max(dim=-1)
        own = p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        measured = (formula(logits, labels) for formula in measures.values())
        blocks.append([best.to(torch.int16), *(each.float() for each in (own, top, *measured))])
    found = [torch.cat(each) for each in zip(*blocks, strict=True)]
    return found[:3], dict(zip(measures, found[3:], strict=True))


def _read(told: Iterable[Tensor]) -> Outcome:
    return Outcome(*(each.cpu().numpy() for each in told))
