"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT = Path("recipes/digits/study.toml")
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="a recipe file")]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="NAME=VALUE", help="override a value of the recipe: optimizer.lr=0.05; repeatable"),
]
Root = Annotated[
    Path,
    typer.Option("--root", metavar="FOLDER", envvar="STUDY_ROOT", help="of the runs: database, artifacts, locks"),
]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for other programs")]
Plugins = Annotated[
    list[Path],
    typer.Option("--plugin", metavar="FILE", help="Python file whose networks, proxies, signals to use; repeatable"),
]


def again(overrides: list[str], plugin_files: list[Path]) -> list[str]:
    """The words of a command line that say these options again."""
    changes = [word for override in overrides for word in ("--set", override)]
    return [*changes, *(word for file in plugin_files for word in ("--plugin", str(file)))]
