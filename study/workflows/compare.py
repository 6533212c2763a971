"""Finished runs side by side.  in: recipes, a condition, a Store   out: a comparison, also with the sweep's run"""

import threading
from collections.abc import Sequence
from dataclasses import replace

from study.experiments.analyses import run_analyses
from study.experiments.compare import Comparison, compare_runs
from study.experiments.findings import FinishedRuns
from study.experiments.page import write_run
from study.experiments.select import group_runs, runs_of, runs_where
from study.recipe import Recipe
from study.tracking import Store


def work_comparison(
    recipes: Sequence[Recipe],
    condition: str,
    store: Store,
    *,
    only: Sequence[str] = (),
    analyses: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> Comparison:
    """Compare the finished runs of recipes and those that a condition selects.

    Of a single sweep, compared whole and alone, the comparison is kept with its run too.

    Args:
        recipes: whose `sweep.analyses` are made.
        condition: in MLflow's syntax; "": none.
        store: that the runs are in.
        only: see `study.experiments.compare.agreement`.
        analyses: further ids of `study.experiments.analyses`.
        stop: see `study.experiments.compare.agreement`.

    Raises:
        RecipeError: an analysis that is not there.
        AnalysisError: there are no such runs.
        StoreError: a condition that MLflow cannot read.
        Stopped: `stop` was set.
    """
    by_recipe = [runs_of(recipe, store) for recipe in recipes]
    runs = [run for of_recipe, _ in by_recipe for run in of_recipe] + (
        runs_where(condition, store) if condition else []
    )
    names = [*(name for recipe in recipes for name in recipe.sweep.analyses), *analyses]
    findings = run_analyses(names, FinishedRuns(group_runs(runs), store))
    comparison = replace(compare_runs(runs, store, only=only, stop=stop), findings=findings)
    sweeps = [sweep for _, sweep in by_recipe if sweep is not None]
    if len(recipes) == len(sweeps) == 1 and not condition and not only:
        write_run(comparison, sweeps[0])
    return comparison
