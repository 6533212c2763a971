"""Score finished single runs.  in: a recipe, a Dataset, a Store   out: runs with the recipe's proxies, untrained"""

import threading

from study.data import Dataset
from study.errors import StoreError
from study.progress import command
from study.proxies import Spec
from study.recipe import Recipe
from study.runs.ensemble import waiting
from study.runs.rescore import all_lacking, explain
from study.runs.single import finished_run, repeat_keys, score_finished
from study.signals import wanted
from study.tracking import Run, Store


def score_singles(recipe: Recipe, dataset: Dataset, store: Store) -> list[Run]:
    """Compute the recipe's proxies of finished single runs from what these have kept; nothing is trained.

    Returns:
        The run of each repeat that has them all, as `run_singles` does.

    Raises:
        StoreError: a repeat without a finished run, or proxies that need what no finished run has kept.
    """
    recipe = recipe.part("single")
    specs, runs = wanted(recipe.proxies, dataset), []
    with store.lock(f"single-{recipe.digest()}-{dataset.digest}", waiting("this single run", threading.Event())):
        for repeat in range(recipe.single.repeats):
            tags = repeat_keys(recipe, dataset, repeat)
            run = finished_run(store, tags, recipe, dataset, specs) or score_finished(
                store, recipe, dataset, specs, repeat
            )
            if run is None:
                _explain_unscored(store.find("single", tags=tags, status="FINISHED"), recipe, dataset, specs, repeat)
            else:
                runs.append(run)
    return runs


def _explain_unscored(before: list[Run], recipe: Recipe, dataset: Dataset, specs: list[Spec], repeat: int) -> None:
    """Raise the StoreError that says why a repeat has no scores."""
    if not before:
        raise StoreError(f"repeat {repeat}: no finished single run of this recipe; run `{command('single')}` with it")
    lacking = all_lacking(before[0], recipe, dataset, specs)
    if lacking:
        raise StoreError(explain(lacking))
    raise StoreError(
        f"repeat {repeat}: no finished run keeps the networks of single.keep = {recipe.single.keep!r}; "
        f"leave it out, or run `{command('single')}`, which trains again"
    )
