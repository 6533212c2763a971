"""One pass over a member's subset.  in: a learner, its member, a recipe   out: the mean loss, the learner moved"""

import numpy as np
import torch
from torch import Tensor

from study.data.augment import draw_crop_flip
from study.errors import Stopped
from study.recipe import Recipe
from study.training.device_data import Examples
from study.training.evaluation import Learner
from study.training.job import Hooks, Member
from study.training.regularizers import generators, perturbed
from study.training.schedules import rate_factor


def train_epoch(
    learner: Learner,
    member: Member,
    examples: Examples,
    recipe: Recipe,
    epoch: int,
    hooks: Hooks,
    online: Tensor | None = None,
) -> float:
    """Make one pass (0-based `epoch`) of a member that trains alone; fills `online`, (n,) bool, with what was right in
    passing.

    Returns:
        The mean loss of its batches, before the steps on them.

    Raises:
        Stopped: `hooks.stop` was set.
    """
    device = examples.labels.device
    rows, *crops = (torch.from_numpy(each).to(device) for each in drawn(member, recipe, epoch))
    labels = examples.labels[rows]
    edges = recipe.train.edges(len(rows))
    per_pass = len(edges) - 1
    _, steps = recipe.train.length(len(rows))
    numbers = range(epoch * per_pass, min((epoch + 1) * per_pass, steps))
    rates = [recipe.optimizer.lr * rate_factor(recipe.schedule, number, steps, per_pass) for number in numbers]
    total = torch.zeros((), dtype=learner.weights.dtype, device=device)
    drawing = generators([member], recipe, epoch, device)
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
            images = examples.batch(rows[low:high], tuple(each[low:high] for each in crops) or None)
            images = perturbed(images, labels[low:high], learner, recipe.train, drawing)
            total.add_(learner.step(images, labels[low:high], rates[first]), alpha=high - low)
        if online is not None:
            online[rows[low:high]] = learner.logits.argmax(dim=-1) == labels[low:high]
        hooks.progress(high - low)
    return float(total / edges[len(rates)])


def drawn(member: Member, recipe: Recipe, epoch: int) -> list[np.ndarray]:
    """The order of a member's pass, (n_subset,) row numbers; where images are augmented dy, dx and mirrored after it.

    From the streams that the member alone draws from, so it is the same wherever the member trains.
    """
    order = recipe.stream("order", *member.words, epoch).permutation(member.subset)
    pad, flip = recipe.train.pad, recipe.train.flip
    if not (pad or flip):
        return [order]
    return [order, *draw_crop_flip(len(order), pad, flip, recipe.stream("augment", *member.words, epoch))]
