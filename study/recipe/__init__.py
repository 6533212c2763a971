"""Recipes: what is trained, on what, how.  in: a TOML file, overrides   out: a frozen Recipe, its digest and streams"""

from study.recipe.load import dump, dump_table, load, parse
from study.recipe.schema import Recipe, flatten, merge
from study.recipe.search import Search
from study.recipe.sections import Data, Model, Noise, Optimizer, Runtime, Schedule, Single, Train
from study.recipe.subset import Subset
from study.recipe.sweep import Sweep

__all__ = [
    "Data",
    "Model",
    "Noise",
    "Optimizer",
    "Recipe",
    "Runtime",
    "Schedule",
    "Search",
    "Single",
    "Subset",
    "Sweep",
    "Train",
    "dump",
    "dump_table",
    "flatten",
    "load",
    "merge",
    "parse",
]
