"""The tables of a search: what is tried, how trials are chosen, pruned, judged.  in: TOML values   out: sections"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from study.recipe.sections import Count, Scalar, Section

Choice = Scalar | tuple[Scalar, ...]
Number = int | Annotated[float, Field(allow_inf_nan=False)]


class Space(Section):
    """The values of one dotted name that a search may try: `low` to `high`, or `choices`.

    low, high: both ends are tried.  Whole numbers where the recipe's value is one.
    log: the logarithm is spread evenly instead of the value.
    step: only low, low + step, ... are tried.
    choices: these and no others.
    when: tried only where other searched names have these values; elsewhere the recipe's own value stands.
    """

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None
    choices: tuple[Choice, ...] = ()
    when: dict[str, Scalar] = Field(default_factory=dict)

    @field_validator("choices", mode="before")
    @classmethod
    def _choices_may_be_lists(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)

    @field_validator("when", mode="before")
    @classmethod
    def _when_may_be_nested(cls, value: Any) -> Any:
        return dotted(value, lambda table: False) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _values_are_given_once(self) -> "Space":
        if self.choices:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("takes either choices, or low and high, not both")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("the choices must not repeat")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and no step")
        return self

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """low and high, of a space that has no choices."""
        if self.low is None or self.high is None:
            raise ValueError("a space of choices has no ends")
        return self.low, self.high


def nested(name: str, value: Any) -> dict[str, Any]:
    """A dotted name with its value as tables within tables; the inverse of `dotted`."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


def dotted(tables: Mapping[str, Any], leaf: Any) -> dict[str, Any]:
    """Nested tables as one table of dotted names; `leaf(table)` says which tables are values.

    Raises:
        ValueError: a name that is given twice, nested and dotted.
    """
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping) and not leaf(value):
            inner = {f"{key}.{name}": item for name, item in dotted(value, leaf).items()}
        else:
            inner = {key: value}
        if twice := set(inner) & set(flat):
            raise ValueError(f"{min(twice)} is given twice")
        flat |= inner
    return flat


def _is_space(table: Mapping[str, Any]) -> bool:
    return bool(set(table) & set(Space.model_fields)) or not any(isinstance(value, Mapping) for value in table.values())


class Tried(Section):
    """What a search tries, by dotted name: `optimizer.lr = { low = 1e-4, high = 1.0, log = true }`.

    space: the values of each name that is tried.
    """

    space: Annotated[dict[str, Space], Field(max_length=100)] = Field(default_factory=dict)

    @field_validator("space", mode="before")
    @classmethod
    def _names_may_be_nested(cls, value: Any) -> Any:
        return dotted(value, _is_space) if isinstance(value, Mapping) else value


class Round(Tried):
    """A further round (B-search): the trials that the round before has kept, with `set` merged in, over `space`.

    set: tables of the recipe, such as a longer training with a step schedule.
    """

    set: dict[str, Any] = Field(default_factory=dict)


class Search(Tried):
    """A search for hyper-parameters: how many trials, how they are chosen, pruned and judged.

    trials: to be finished, completed or pruned; a grid is as large as it is.
    sampler: tpe, random, qmc (quasi-random), gp (Gaussian process), grid (every combination, once).
    pruner: median, percentile (the worst quarter), halving (successive halving), hyperband, none.
    startup: trials before the sampler models and the pruner judges.
    warmup: reports of a trial before it may be pruned.
    objective: accuracy on the validation rows, or the reliability of the C-score ranking of a small ensemble.
    score: of an accuracy trial: after its last epoch; or stable, mean less standard deviation over the last quarter.
    validation: share of the training examples that no trial trains on, the same share of every class.
    members: of the ensemble at each subset ratio, for the objective reliability.
    keep: trials that the next round extends.
    rounds: further rounds, which extend the trials that were kept.
    """

    trials: Count = 30
    sampler: Literal["tpe", "random", "qmc", "gp", "grid"] = "tpe"
    pruner: Literal["median", "percentile", "halving", "hyperband", "none"] = "median"
    startup: Count = 5
    warmup: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    objective: Literal["accuracy", "reliability"] = "accuracy"
    score: Literal["last", "stable"] = "last"
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    members: Annotated[int, Field(ge=2, le=1000)] = 4
    keep: Count = 7
    rounds: Annotated[tuple[Round, ...], Field(max_length=20)] = ()
