"""`study test-set`.  in: a command line   out: tables on stdout, files"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.interrupt import interruptible
from study.cli.opening import open_study
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import bar, print_line


def small_test_set(
    recipe: RecipePath,
    overrides: Overrides = [],
    root: Root = Path("mlruns"),
    plugin: Plugins = [],
    per_bin: Annotated[list[int], typer.Option(min=1, help="examples of each bin; repeatable")] = [],
    bins: Annotated[int, typer.Option(min=1, help="of equal angle in Zhang's plane")] = 10,
    draws: Annotated[int, typer.Option(min=2, help="of each size, balanced and random")] = 200,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="where tables (CSV) and figure (PNG) go")] = None,
) -> None:
    """Draw small balanced test sets; rank classifiers on them."""
    with interruptible() as stop:
        opened, dataset, store = open_study(recipe, overrides, root, plugin)
        from study import analysis
        from study.cli.use_tables import small_test_set_table
        from study.runs.jobs import runtime_of
        from study.uses.files import write_test_sets
        from study.uses.test_sets import PER_BIN, small_test_sets
        from study.uses.zoo import right_on_test

        runs = analysis.load_runs(opened, dataset, store)
        right = right_on_test(dataset, seed=opened.seed, runtime=runtime_of(opened), stop=stop, bar=bar)
        sets = small_test_sets(
            runs, dataset, right, per_bin=per_bin or PER_BIN, bins=bins, draws=draws, seed=opened.seed
        )
        print_line(f"{right.shape[1]} classifiers; test examples in each bin, hardest first: {sets.bins.tolist()}")
        small_test_set_table(sets)
        for file in write_test_sets(sets, out) if out else []:
            print_line(str(file))
