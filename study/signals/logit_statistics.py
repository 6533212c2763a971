"""Statistics of the logits of each example at one checkpoint.  in: logits (b, c), labels (b,)   out: (b,)

An evaluation computes those that are wanted in its one forward pass; the logits are not kept.
"""

import torch
from torch import Tensor
from torch.nn import functional

from study.training.evaluation import Measure


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the label in nats, whatever loss the network is trained with."""
    return functional.softplus(_against(logits, labels).logsumexp(dim=-1))


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other one; below 0 where the prediction is wrong."""
    return -_against(logits, labels).amax(dim=-1)


def error_norm(logits: Tensor, labels: Tensor) -> Tensor:
    """Euclidean norm of p - y, softmax minus one-hot label: 0 to sqrt(2)."""
    against = _against(logits, labels)
    shares = torch.softmax(against, dim=-1)
    return torch.sigmoid(against.logsumexp(dim=-1)) * (1 + shares.square().sum(dim=-1)).sqrt()


def _against(logits: Tensor, labels: Tensor) -> Tensor:
    """(b, c) logits of the others minus the label's, -inf at the label.

    With s their log-sum-exp the loss is log(1 + e^s) and the error of the label 1 / (1 + e^-s): neither is 0 where the
    label's probability rounds to 1, nor infinite where it rounds to 0.
    """
    index = labels.unsqueeze(-1)
    return logits.scatter(-1, index, -torch.inf) - logits.gather(-1, index)


def output_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest logit minus the second largest, whatever the label."""
    first, second = logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


def softmax_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest probability minus the second largest, whatever the label: 0 to 1."""
    return output_margin(torch.softmax(logits, dim=-1), labels)


SERIES: dict[str, Measure] = {"loss": loss, "margin": margin, "error_norm": error_norm}
"""Kept for every epoch."""
NOW: dict[str, Measure] = {"output_margin_now": output_margin, "softmax_margin_now": softmax_margin}
"""Kept of the last evaluation alone."""
