"""A whole study.  in: a recipe, a Dataset, a Store   out: runs in MLflow, the report among them"""

import logging
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from study.data import Dataset
from study.errors import Stopped, StoreError
from study.experiments.sweep import train_parts
from study.progress import Bar, quiet
from study.recipe import Recipe
from study.tracking import Run, Store, open_store
from study.tracking.sqlite_store import sqlite_uri
from study.workflows.finished import mark_finished

log = logging.getLogger(__name__)


def run_study(
    recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> list[Run]:
    """Train what the recipe's kind names; a whole study and single runs end with their report.

    Returns:
        The runs that hold the results: the ensemble, the single runs, the report.

    Raises:
        StoreError: a file that was logged cannot be read.
    """
    try:
        return _run_parts(recipe, dataset, store, stop, bar)
    finally:
        with suppress(StoreError):  # of the launch itself matters more
            store.checkpoint()


def _run_parts(recipe: Recipe, dataset: Dataset, store: Store, stop: threading.Event | None, bar: Bar) -> list[Run]:
    runs = train_parts(recipe, dataset, store, stop=stop, bar=bar)
    if recipe.kind in ("study", "single"):
        from study.report.build import run_report  # matplotlib; an ensemble alone does without

        if stop is not None and stop.is_set():
            raise Stopped
        log.info("report: correlations, then figures")
        runs.append(run_report(recipe, dataset, store, stop=stop))
    store.verify()
    mark_finished(runs, recipe, dataset)
    return runs


def export_report(
    recipe: Recipe, dataset: Dataset, store: Store, folder: Path, *, stop: threading.Event | None = None
) -> Path:
    """Write the files of the report into a folder, and nothing into the store, which may be read-only.

    Returns:
        The page.

    Raises:
        StoreError: the folder cannot be written.
    """
    from study.report.build import run_report

    with tempfile.TemporaryDirectory(prefix="study-") as place:
        run = run_report(
            recipe, dataset, store, into=open_store(Path(place), sqlite_uri(Path(place) / "mlflow.db")), stop=stop
        )
        try:
            for name in run.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run.read(name), folder / name)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}; choose another folder with --out") from error
    return folder / "report.html"
