"""What is kept of the logits of an epoch.  in: logits (b, c), labels (b,), rows (b,)   out: {statistic: (n,)}

NaN, and -1 for a class, stand for an example that was not seen.
"""

import numpy as np
import torch
from torch import Tensor

from study.signals.logit_statistics import NOW, SERIES

PREDICTED, LOGITS = "predicted", "logits"
STATISTICS = ("confidence", "top_confidence", "entropy", PREDICTED, *SERIES)
"""Kept of every epoch: 26 bytes per example."""
LATEST = tuple(NOW)
"""Kept of the last epoch alone."""
TYPES = {PREDICTED: torch.int16, LOGITS: torch.float16}
"""Others are float32."""


class EpochBuffers:
    """The statistics of one epoch, beside the logits that they come from."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._held: dict[str, Tensor] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was written."""
        return not self._held

    def write(self, rows: Tensor, values: dict[str, Tensor]) -> None:
        """Write values (b, ...) to rows (b,); what is there is replaced."""
        for name, value in values.items():
            if name not in self._held:
                kind = TYPES.get(name, torch.float32)
                shape, fill = (self.n, *value.shape[1:]), missing(name)
                self._held[name] = torch.full(shape, fill, dtype=kind, device=value.device)
            self._held[name].index_copy_(0, rows, value.to(self._held[name].dtype))

    def arrays(self) -> dict[str, np.ndarray]:
        """On the host, (n, ...) each."""
        return {name: each.cpu().numpy() for name, each in self._held.items()}


def missing(name: str) -> float:
    """What stands for an example that was not seen."""
    return -1 if name == PREDICTED else float("nan")


def present(array: np.ndarray, gap: float) -> np.ndarray:
    """Where an array has values; `gap` is what `missing` gives."""
    return ~np.isnan(array) if np.isnan(gap) else array != gap


@torch.no_grad()
def of_logits(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """All statistics of a batch, in float32, or in float64 where the logits are.

    Args:
        logits: (b, c), of any floating type.
        labels: (b,) int64.

    Returns:
        predicted: the class with the largest logit, the lowest of several.  confidence, top_confidence: the softmax
        probability of the label, and the largest.  entropy: of the softmax, in nats.  loss, margin, error_norm,
        output_margin_now, softmax_margin_now: see `study.signals.logit_statistics`.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    p = torch.softmax(logits, dim=1)
    top, predicted = p.max(dim=1)
    statistics = {
        "confidence": p.gather(1, labels.unsqueeze(1)).squeeze(1),
        "top_confidence": top,
        "entropy": torch.special.entr(p).sum(dim=1),
        PREDICTED: predicted,
    }
    return statistics | {name: formula(logits, labels) for name, formula in (SERIES | NOW).items()}
