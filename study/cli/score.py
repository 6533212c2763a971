"""The command `score`.  in: a recipe whose single runs are finished   out: where its scores are"""

from pathlib import Path

from study.cli.opening import open_study
from study.cli.options import Overrides, Plugins, RecipePath, Root
from study.progress import print_line


def score(recipe: RecipePath, overrides: Overrides = [], root: Root = Path("mlruns"), plugin: Plugins = []) -> None:
    """Compute proxies of finished single runs, without training.  Runs keep more with `single.keep`."""
    opened, dataset, store = open_study(recipe, overrides, root, plugin)
    from study.runs.score import score_singles

    for run in score_singles(opened, dataset, store):
        print_line(f"{run.name}: {store.link(run)}")
