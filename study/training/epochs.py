"""One pass over the subsets of a stack.  in: a learner, its members, a recipe   out: mean losses, the learner moved"""

import itertools
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
    total, seen = torch.zeros(rows.shape[:-1], dtype=learner.weights.dtype, device=rows.device), 0
    drawing = generators(group, recipe, epoch, rows.device)
    batches = itertools.islice(itertools.pairwise(edges), steps - epoch * per_pass)
    for step, (low, high) in enumerate(batches, epoch * per_pass):
        if hooks.stop.is_set():
            raise Stopped
        factor = rate_factor(recipe.schedule, step, steps, per_pass)
        crop = crops and tuple(each[..., low:high].reshape(-1) for each in crops)
        own = labels[..., low:high]
        images = perturbed(examples.batch(rows[..., low:high], crop or None), own, learner, recipe.train, drawing)
        loss = learner.step(images, own, recipe.optimizer.lr * factor)
        total.add_(loss, alpha=high - low)
        seen += high - low
        if online is not None:
            online[rows[low:high]] = learner.logits.argmax(dim=-1) == own
        hooks.progress((high - low) * learner.stack)
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
