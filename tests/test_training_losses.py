"""Losses: what they are, and the slopes that are written out by hand."""

import numpy as np
import pytest
import torch
from loops import hinge
from torch.nn import functional

from study.training.losses import LOSSES, cross_entropy, zero_hinge

REFERENCE = {"cross_entropy": functional.cross_entropy, "zero_hinge": hinge}


@pytest.mark.parametrize("name", LOSSES)
def test_the_slope_is_autograd_s(name):
    """MLPs and modules both start their backward pass from it."""
    logits = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    expected = REFERENCE[name](logits, labels)
    expected.backward()
    loss, gradient = LOSSES[name](logits.detach(), labels)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, logits.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_stack_has_the_losses_of_its_networks(name):
    """(K, b, c) is K batches, each with a mean of its own."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 5, (3, 8), generator=generator)
    losses, gradients = LOSSES[name](logits, labels)
    for row in range(3):
        loss, gradient = LOSSES[name](logits[row], labels[row])
        assert torch.equal(losses[row], loss)
        assert torch.equal(gradients[row], gradient)


def test_the_hinge_loss_by_hand():
    """Label 0 with logits 1, 3, 0: class 1 is 2 above it, class 2 below; the second example is right."""
    loss, gradient = zero_hinge(torch.tensor([[1.0, 3.0, 0.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 1]))
    assert float(loss) == 1.0
    np.testing.assert_array_equal(gradient, [[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])


def test_the_hinge_loss_lets_right_answers_be():
    """A.7: "zero gradient if the prediction is correct", however narrowly; the printed sign would push them down."""
    logits, labels = torch.tensor([[0.1, 0.0, -3.0], [9.0, 2.0, 8.9]]), torch.tensor([0, 0])
    loss, gradient = zero_hinge(logits, labels)
    assert float(loss) == 0
    assert not gradient.any()
    assert cross_entropy(logits, labels)[1].any()
