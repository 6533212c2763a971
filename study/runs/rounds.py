"""Rounds of an ensemble that stops when its scores are good enough.  in: a recipe, a Profile   out: members per ratio

What a round asks for is written on the ensemble's run before it is trained, and it is decided by the members of the
rounds before it alone: an ensemble that was interrupted, or finds members of another one, comes to the same networks.
"""

from collections.abc import Mapping
from typing import Any

from study.data import Dataset
from study.progress import say
from study.recipe import Recipe
from study.runs.jobs import ensemble_plan
from study.scores.allocation import GROWTH, Target, first_sizes, measured, next_sizes
from study.scores.cscore import Profile
from study.tracking import Run

ROUNDS = "rounds.json"


def target(recipe: Recipe) -> Target | None:
    """When the ensemble stops; None: when all `subset.members` are trained."""
    until = recipe.subset.until
    return Target(until.reliability, until.stderr, until.score) if until.active else None


def sizes_of(recipe: Recipe, parent: Run | None) -> dict[float, int]:
    """Members at each ratio that are to be trained now.

    Args:
        recipe: an ensemble's.
        parent: its run, where one was begun.
    """
    subset = recipe.subset
    if not subset.until.active:
        return dict.fromkeys(subset.ratios, subset.members)
    if parent is None or ROUNDS not in parent.files:
        return first_sizes(subset.ratios, subset.members, subset.design)
    written = parent.read_json(ROUNDS)[-1]["members"]
    return {ratio: written[str(ratio)] for ratio in subset.ratios}


def members_of(run: Run) -> list[int]:
    """Networks that a finished ensemble has at each ratio."""
    if "subset.until.score" in run.params:
        return list(run.read_json(ROUNDS)[-1]["members"].values())
    return [int(run.params["subset.members"])] * len(run.params["subset.ratios"].split(", "))


def next_round(parent: Run, recipe: Recipe, dataset: Dataset, profile: Profile, sizes: dict[float, int]) -> bool:
    """Decide whether another round is needed, and write it on the ensemble's run, where `sizes_of` reads it.

    Args:
        parent: the ensemble's run.
        recipe: an ensemble's.
        dataset: n examples.
        profile: of the members of all rounds so far.
        sizes: their numbers at each ratio.
    """
    wanted = target(recipe)
    if wanted is None:
        return False
    value, total = measured(profile, wanted, dataset.rows("train")), sum(sizes.values())
    parent.log({f"until/{_name(wanted)}": value}, step=total)
    more = predicted_sizes(recipe, dataset, profile, sizes)
    rounds = parent.read_json(ROUNDS) if ROUNDS in parent.files else [_entry(sizes)]
    rounds[-1]["measured"] = value
    parent.json(ROUNDS, rounds if more == sizes else [*rounds, _entry(more)])
    have = f"ensemble, {total} networks: {_name(wanted)} {value:.3f}, wanted {wanted.reliability or wanted.stderr:g}"
    if more != sizes:
        say(f"{have}; {sum(more.values()) - total} more")
    elif reaches(value, wanted):
        say(have)
    else:
        say(f"{have}; subset.members = {recipe.subset.members} allows no more")
    return more != sizes


def reaches(value: float, wanted: Target) -> bool:
    """Whether a measured value is as good as wanted; NaN is not."""
    return value >= wanted.reliability if wanted.reliability is not None else value <= (wanted.stderr or 0.0)


def predicted_sizes(
    recipe: Recipe, dataset: Dataset, profile: Profile, sizes: dict[float, int], growth: float = GROWTH
) -> dict[float, int]:
    """Members at each ratio after the next round, or with infinite `growth` those that the target will take."""
    wanted, plan, subset = target(recipe), ensemble_plan(recipe), recipe.subset
    if wanted is None:
        return sizes
    return next_sizes(
        profile,
        sizes,
        wanted,
        most=subset.members,
        design=subset.design,
        rows=dataset.rows("train"),
        costs={ratio: plan.examples(ratio, [0], dataset.n_train) for ratio in subset.ratios},
        growth=growth,
    )


def _name(wanted: Target) -> str:
    return f"{'soft_' if wanted.score == 'soft' else ''}{'reliability' if wanted.reliability is not None else 'stderr'}"


def _entry(sizes: Mapping[float, int]) -> dict[str, Any]:
    """A round: its members at each ratio, and what is measured when they are trained."""
    return {"members": {str(ratio): size for ratio, size in sizes.items()}, "measured": None}
