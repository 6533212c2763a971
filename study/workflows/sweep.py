"""A whole sweep.  in: a recipe with [sweep], a Store   out: its cells trained, the run that names them"""

import threading

from study.experiments.sweep import run_sweep
from study.progress import Bar, quiet
from study.recipe import Recipe
from study.tracking import Run, Store
from study.workflows.preflight import check_data, check_sweep


def work_sweep(recipe: Recipe, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet) -> Run:
    """Check every cell without and with its data, train what is missing.

    Returns:
        The sweep's run.

    Raises:
        StudyError: a cell at fault, before anything trains; cells that failed, or files that cannot be read, after all
            others were trained.
        Stopped: `stop` was set.
    """
    check_sweep(recipe)
    sweep = run_sweep(recipe, store, check=check_data, stop=stop, bar=bar)
    store.verify()
    return sweep
