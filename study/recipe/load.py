"""Recipes as text.  in: a TOML file with its bases, overrides   out: a Recipe; a Recipe as TOML"""

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from study.errors import RecipeError
from study.progress import command, printable
from study.recipe.schema import Recipe, merge
from study.recipe.search import nested
from study.recipe.validation_messages import is_text, one_line, shortened

SHIPPED = Path(__file__).parents[1] / "shipped_recipes"  # of an installed package; a checkout has recipes/ instead
LARGEST = 1_000_000  # bytes of a recipe
DOTS = 1000  # in one key; recipes have three
DEEPEST = 20  # folders inside each other in which recipes are looked for
BASE_STEPS = 2  # a recipe, its base, and that one's base: more and nobody can say what runs


def shipped_folder() -> Path:
    """The folder of the recipes that come with the project: package data, or `recipes/` of a checkout."""
    return SHIPPED if SHIPPED.is_dir() else Path(__file__).parents[2] / "recipes"


def find_recipe(path: Path) -> Path:
    """A recipe or folder by its path; where nothing lies there, the shipped one of this name.

    `digits/study.toml` and `recipes/digits/study.toml` both name the shipped one.  A path that names neither is
    returned as it is, for the error that names it.
    """
    if path.is_absolute() or os.path.exists(path):  # Path.exists raises for names that are too long
        return path
    inside = Path(*path.parts[1:]) if path.parts[:1] == ("recipes",) else path
    shipped = shipped_folder() / inside
    return shipped if os.path.exists(shipped) else path


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
    try:
        for override in overrides:
            over = merge(over, _override(override))
        return parse(merge(_read(Path(path), BASE_STEPS), over), shortened(str(path)))
    except RecursionError:
        raise RecipeError(f"{shortened(str(path))}: its tables or lists lie too deep inside each other") from None


def parse(table: Mapping[str, Any], source: str) -> Recipe:
    """Turn a table into a Recipe; `source` opens the error line."""
    try:
        return Recipe(**table)
    except ValidationError as error:
        raise RecipeError(f"{source}: {one_line(error, Recipe)}") from None
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None


def read_text(path: Path, cure: str) -> str:
    """The text of a recipe.

    Raises:
        RecipeError: it cannot be read, is no regular file, too large for a recipe, or not UTF-8.
    """
    name = shortened(str(path))
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RecipeError(f"{name}: cannot be read (not a regular file); {cure}")
        if status.st_size > LARGEST:
            raise RecipeError(f"{name}: {status.st_size:,} bytes are no recipe; up to {LARGEST:,} are read")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{name}: cannot be read ({error.strerror}); {cure}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name}: not valid TOML: {error}") from None
    except ValueError:  # NUL in a path
        raise RecipeError(f"{printable(name)}: cannot be read (no path has such characters); {cure}") from None


def _toml(text: str) -> dict[str, Any]:
    """The tables of a text.

    Raises:
        ValueError: it is no TOML, or has a number of more than 4,300 digits.
        RecursionError: tables lie too deep inside each other.
    """
    if any(piece.count(".") > DOTS for piece in re.split(r"[=,\[\]{}\n]", text)):  # tomllib's memory is their square
        raise RecursionError
    return tomllib.loads(text)


def _read(path: Path, steps: int, of: Path | None = None) -> dict[str, Any]:
    cure = (
        f"{of} names it as its base" if of else f"name one such as digits/study.toml; `{command('recipes')}` lists them"
    )
    text = read_text(path, cure)
    try:
        table = _toml(text)
    except ValueError as error:  # also a number of more than 4,300 digits
        raise RecipeError(f"{path}: not valid TOML: {shortened(str(error))}") from None
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
    names = name.strip().split(".")
    if is_text(Recipe, names) and not value.strip().startswith(('"', "'")):
        parsed: Any = value.strip()  # a folder may be called 2024, or 2024-01-31
    else:
        try:
            parsed = _toml(f"value = {value}")["value"]
        except ValueError:
            parsed = value.strip()
    return nested(name.strip(), parsed)


def recipe_files(paths: Iterable[Path]) -> list[Path]:
    """The recipes below folders, and files as they are named; a `base.toml` is a part of recipes, not one itself.

    Raises:
        RecipeError: a folder that is deeper than recipes lie.
    """
    files: list[Path] = []
    for path in paths:
        if os.path.isdir(path):
            files += sorted(file for file in _below(path) if file.suffix == ".toml" and file.name != "base.toml")
        else:
            files.append(path)
    return files


def _below(folder: Path) -> Iterator[Path]:
    for inside, folders, names in os.walk(folder):  # does not follow links to folders
        if folders and len(Path(inside).parts) - len(folder.parts) >= DEEPEST:
            raise RecipeError(f"{folder}: its folders lie more than {DEEPEST} deep; name the folder of the recipes")
        yield from (Path(inside) / name for name in names)
