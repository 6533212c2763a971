"""The cells of a sweep.  in: a recipe with [sweep]   out: a recipe per cell, checked"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from study.errors import RecipeError
from study.recipe import Recipe, Sweep, merge, parse
from study.recipe.search import nested

MOST_CELLS = 10_000


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep's values.

    values: dotted names and what each is in this cell.
    recipe: the sweep's recipe with these values, without [sweep].
    """

    values: Mapping[str, Any]
    recipe: Recipe

    @property
    def name(self) -> str:
        """`optimizer.name = 'sgd', optimizer.lr = 0.1`."""
        return cell_name(self.values)


def cells(recipe: Recipe) -> list[Cell]:
    """Every combination of the swept values, the first name slowest, without those that are excluded.

    Raises:
        RecipeError: a name or a value that the recipe refuses, an exclusion that fits no cell, two cells that are one.
    """
    sweep = recipe.sweep
    if not sweep.values:
        raise RecipeError("sweep: names no values; give some, such as [sweep] optimizer.lr = [0.1, 0.01]")
    for name in sweep.values:
        if name.split(".")[0] in ("sweep", "search", "runtime", "why", "kind"):
            raise RecipeError(f"sweep.{name}: does not change what is trained; a sweep varies the other tables")
        if any(other.startswith(f"{name}.") for other in sweep.values):
            raise RecipeError(f"sweep.{name}: the table and one of its keys are both varied; vary one of them")
    count = math.prod(map(len, sweep.values.values()))
    if count > MOST_CELLS:
        raise RecipeError(f"sweep: {count:,} combinations are more than {MOST_CELLS:,}; vary fewer values")
    base = recipe.model_copy(update={"sweep": Sweep()}).model_dump()
    used: set[int] = set()
    listed = []
    for combination in itertools.product(*sweep.values.values()):
        values = dict(zip(sweep.values, combination, strict=True))
        table = merge(base, _nested(values))
        fitting = {place for place, excluded in enumerate(sweep.exclude) if _fits(table, excluded)}
        used |= fitting
        if not fitting:
            listed += list(_repeated(_cell(values, table), sweep.repeats))
    for place, excluded in enumerate(sweep.exclude):
        if place not in used:
            raise RecipeError(f"sweep.exclude: no combination has {excluded}; correct it or leave it out")
    if not listed:
        raise RecipeError("sweep.exclude leaves no cell; exclude less")
    _all_differ(listed)
    return listed


def cell_name(values: Mapping[str, Any]) -> str:
    """Names and values as a recipe writes them, in one line."""
    return ", ".join(f"{name} = {_listed(value)!r}" for name, value in values.items())


def sweep_digest(listed: list[Cell], data: list[str]) -> str:
    """16 hex digits over the trainings of all cells and the digests of their data.

    It is the same for the same sweep, however its recipe is written.
    """
    trainings = [
        {"digest": part.digest(), "data": digest, "subset": part.subset.model_dump(), "repeats": part.single.repeats}
        for cell, digest in zip(listed, data, strict=True)
        for part in parts(cell.recipe)
    ]
    return hashlib.sha256(json.dumps(trainings, sort_keys=True).encode()).hexdigest()[:16]


def parts(recipe: Recipe) -> list[Recipe]:
    """The recipes of the kinds of runs that a recipe trains, the ensemble first."""
    return [recipe.part(kind) for kind in ("ensemble", "single") if recipe.kind in ("study", kind)]


def _cell(values: Mapping[str, Any], table: Mapping[str, Any]) -> Cell:
    return Cell(values, parse(table, f"sweep: cell {cell_name(values)}"))


def _repeated(cell: Cell, repeats: int | None) -> Iterator[Cell]:
    """The cell with its repeats: of single runs by their number, of ensembles by further seeds."""
    if repeats is None:
        yield cell
    elif cell.recipe.kind == "ensemble":
        for seed in range(cell.recipe.seed, cell.recipe.seed + repeats):
            yield Cell({**cell.values, "seed": seed}, cell.recipe.model_copy(update={"seed": seed}))
    else:
        single = cell.recipe.single.model_copy(update={"repeats": repeats})
        yield Cell(cell.values, cell.recipe.model_copy(update={"single": single}))


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as tables within tables."""
    tables: dict[str, Any] = {}
    for name, value in values.items():
        tables = merge(tables, nested(name, value))
    return tables


def _fits(table: Mapping[str, Any], excluded: Mapping[str, Any]) -> bool:
    """Whether every excluded name has its value here, or one of its values."""
    for name, given in excluded.items():
        value: Any = table
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        value, given = _listed(value), _listed(given)
        if value != given and not (isinstance(given, list) and value in given):
            return False
    return True


def _listed(value: Any) -> Any:
    """Tuples as the lists that TOML has."""
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _all_differ(listed: list[Cell]) -> None:
    """A key that the single runs override, say, is varied in vain."""
    seen: dict[str, Cell] = {}
    for cell in listed:
        text = json.dumps([part.model_dump(mode="json") for part in parts(cell.recipe)], sort_keys=True)
        if text in seen:
            raise RecipeError(
                f"sweep: cells {seen[text].name} and {cell.name} are the same training; exclude one, "
                "or vary the key under [single] that overrides it"
            )
        seen[text] = cell
