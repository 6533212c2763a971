"""A look at networks between two steps.  in: a learner, all examples   out: what it says of each, the network itself"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from study.training.examples import Examples
from study.training.members import Outcome
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner

EVALUATE_ROWS = 2048
Learner = MLPLearner | ModuleLearner


@dataclass
class Look:
    """One network that trains alone, at one moment of its training.

    examples: all n, normalized as the network sees them, `examples.block(low, high)`, without augmentation.
    online: (n,) bool on the device, right in passing in the epoch that ends here, before the step on its batch; False
        where an example was not seen.  None unless `Hooks.online`.
    """

    learner: Learner
    examples: Examples
    online: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.learner.weights.device

    def outcome(self) -> Outcome:
        """Every example through the network."""
        return look(self.learner, self.examples)[0]

    def network(self) -> nn.Module:
        """The network in evaluation mode, with its present weights in the master precision; not to be changed."""
        return self.learner.module().eval()

    def logits(self) -> Tensor:
        """(n, c) of every example, in the master precision."""
        return torch.cat([self.learner.evaluate(block)[0].to(self.learner.weights.dtype) for block in self._blocks()])

    def features(self) -> np.ndarray:
        """(n, d) float32, the penultimate layer of every example."""
        return torch.cat([self.learner.evaluate(block, True)[1].float().cpu() for block in self._blocks()]).numpy()

    def _blocks(self) -> Iterator[Tensor]:
        edges = range(0, self.examples.n, EVALUATE_ROWS)
        return (self.examples.block(low, min(low + EVALUATE_ROWS, self.examples.n)) for low in edges)


@torch.no_grad()
def look(learner: Learner, examples: Examples) -> list[Outcome]:
    """Every example through the network(s), without augmentation; one Outcome per network of the stack."""
    shape = (learner.stack, examples.n)
    prediction = torch.empty(shape, dtype=torch.int16)
    confidence, top = torch.empty(shape), torch.empty(shape)
    for low in range(0, examples.n, EVALUATE_ROWS):
        high = min(low + EVALUATE_ROWS, examples.n)
        logits, _ = learner.evaluate(examples.block(low, high))
        p = torch.softmax(logits.to(learner.weights.dtype), dim=-1)
        best = p.max(dim=-1)
        own = p.gather(-1, examples.labels[low:high].expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        for kept, block in ((prediction, best.indices), (confidence, own), (top, best.values)):
            kept[:, low:high] = block
    arrays = (prediction.numpy(), confidence.numpy(), top.numpy())
    return [Outcome(*(array[index] for array in arrays)) for index in range(learner.stack)]
