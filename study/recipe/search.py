"""The tables of a search: what is tried, how trials are chosen, pruned, judged.  in: TOML values   out: sections"""

from typing import Annotated, Literal

from pydantic import Field

from study.recipe.sections import Count, Scalar, Section


class Space(Section):
    """The values of one dotted name that a search may try: `low` to `high`, or `choices`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Scalar, ...] = ()
    when: dict[str, Scalar] = Field(default_factory=dict)  # tried only where these names have these values


class Search(Section):
    """A search for hyper-parameters: how many trials, how they are chosen, pruned and judged."""

    trials: Count = 30
    sampler: str = "tpe"
    pruner: str = "median"
    objective: Literal["accuracy", "reliability"] = "accuracy"
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the training examples that no trial trains on
    space: dict[str, Space] = Field(default_factory=dict)
