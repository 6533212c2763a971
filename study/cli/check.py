"""The verb `check`.  in: recipes, or a store   out: a line for each, exit code 2 where one is at fault"""

from pathlib import Path
from typing import Annotated

import typer

from study import plugins
from study.cli.options import Overrides, Plugins, Root
from study.progress import print_line, say


def check(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS", help="recipes, or folders of them")] = [
        Path("recipes")
    ],
    overrides: Overrides = [],
    plugin: Plugins = [],
    root: Root = Path("mlruns"),
    store: Annotated[bool, typer.Option("--store", help="check the files of all runs instead")] = False,
) -> None:
    """Check recipes: form, names, fit.  Whether the network takes the images is asked without any of them."""
    if store:
        _check_store(root)
        return
    from study.recipe.load import find_recipe
    from study.workflows.preflight import check_all

    plugins.load(plugin)
    faults = []
    for file, fault in check_all([find_recipe(path) for path in paths], overrides):
        line = fault if fault is None or fault.startswith(str(file)) else f"{file}: {fault}"
        print_line(f"{'ok   ' if line is None else 'FAULT'} {line or file}")
        faults.append(line is not None)
    say(f"{len(faults)} {'recipe' if len(faults) == 1 else 'recipes'}, {sum(faults) or 'none'} at fault")
    if any(faults):
        raise typer.Exit(2)


def _check_store(root: Path) -> None:
    """Say which files of which runs are missing or damaged, and remove what killed launches left unfinished."""
    from study.tracking import open_store

    opened, runs, files, damaged = open_store(root), 0, 0, 0
    for run in opened.find():
        for error in run.verify() if run.status in ("FINISHED", "RUNNING") else ():
            print_line(f"FAULT {error}")
            damaged += 1
        for path in run.remove_unfinished() if run.status != "RUNNING" else ():
            print_line(f"removed {path}, which a killed launch has left unfinished")
        runs, files = runs + 1, files + len(run.files)
    say(f"{runs} runs, {files} files, {damaged or 'none'} missing or damaged")
    if damaged:
        raise typer.Exit(2)
