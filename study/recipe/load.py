"""Recipes as text.  in: a TOML file with its bases, overrides   out: a Recipe; a Recipe as TOML"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from study.errors import RecipeError
from study.recipe.schema import Recipe, merge
from study.recipe.validation_messages import one_line

SHIPPED = Path(__file__).parents[1] / "shipped_recipes"  # of an installed package; a checkout has recipes/ instead
BASE_STEPS = 2  # a recipe, its base, and that one's base: more and nobody can say what runs


def shipped_folder() -> Path:
    """The folder of the recipes that come with the project: package data, or `recipes/` of a checkout."""
    return SHIPPED if SHIPPED.is_dir() else Path(__file__).parents[2] / "recipes"


def find_recipe(path: Path) -> Path:
    """A recipe or folder by its path; where nothing lies there, the shipped one of this name.

    `digits/study.toml` and `recipes/digits/study.toml` both name the shipped one.  A path that names neither is
    returned as it is, for the error that names it.
    """
    if path.exists() or path.is_absolute():
        return path
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("recipes",) else path
    shipped = shipped_folder() / inside
    return shipped if shipped.exists() else path


def dump(recipe: Recipe) -> str:
    """The resolved recipe as TOML; it reads back to an equal recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def dump_table(table: Mapping[str, Any]) -> str:
    """A part of a recipe as TOML, such as what differs from a base."""
    return tomli_w.dumps(table)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with its bases, apply `a.b=value` overrides, check its form.

    Raises:
        RecipeError: one line with file, key and cure.
    """
    over: dict[str, Any] = {}
    for override in overrides:
        over = merge(over, _override(override))
    return parse(merge(_read(Path(path), BASE_STEPS), over), str(path))


def parse(table: Mapping[str, Any], source: str) -> Recipe:
    """Turn a table into a Recipe; `source` opens the error line."""
    try:
        return Recipe(**table)
    except ValidationError as error:
        raise RecipeError(f"{source}: {one_line(error, Recipe)}") from None
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None


def _read(path: Path, steps: int, of: Path | None = None) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        cure = (
            f"{of} names it as its base"
            if of
            else "name a recipe such as digits/study.toml; `study recipes` lists those there are"
        )
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); {cure}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise RecipeError(f"{path}: base must be one path, relative to this file")
    if steps == 0:
        raise RecipeError(f"{path}: base {base!r} is the third step; at most {BASE_STEPS} are allowed")
    return merge(_read(path.parent / base, steps - 1, path), table)


def _override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"--set {text}: write it as name=value, such as --set optimizer.lr=0.05")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *tables, key = name.strip().split(".")
    override: dict[str, Any] = {key: parsed}
    for table in reversed(tables):
        override = {table: override}
    return override


def recipe_files(paths: Iterable[Path]) -> list[Path]:
    """The recipes below folders, and files as they are named; a `base.toml` is a part of recipes, not one itself."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*.toml") if file.name != "base.toml")
        else:
            files.append(path)
    return files
