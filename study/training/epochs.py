"""One pass over the subsets of a stack.  in: a learner, its members, a recipe   out: mean losses, the learner moved"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from study.data.augment import draw_crop_flip
from study.recipe import Recipe
from study.training.examples import Examples
from study.training.looks import Learner
from study.training.members import Hooks, Member, Stopped
from study.training.regularizers import generators, perturbed
from study.training.schedules import rate_factor


def train_epoch(
    learner: Learner,
    group: Sequence[Member],
    examples: Examples,
    recipe: Recipe,
    epoch: int,
    hooks: Hooks,
    online: Tensor | None = None,
) -> list[float]:
    """Make one pass (0-based `epoch`); fills `online`, (n,) bool, with what was right in passing, of a
    member that trains alone.

    Returns:
        The mean loss of each member's batches, before the steps on them.

    Raises:
        Stopped: `hooks.stop` was set.
    """
    rows, crops = _orders(group, examples, recipe, epoch)
    if learner.stack == 1:
        rows, crops = rows[0], crops and tuple(crop[0] for crop in crops)
    labels = examples.labels[rows]
    edges = recipe.train.edges(rows.shape[-1])
    per_pass = len(edges) - 1
    _, steps = recipe.train.length(rows.shape[-1])
    numbers = range(epoch * per_pass, min((epoch + 1) * per_pass, steps))
    rates = [recipe.optimizer.lr * rate_factor(recipe.schedule, number, steps, per_pass) for number in numbers]
    total = torch.zeros(rows.shape[:-1], dtype=learner.weights.dtype, device=rows.device)
    drawing = generators(group, recipe, epoch, rows.device)
    plain = examples.prepared and not drawing and not recipe.train.adversarial
    at_once = learner.steps_at_once if plain else 1
    for first in range(0, len(rates), at_once):
        if hooks.stop.is_set():
            raise Stopped
        own = edges[first : first + at_once + 1]
        low, high = own[0], own[-1]
        if at_once > 1:
            starts = [edge - low for edge in own]
            losses = learner.steps(
                examples.images, rows[low:high], labels[low:high], starts, rates[first : first + at_once]
            )
            total.add_((losses * torch.tensor(np.diff(starts))).sum())
        else:
            crop = crops and tuple(each[..., low:high].reshape(-1) for each in crops)
            images = examples.batch(rows[..., low:high], crop or None)
            images = perturbed(images, labels[..., low:high], learner, recipe.train, drawing)
            total.add_(learner.step(images, labels[..., low:high], rates[first]), alpha=high - low)
        if online is not None:
            online[rows[low:high]] = learner.logits.argmax(dim=-1) == labels[low:high]
        hooks.progress((high - low) * learner.stack)
    seen = edges[len(rates)]
    return np.atleast_1d((total / seen).cpu().numpy()).tolist()


def _orders(
    group: Sequence[Member], examples: Examples, recipe: Recipe, epoch: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Each member's batch order of this epoch, (K, n_subset), and its crops and flips in that order."""
    device = examples.labels.device
    orders = [recipe.stream("order", *member.words, epoch).permutation(member.subset) for member in group]
    rows = torch.from_numpy(np.stack(orders)).to(device)
    if not examples.augmented:
        return rows, ()
    pad, flip = recipe.train.pad, recipe.train.flip
    streams = [recipe.stream("augment", *member.words, epoch) for member in group]
    drawn = [draw_crop_flip(rows.shape[-1], pad, flip, rng) for rng in streams]
    return rows, tuple(torch.from_numpy(np.stack(each)).to(device) for each in zip(*drawn, strict=True))
