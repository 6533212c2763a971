"""What networks say between two steps.  in: a learner, examples   out: predictions, an Outcome, a Snapshot"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from study.training.device_data import Examples
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.results import Outcome

EVALUATE_ROWS = 2048
Learner = MLPLearner | ModuleLearner
Measure = Callable[[Tensor, Tensor], Tensor]
"""Logits (..., b, c) in the master precision and labels (..., b) of a block, to a number of each example, (..., b)."""


@dataclass
class Predictions:
    """What a network says of some examples; on its device, so nothing waits.  With a leading K of a stack.

    prediction: (v,) int16.
    confidence, top_confidence: (v,) float32, softmax probability of the label, and the largest.
    measures: by name, (v,) in the master precision.
    """

    prediction: Tensor
    confidence: Tensor
    top_confidence: Tensor
    measures: dict[str, Tensor]

    def arrays(self) -> list[Tensor]:
        """Prediction, confidence and top confidence."""
        return [self.prediction, self.confidence, self.top_confidence]

    def outcome(self) -> Outcome:
        """On the host."""
        return Outcome(*(each.cpu().numpy() for each in self.arrays()))


@torch.no_grad()
def evaluate(
    learner: Learner,
    examples: Examples,
    rows: Tensor | None = None,
    measures: Mapping[str, Measure] | None = None,
    size: int = EVALUATE_ROWS,
) -> Predictions:
    """Put examples through a network or a stack, without augmentation.

    Args:
        learner: of one network, or of K.
        examples: all n.
        rows: (v,) of them; None for all.
        measures: formulas on the logits.
        size: examples at a time.
    """
    blocks = []
    count = examples.n if rows is None else len(rows)
    for low in range(0, count, size):
        high = min(low + size, count)
        if rows is None:
            images, labels = examples.block(low, high), examples.labels[low:high]
        else:
            images, labels = examples.batch(rows[low:high]), examples.labels[rows[low:high]]
        logits = learner.evaluate(images)[0].to(learner.weights.dtype)
        labels = labels.expand(logits.shape[:-1])
        p = torch.softmax(logits, dim=-1)
        top, best = p.max(dim=-1)
        of_label = p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        measured = (formula(logits, labels) for formula in (measures or {}).values())
        blocks.append([best.to(torch.int16), of_label.float(), top.float(), *measured])
    whole = [torch.cat(each, dim=-1) for each in zip(*blocks, strict=True)]
    return Predictions(*whole[:3], dict(zip(measures or {}, whole[3:], strict=True)))


def cross_entropy_of_each(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_L of each example."""
    return -torch.log_softmax(logits, dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def validate(learner: Learner, examples: Examples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy and mean cross-entropy on these rows, float64: one number, or (K,) of a stack."""
    predictions = evaluate(learner, examples, rows, {"loss": cross_entropy_of_each})
    right = (predictions.prediction == examples.labels[rows]).double().mean(dim=-1)
    return right, predictions.measures["loss"].double().mean(dim=-1)


@dataclass
class Snapshot:
    """One network that trains alone, at the end of an epoch or before the first.

    What `outcome`, `measure` and `features` compute is kept with the snapshot, so that no two readers of it pay for the
    same forward pass.

    examples: all n, normalized as the network sees them, `examples.block(low, high)`, without augmentation.
    online: (n,) bool on the device, right in the epoch that ends here before the step on its batch; False where an
        example was not seen.  None unless `Hooks.online`.
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
        self.measure({})
        return self._outcome

    def measure(self, measures: Mapping[str, Measure]) -> dict[str, np.ndarray]:
        """Numbers per example made of its logits, by name, (n,) float32 each; one pass for all of them and `outcome`.

        The logits themselves are not kept.
        """
        missing = {name: formula for name, formula in measures.items() if name not in self._measured}
        if missing or self._outcome is None:
            predictions = evaluate(self.learner, self.examples, None, missing)
            self._outcome = predictions.outcome()
            self._measured |= {name: each.float().cpu().numpy() for name, each in predictions.measures.items()}
        return {name: self._measured[name] for name in measures}

    def network(self) -> nn.Module:
        """The network in evaluation mode, with its present weights in the master precision; not to be changed."""
        return self.learner.module().eval()

    def logits(self) -> Tensor:
        """(n, c) of every example, in the master precision."""
        return torch.cat([self.learner.evaluate(block)[0].to(self.learner.weights.dtype) for block in self._blocks()])

    def features(self) -> np.ndarray:
        """(n, d) float32, the penultimate layer of every example; not to be changed."""
        if self._features is not None:
            return self._features
        low, features = 0, np.empty((0, 0), dtype=np.float32)
        for block in self._blocks():
            _, layer = self.learner.evaluate(block, True)
            assert layer is not None
            if not low:
                features = np.empty((self.examples.n, layer.shape[1]), dtype=np.float32)
            features[low : low + len(layer)] = layer.float().cpu().numpy()
            low += len(layer)
        self._features = features
        return features

    def _blocks(self) -> Iterator[Tensor]:
        edges = range(0, self.examples.n, EVALUATE_ROWS)
        return (self.examples.block(low, min(low + EVALUATE_ROWS, self.examples.n)) for low in edges)
