"""The kernel of a stack's update, in Triton's interpreter: a GPU is not needed to see what it computes."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, fit, members
from toys import blobs, toy_recipe

from study.training import fused_sgd

pytest.importorskip("triton")
CHECK = """
import torch

from study.recipe import Optimizer
from study.training import fused_sgd as fused
from study.training.optimizers import update_rule

generator = torch.Generator().manual_seed(0)
for nesterov in (False, True):
    for kind in (torch.float32, torch.bfloat16):
        settings = Optimizer(momentum=0.9, weight_decay=1e-2, nesterov=nesterov)
        ours = torch.randn(3, 1500, generator=generator)
        theirs, velocity, used = ours.clone(), torch.zeros_like(ours), ours.to(kind)
        rule = update_rule(settings, theirs)
        for rates in torch.rand(4, 3, generator=generator, dtype=torch.float64):
            slopes = torch.randn(3, 1500, generator=generator).to(kind)
            rule.step(theirs, slopes, rates)
            copy = None if kind == torch.float32 else used
            fused.move(ours, velocity, slopes, copy, rates, momentum=0.9, decay=1e-2, nesterov=nesterov)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(velocity, rule.state["velocity"], rtol=1e-5, atol=1e-6)
        if copy is not None:  # the interpreter cuts off where a GPU rounds
            torch.testing.assert_close(used.float(), ours, rtol=2**-7, atol=0)
print("the same")
"""


def test_the_kernel_moves_a_stack_as_the_update_rule_does():
    """With and without Nesterov, float32 and bfloat16 slopes, rows that end inside a block, a rate of each row."""
    command = [sys.executable, "-c", CHECK]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr


def test_a_cpu_and_float64_keep_to_torch_s_operations():
    """The kernel is for the GPU's memory."""
    assert not fused_sgd.can_move(torch.zeros(2, 8))
    assert not fused_sgd.can_move(torch.zeros(2, 8, dtype=torch.float64))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_a_stack_hands_the_kernel_what_it_needs(precision, nesterov, monkeypatch):
    """The formula in torch's operations stands in for the kernel; the training is that without it."""
    calls = []

    def formula(weights, velocity, gradient, used, rates, *, momentum, decay, nesterov):
        calls.append(used)
        direction = gradient.to(weights.dtype) + decay * weights
        velocity.mul_(momentum).add_(direction)
        weights.sub_((direction + momentum * velocity if nesterov else velocity) * rates.to(weights.dtype).unsqueeze(1))
        if used is not None:
            used.copy_(weights)

    dataset = blobs()
    recipe = toy_recipe(optimizer={"nesterov": nesterov, "weight_decay": 1e-2}, schedule={"name": "triangular"})
    placement = replace(EXACT, precision=precision, stack=3)
    expected = list(fit(members(dataset), dataset, recipe, placement))
    monkeypatch.setattr(fused_sgd, "can_move", lambda weights: True)
    monkeypatch.setattr(fused_sgd, "move", formula)
    for one, other in zip(expected, fit(members(dataset), dataset, recipe, placement), strict=True):
        np.testing.assert_allclose(
            one.confidence, other.confidence, rtol=0, atol=1e-6 if precision == "float64" else 0.02
        )
    assert calls
    assert all((used is None) == (precision == "float64") for used in calls)
