"""How many members an ensemble needs, and at which subset ratios.  in: a Profile, a target   out: members per ratio

An ensemble grows in rounds of whole blocks until its scores are good enough.  Each block goes to the subset ratio where
it lowers the variance of the C-scores most for its cost.  The C-score stays the mean over ratios of one mean per ratio,
however many members a ratio has, and a round is decided by averages over all examples, to which an example adds 1 / n:
so the scores stay unbiased (simulated in tests/test_allocation.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from study.scores.cscore import UNIT, Profile, consistency, reliability, stderr, stderr_soft
from study.scores.subsets import block_length

BLOCK = 10  # members at least that are added together
GROWTH = 2.0  # a round at most halves the variance: the first estimates of it are rough
LEAST = 1.15  # and lowers it by so much, so that the last rounds are not of a few networks each

Sizes = Mapping[float, int]


@dataclass(frozen=True)
class Target:
    """When scores are good enough.

    reliability: split-half reliability of the scores of all members (Spearman-Brown), at least; or None.
    stderr: mean standard error over the examples, at most; or None.
    score: the "hard" or the "soft" C-score.

    >>> Target(reliability=0.95).score
    'hard'
    """

    reliability: float | None = None
    stderr: float | None = None
    score: Literal["hard", "soft"] = "hard"


def measured(profile: Profile, target: Target, rows: slice) -> float:
    """What the target is compared with: a reliability or a mean standard error; NaN where it is not defined yet.

    Args:
        profile: of all members so far.
        target: which of the two, of which score.
        rows: the training rows.

    >>> from study.scores.cscore import shard_profile
    >>> masks, predicted = np.zeros((4, 3), bool), np.arange(4)[:, None] % 2 * np.ones((1, 3), int)
    >>> profile = shard_profile(masks, predicted, np.full((4, 3), 0.5), np.ones(3, int), 0.5, range(4), 2)
    >>> round(measured(profile, Target(stderr=0.1), slice(None)), 3)  # sqrt(.25 / 3): every second network is right
    0.289
    """
    if target.reliability is not None:
        halves = reliability(profile, rows)
        return halves.hard_full if target.score == "hard" else halves.soft_full
    held_out = profile.held_out.sum(axis=1)[:, rows]
    if target.score == "hard":
        errors = stderr(profile.correct.sum(axis=1)[:, rows], held_out)
    else:
        confidence, squares = (sums.sum(axis=1)[:, rows] for sums in (profile.confidence, profile.confidence_sq))
        errors = stderr_soft(confidence, squares, held_out)
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else np.nan


def first_sizes(ratios: tuple[float, ...], most: int, design: str) -> dict[float, int]:
    """Members of the first round: twice what a round adds to a ratio, for two halves; at most `most`.

    >>> first_sizes((0.05, 0.1, 0.5), 100, "balanced")
    {0.05: 40, 0.1: 20, 0.5: 20}
    """
    return {ratio: min(2 * _block(ratio, design), most) for ratio in ratios}


def next_sizes(
    profile: Profile,
    sizes: Sizes,
    target: Target,
    *,
    most: int,
    design: str,
    rows: slice,
    costs: Mapping[float, float],
    growth: float = GROWTH,
) -> dict[float, int]:
    """Members at each ratio after the next round; `sizes` where the target is reached or no ratio may grow.

    Args:
        profile: of the members so far.
        sizes: members at each ratio.
        target: see `Target`.
        most: members at a ratio.
        design: "balanced" or "uniform".
        rows: the training rows.
        costs: of one member at each ratio, in any unit.
        growth: the variance shrinks at most by this factor; infinity predicts the members that the target takes.

    Returns:
        Whole blocks more, at the ratios where they lower the variance of the C-scores most for their cost.

    >>> from study.scores.cscore import shard_profile
    >>> masks, predicted = np.zeros((20, 3), bool), np.arange(20)[:, None] % 2 * np.ones((1, 3), int)
    >>> profile = shard_profile(masks, predicted, np.full((20, 3), 0.5), np.ones(3, int), 0.5, range(20), 2)
    >>> options = {"most": 100, "design": "balanced", "rows": slice(None), "costs": {0.5: 1.0}}
    >>> next_sizes(profile, {0.5: 20}, Target(stderr=0.1), **options)
    {0.5: 30}
    """
    grown, now = dict(sizes), measured(profile, target, rows)
    shrink = min(_shrink(now, target), growth)
    if shrink <= 1:
        return grown
    shrink = max(shrink, LEAST)
    held_out = profile.held_out.sum(axis=1)[:, rows]
    spread = dict(zip(profile.ratios, _spread(profile, target, rows), strict=True))
    per_member = dict(zip(profile.ratios, held_out.mean(axis=1), strict=True))
    per_member = {ratio: max(per_member[ratio] / size, 1e-9) for ratio, size in sizes.items()}

    def variance(ratio: float, size: int) -> float:
        return spread[ratio] / (per_member[ratio] * size)

    def gain(ratio: float) -> float:
        size, block = grown[ratio], _block(ratio, design)
        return (variance(ratio, size) - variance(ratio, size + block)) / (block * costs[ratio])

    wanted = sum(variance(ratio, size) for ratio, size in sizes.items()) / shrink
    while sum(variance(ratio, size) for ratio, size in grown.items()) > wanted:
        free = [ratio for ratio, size in grown.items() if size + _block(ratio, design) <= most]
        if not free:
            break
        best = max(free, key=gain)
        grown[best] += _block(best, design)
    return grown


def _shrink(now: float, target: Target) -> float:
    """The factor by which the variance of the scores has to shrink; infinity where nothing is known."""
    if np.isnan(now):
        return np.inf
    if target.stderr is not None:
        return (now / target.stderr) ** 2
    wanted = target.reliability or 0.0
    if now >= wanted:
        return 1.0
    return wanted / (1 - wanted) * (1 - now) / now if now > 0 else np.inf


def _spread(profile: Profile, target: Target, rows: slice) -> np.ndarray:
    """(s,) mean over the examples of the variance of one held-out outcome; add-one-half keeps it above 0."""
    held_out = profile.held_out.sum(axis=1)[:, rows]
    if target.score == "hard":
        share = (profile.correct.sum(axis=1)[:, rows] + 0.5) / (held_out + 1)
        return (share * (1 - share)).mean(axis=1)
    mean = consistency(profile.confidence.sum(axis=1)[:, rows], held_out) / UNIT
    square = consistency(profile.confidence_sq.sum(axis=1)[:, rows], held_out) / UNIT**2
    return np.maximum(np.nanmean(square - mean**2, axis=1), 1e-6)


def _block(ratio: float, design: str) -> int:
    """Members that are added together: whole balanced blocks, at least BLOCK members."""
    length = block_length(ratio) if design == "balanced" else 1
    return length * -(-BLOCK // length)
