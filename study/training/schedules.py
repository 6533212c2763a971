"""Learning rate schedules, pure functions of the step.  in: a ScheduleSpec, step, steps   out: a factor"""

import math

from study.training.types import ScheduleSpec


def rate_factor(schedule: ScheduleSpec, step: int, steps: int, per_epoch: int) -> float:
    """The factor on `optimizer.lr` for one step.

    Args:
        schedule: name and settings.
        step: 0-based; the step that is about to be taken.
        steps: of the whole training.
        per_epoch: steps of one epoch.

    Returns:
        0 to 1.  triangular (J-tab2): rises linearly from 0, reaches 1 at `peak` of the steps and falls linearly to 0 at
        the end; the step's middle is looked up, so that no step has rate 0.  step: `factor` to the power of the number
        of milestones reached.  ramp (J-tab2's LinearRampupPiecewiseConstant): rises as triangular does, then as step.
        cosine: from 1 at the first step towards 0 at the end.
    """
    middle = (step + 0.5) / steps
    if schedule.name == "triangular":
        return middle / schedule.peak if middle < schedule.peak else (1 - middle) / (1 - schedule.peak)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / steps))
    if schedule.name == "constant":
        return 1.0
    done = {"epochs": step // per_epoch, "steps": step, "share": step / steps}[schedule.unit]
    stage = schedule.factor ** sum(done >= milestone for milestone in schedule.milestones)
    return stage * min(1.0, middle / schedule.peak) if schedule.name == "ramp" else stage
