"""Learning rate schedules, pure functions of the step.  in: a recipe's [schedule], step, steps   out: a factor"""

import math

from study.recipe import Schedule


def rate_factor(schedule: Schedule, step: int, steps: int, epochs: int) -> float:
    """The factor on `optimizer.lr` for one step.

    Args:
        schedule: name and settings.
        step: 0-based; the step that is about to be taken.
        steps: of the whole training.
        epochs: of the whole training; `steps / epochs` steps make one.

    Returns:
        0 to 1.  triangular (J-tab2): rises linearly from 0, reaches 1 at `peak` of the steps and falls linearly to 0 at
        the end; the step's middle is looked up, so that no step has rate 0.  step: `factor` to the power of the number
        of milestones (in epochs) reached.  cosine: from 1 at the first step towards 0 at the end.
    """
    if schedule.name == "triangular":
        where = (step + 0.5) / steps
        return where / schedule.peak if where < schedule.peak else (1 - where) / (1 - schedule.peak)
    if schedule.name == "step":
        epoch = step * epochs // steps
        return schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / steps))
    return 1.0
