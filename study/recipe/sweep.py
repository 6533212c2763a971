"""The table of a sweep: what is varied, how often, what is left out.  in: TOML values   out: a section"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_serializer, model_validator

from study.recipe.search import dotted
from study.recipe.sections import Count, Section

FIXED = ("values", "repeats", "exclude", "analyses")


class Sweep(Section):
    """Values of a recipe that are varied: every combination of them is a cell, a recipe of its own.

    Beside the keys below stand dotted names of the recipe with a list of values each, such as
    `optimizer.lr = [0.1, 0.01]`.  A name may be that of a table; its values are then tables, which are merged in.

    values: the varied names and their values, where they are not written beside the other keys.
    repeats: single runs of each cell; a cell of kind ensemble is trained with as many seeds, from the recipe's on. The
        recipe's own single.repeats unless given.
    exclude: combinations that are left out, as tables of dotted names; a list stands for any of its values.
    analyses: ids of the papers' figures and tables that are made of the cells together, such as Z-fig6.
    """

    values: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    repeats: Count | None = None
    exclude: tuple[dict[str, Any], ...] = ()
    analyses: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _names_stand_beside(cls, table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        varied = {key: value for key, value in table.items() if key not in FIXED}
        inner = table.get("values", {})
        values = dotted({**varied, **(inner if isinstance(inner, Mapping) else {})}, lambda table: False)
        for name, listed in values.items():
            if not isinstance(listed, list | tuple) or not listed:
                raise ValueError(f"{name}: give a list of the values to try, such as {name} = [{listed!r}]")
            if any(value in listed[:place] for place, value in enumerate(listed)):
                raise ValueError(f"{name}: the values must not repeat")
        fixed = {key: value for key, value in table.items() if key in FIXED}
        return {**fixed, "values": {name: tuple(listed) for name, listed in values.items()}}

    @field_validator("exclude", mode="before")
    @classmethod
    def _excluded_may_be_nested(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(dotted(each, lambda table: False) if isinstance(each, Mapping) else each for each in value)

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        fixed = {"repeats": self.repeats, "exclude": list(self.exclude), "analyses": list(self.analyses)}
        return {**self.values, **{key: value for key, value in fixed.items() if value}}
