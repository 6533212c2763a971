"""What a search may try.  in: a recipe's [search.space]   out: values from a trial, a recipe of them, a grid"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from study.errors import RecipeError, did_you_mean
from study.recipe import Recipe, merge, parse
from study.recipe.search import Space

TABLES = ("model", "optimizer", "schedule", "train")  # what a search may vary; data and seed stay what they are
EXTENDS = "extends"  # the parameter of a further round that says which kept trial is extended
POINTS = 10_000  # of a grid, at most
CORNERS = 400  # combinations of extreme values that are checked one and all; of more, so many by chance
Values = dict[str, Any]


def vary(recipe: Recipe, values: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with the tables `fixed` merged in and dotted names set, as `--set` would.

    Raises:
        RecipeError: a name that is unknown, a value that the schema refuses.
    """
    table = merge(recipe.model_dump(), fixed or {})
    for name, value in values.items():
        for word in reversed(name.split(".")):
            value = {word: value}
        table = merge(table, value)
    return parse(table, "search.space")


@dataclass(frozen=True)
class Scope:
    """The names and values of one round, over the recipes that it starts from.

    bases: the search's own recipe under the name "", or those of the kept trials of the round before by their number.
    space: dotted names and what is tried of each.
    grid: every combination once, instead of values that a sampler draws.
    fixed: tables that are merged into the bases, and need be whole only together with the values.
    """

    bases: Mapping[str, Recipe]
    space: Mapping[str, Space]
    grid: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The names, each after those that its `when` asks for."""
        for name, space in self.space.items():
            unknown = [other for other in space.when if other not in self.space]
            if unknown:
                raise RecipeError(
                    f"search.space.{name}.when: {unknown[0]!r} is not searched{did_you_mean(unknown[0], self.space)}"
                )
        try:
            return tuple(TopologicalSorter({name: space.when for name, space in self.space.items()}).static_order())
        except CycleError as error:
            raise RecipeError(f"search.space: {', '.join(error.args[1][:-1])} wait for each other in `when`") from None

    @cached_property
    def table(self) -> dict[str, Any]:
        """What the trials start from; of several bases the first."""
        return merge(next(iter(self.bases.values())).model_dump(), self.fixed)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna draws each name from; a list among the choices stands there as its JSON text."""
        distributions = {name: self._distribution(name) for name in self.order}
        return distributions | ({EXTENDS: CategoricalDistribution(list(self.bases))} if len(self.bases) > 1 else {})

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Draw values for the names that are active; `trial` is Optuna's."""
        drawn: dict[str, Any] = {}
        if EXTENDS in self.distributions:
            drawn[EXTENDS] = trial.suggest_categorical(EXTENDS, list(self.bases))
        for name in self.order:
            if self._active(name, drawn):
                drawn[name] = _suggest(trial, name, self.distributions[name])
        return drawn

    def values(self, params: Mapping[str, Any]) -> Values:
        """The values that Optuna's parameters stand for."""
        return {name: self._decode(name, value) for name, value in params.items() if name != EXTENDS}

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial with these parameters."""
        base = self.bases[params[EXTENDS]] if EXTENDS in params else next(iter(self.bases.values()))
        return vary(base, self.values(params), self.fixed)

    def points(self) -> list[dict[str, Any]]:
        """Every combination of a grid, as Optuna's parameters."""
        choices = {name: [self._encode(value) for value in self._listed(name)] for name in self.order}
        lists = {EXTENDS: list(self.bases)} if len(self.bases) > 1 else {}
        points = list(itertools.islice(self._combinations(lists | choices), POINTS + 1))
        if len(points) > POINTS:
            raise RecipeError(f"search.space: the grid has more than {POINTS} points; try fewer values of each name")
        return points

    def given_values(self) -> dict[str, Any]:
        """The recipe's own values, as Optuna's parameters, where the space holds them: a search begins with them."""
        held: dict[str, Any] = {}
        for name in self.order:
            value = _value(self.table, name)
            if self._active(name, held) and self._holds(name, value):
                held[name] = self._encode(value)
        return held

    def check(self) -> list[Recipe]:
        """Make the recipes at the corners of the space.

        Returns:
            One recipe per corner, to be asked whether its network can be built.

        Raises:
            RecipeError: a name, a value or a combination that the schema refuses.
        """
        for name in self.order:
            if name.split(".")[0] not in TABLES:
                raise RecipeError(f"search.space: {name!r} cannot be searched; {', '.join(TABLES)} can")
        if self.grid:
            self.points()  # there are not too many
        ends = {name: [self._encode(value) for value in self._ends(name)] for name in self.order}
        lists = {EXTENDS: list(self.bases)} if len(self.bases) > 1 else {}
        corners = itertools.islice(self._combinations(lists | ends), 10 * CORNERS)
        few = list(itertools.islice(corners, CORNERS))
        rng = np.random.default_rng(0)
        more = (self._by_chance(lists | ends, rng) for _ in range(CORNERS if next(corners, None) else 0))
        return [self.recipe(corner) for corner in itertools.chain(few, more)]

    def _active(self, name: str, drawn: Mapping[str, Any]) -> bool:
        wanted = self.space[name].when
        return all(other in drawn and self._decode(other, drawn[other]) == value for other, value in wanted.items())

    def _combinations(self, lists: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        """The product of the lists, without the names that are not active in a combination."""

        def grow(drawn: dict[str, Any], names: list[str]) -> Iterator[dict[str, Any]]:
            if not names:
                yield drawn
                return
            name, *rest = names
            if name != EXTENDS and not self._active(name, drawn):
                yield from grow(drawn, rest)
                return
            for value in lists[name]:
                yield from grow(drawn | {name: value}, rest)

        return grow({}, list(lists))

    def _by_chance(self, lists: Mapping[str, list[Any]], rng: np.random.Generator) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for name, values in lists.items():
            if name == EXTENDS or self._active(name, drawn):
                drawn[name] = values[rng.integers(len(values))]
        return drawn

    def _listed(self, name: str) -> list[Any]:
        space = self.space[name]
        if space.choices:
            return list(space.choices)
        if space.step is None and not (self._whole(name) and not space.log):
            raise RecipeError(f"search.space.{name}: a grid needs choices, or low, high and step")
        step, (low, high) = space.step or 1, space.ends
        count = int((high - low) / step + 1e-9) + 1
        if count > POINTS:
            raise RecipeError(f"search.space.{name}: {count} values are more than a grid tries; take a wider step")
        return [low + index * step for index in range(count)]

    def _ends(self, name: str) -> list[Any]:
        if self.grid or self.space[name].choices:
            return self._listed(name)
        return list(self.space[name].ends)

    def _whole(self, name: str) -> bool:
        """Whether whole numbers are tried: both ends are, and the recipe's own value is one, or is missing."""
        space, value = self.space[name], _value(self.table, name)
        return all(type(end) is int for end in (space.low, space.high)) and not isinstance(value, float)

    def _distribution(self, name: str) -> BaseDistribution:
        space = self.space[name]
        if self.grid or space.choices:
            return CategoricalDistribution([self._encode(value) for value in self._listed(name)])
        low, high = space.ends
        if self._whole(name):
            if type(space.step or 1) is not int:
                raise RecipeError(f"search.space.{name}.step: must be a whole number, got {space.step}")
            return IntDistribution(int(low), int(high), log=space.log, step=int(space.step or 1))
        return FloatDistribution(low, high, log=space.log, step=space.step)

    def _holds(self, name: str, value: Any) -> bool:
        space = self.space[name]
        if self.grid or space.choices:
            return value in self._listed(name)
        low, high = space.ends
        return isinstance(value, int | float) and low <= value <= high

    def _encode(self, value: Any) -> Any:
        return json.dumps(value) if isinstance(value, tuple) else value

    def _decode(self, name: str, encoded: Any) -> Any:
        choices = self.space[name].choices
        return next((choice for choice in choices if self._encode(choice) == encoded), encoded)


def _value(table: Any, name: str) -> Any:
    for word in name.split("."):
        table = table.get(word) if isinstance(table, Mapping) else None
    return table


def _suggest(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case FloatDistribution():
            return trial.suggest_float(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
