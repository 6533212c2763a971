"""Losses on logits, with their gradients written out.  in: logits, labels   out: mean loss per network, its gradient

One definition for the MLPs' hand-written backward pass and for autograd, which takes up the gradient at the logits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Logits (..., b, c) in the master precision, labels (..., b), to the batch mean, (...), and its
gradient (..., b, c)."""


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """-log p_L, the softmax's surprise at the label, in nats."""
    log_p = torch.log_softmax(logits, dim=-1)
    target = labels.unsqueeze(-1)
    loss = log_p.gather(-1, target).mean(dim=(-2, -1)).neg_()
    gradient = log_p.exp_()
    gradient.scatter_add_(-1, target, gradient.new_full((), -1.0).expand(target.shape))
    return loss, gradient.mul_(1 / labels.shape[-1])


def zero_hinge(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The 0-Hinge loss, the sum over the other classes j of max(0, z_j - z_i), i being the label (B-hinge).

    Baldock et al. print max(0, z_i - z_j) in Sec. 3.3, which would punish right answers.  A.7 says that the loss "has
    zero gradient if the prediction is correct", so it is z_j - z_i.  Where two logits tie the gradient is 0.
    """
    target = labels.unsqueeze(-1)
    excess = logits - logits.gather(-1, target)
    loss = excess.clamp(min=0).sum(dim=-1).mean(dim=-1)
    gradient = (excess > 0).to(logits.dtype)
    gradient.scatter_(-1, target, -gradient.sum(dim=-1, keepdim=True))
    return loss, gradient.mul_(1 / labels.shape[-1])


def of_counted(loss: Loss, logits: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the first `counts` examples of each network's batch; the rest is padding, whose gradient is 0.

    Args:
        loss: of a whole batch.
        logits: (K, b, c).
        labels: (K, b).
        counts: (K,) integers, 0 to b; a network without examples has loss 0.

    Returns:
        (K,) means over the counted examples, (K, b, c) gradients of these.
    """
    each, gradient = loss(logits.unsqueeze(-2), labels.unsqueeze(-1))  # of batches of one example
    padding = torch.arange(labels.shape[-1], device=labels.device) >= counts.unsqueeze(-1)
    share = counts.clamp(min=1).to(logits.dtype).reciprocal_().unsqueeze(-1)
    gradient = gradient.squeeze(-2).mul_(share.unsqueeze(-1)).masked_fill_(padding.unsqueeze(-1), 0)
    return each.masked_fill_(padding, 0).mul_(share).sum(dim=-1), gradient


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "zero_hinge": zero_hinge}
