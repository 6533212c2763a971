"""What a command begins with.  in: paths and options   out: recipe, data and store, checked"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from study import plugins
from study.errors import RecipeError
from study.progress import command, say

if TYPE_CHECKING:
    from study.data import Dataset
    from study.recipe import Recipe
    from study.tracking import Store


def load_recipe(path: Path, overrides: list[str]) -> "tuple[Recipe, Path]":
    """A recipe, and the file that its path names."""
    from study.recipe.load import find_recipe, load

    file = find_recipe(path)
    return load(file, overrides), file


def open_study(
    path: Path, overrides: list[str], root: Path, plugin_files: list[Path], kind: str | None = None
) -> "tuple[Recipe, Dataset, Store]":
    """Recipe, data and store, checked in the order of what each check costs."""
    recipe, dataset = read_data(path, overrides, plugin_files, kind)
    return recipe, dataset, open_checked(recipe, dataset, root)


def open_finished(
    path: Path, overrides: list[str], root: Path, plugin_files: list[Path]
) -> "tuple[Recipe, Dataset, Store]":
    """Recipe, data and store for who only reads runs: whether networks fit is no question then."""
    recipe, dataset = read_data(path, overrides, plugin_files)
    from study import tracking

    return recipe, dataset, tracking.open_store(root)


def read_data(
    path: Path, overrides: list[str], plugin_files: list[Path], kind: str | None = None
) -> "tuple[Recipe, Dataset]":
    """Recipe and data, checked as far as that goes without the networks, which takes torch."""
    recipe, _ = load_recipe(path, overrides)
    recipe = recipe.model_copy(update={"kind": kind}) if kind else recipe
    if recipe.sweep.values:
        raise RecipeError(f"{path} is a sweep; `{command('run')}`, `plan`, `check` and `compare` take it")
    plugins.load(plugin_files)
    from study import data
    from study.workflows import preflight

    preflight.check_names(recipe)
    dataset = data.open_data(recipe.data, recipe.noise, seed=recipe.seed)
    for line in dataset.unusable[:5]:
        say(f"not usable: {line}")
    if len(dataset.unusable) > 5:
        say(f"and {len(dataset.unusable) - 5} more; `{command('data')}` lists them all")
    return recipe, dataset


def open_existing(root: Path) -> "Store | None":
    """The store, where there is one; it is not made, for a recipe that cannot be trained leaves nothing behind."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (root / "mlflow.db").is_file():
        return None
    from study import tracking

    return tracking.open_store(root)


def open_checked(recipe: "Recipe", dataset: "Dataset", root: Path, store: "Store | None" = None) -> "Store":
    """The store, opened unless it is already, once the networks fit the data."""
    from study import tracking
    from study.workflows import preflight

    preflight.check_data(recipe, dataset)
    return store or tracking.open_store(root)


def open_sweep(
    path: Path, overrides: list[str], root: Path, plugin_files: list[Path], kind: str | None = None
) -> "tuple[Recipe, Store]":
    """The recipe of a sweep, its cells' form checked, and the store; the cells open their data themselves."""
    recipe, _ = load_recipe(path, overrides)
    recipe = recipe.model_copy(update={"kind": kind}) if kind else recipe
    from study.experiments.cells import cells

    say(f"a sweep of {len(cells(recipe))} cells")
    plugins.load(plugin_files)
    from study import tracking

    return recipe, tracking.open_store(root)
