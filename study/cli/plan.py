"""The command `plan`.  in: a recipe   out: what it will cost, here and on many devices"""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from study.cli.opening import load_recipe, open_study, open_sweep
from study.cli.options import DEFAULT, AsJson, Overrides, Plugins, RecipePath, Root, again
from study.progress import command, print_line, say


def plan(
    recipe: RecipePath = DEFAULT,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    engine: Annotated[
        Literal["", "local", "ray"],
        typer.Option(help="instead of the recipe's; ray: measure on the cluster"),
    ] = "",
    jobs: Annotated[int, typer.Option(min=0, help="an ensemble's time on 1, 2, 4, ... so many workers")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what a study will cost: networks, time, disk.  Measures a second of training on this machine."""
    changes = [*overrides, *([f"runtime.engine={engine}"] if engine else [])]
    lines = []
    if load_recipe(recipe, changes)[0].sweep.values:
        swept = open_sweep(recipe, changes, root, plugin)
        from study.workflows import plan as plans

        costs = plans.plan_sweep(*swept)
    else:
        opened, dataset, store = open_study(recipe, changes, root, plugin)
        from study.workflows import plan as plans
        from study.workflows.plan_devices import spread

        costs = plans.plan_study(opened, dataset, store)
        devices = spread(opened, dataset, costs["ensemble"], jobs) if "ensemble" in costs else None
        lines = [devices.describe()] if devices else []
    if as_json:
        from study.cli.as_json import costs_summary, print_json

        print_json(costs_summary(costs))
        return
    for line in [*plans.describe(costs), *lines]:
        print_line(line)
    say(f"to begin: {command(shlex.join(['run', str(recipe), *again(changes, plugin)]))}")
