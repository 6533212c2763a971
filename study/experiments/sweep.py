"""A sweep.  in: a recipe with [sweep], a Store   out: a run per cell and repeat, and one that names them all

A cell is trained as a recipe of its own would be: shards and repeats that are finished are found by digest, whoever
has trained them, and a killed launch loses what its last shard or single run had done.
"""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from study.data import Dataset, open_data
from study.errors import Stopped, StoreError, StudyError
from study.experiments.cells import Cell, cells, sweep_digest
from study.progress import Bar, quiet
from study.recipe import Recipe, dump, flatten
from study.runs.ensemble import run_ensemble, waiting
from study.runs.single import run_singles
from study.tracking import Run, Store, descriptions

log = logging.getLogger(__name__)
LONGEST = 1000  # letters of a parameter
PARENT = "mlflow.parentRunId"


class CellData:
    """The data sets of cells, opened when they are needed; the last one is kept, for cells differ in it seldom.

    Keep lists are applied to it, without reading it anew.
    """

    def __init__(self, dataset: Dataset | None = None) -> None:
        """Take `dataset` for every cell, from Python, and the keep lists of each; else the recipe's own is opened."""
        self.given, self.key = dataset, ""
        self.last: Dataset | None = dataset

    def __call__(self, recipe: Recipe) -> Dataset:
        """The data of one cell.

        Raises:
            DataError: see `open_data`.
        """
        keep, whole = recipe.data.keep, recipe.data.model_copy(update={"keep": None})
        key = json.dumps([whole.model_dump(), recipe.noise.model_dump(), recipe.seed])
        if self.last is None or (self.given is None and key != self.key):
            self.last, self.key = open_data(whole, recipe.noise, seed=recipe.seed), key
        return self.last.with_only(keep) if keep else self.last


def run_sweep(
    recipe: Recipe,
    store: Store,
    *,
    dataset: Dataset | None = None,
    check: Callable[[Recipe, Dataset], None] = lambda recipe, dataset: None,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> Run:
    """Check every cell, then train what is missing of each.

    Args:
        recipe: with values under [sweep].
        store: where runs go and where finished ones are found.
        dataset: of all cells, before their keep lists; None: opened by each cell's recipe.
        check: of a cell's recipe and data, before any cell trains; raises a StudyError.
        stop: set to end after the step under way; the same call resumes.
        bar: display of the progress of one cell.

    Returns:
        The sweep's run, FINISHED, with `cells.parquet`: a row per run, `cell` (number), a column per varied name,
        `kind`, `repeat`, `run` (its id).  The runs have the tag `study.sweep.<digest>`, the number of the
        cell; those without a parent become its children.

    Raises:
        StudyError: a cell that cannot be trained, before any training; or, after all others were, cells that failed.
        Stopped: `stop` was set.
    """
    listed, data = cells(recipe), CellData(dataset)
    digest = sweep_digest(listed, check_cells(listed, data, check))
    stop = stop or threading.Event()
    experiment = f"{recipe.data.title}/sweep"
    with store.lock(f"sweep-{digest}", waiting("this sweep", stop), experiment=experiment, lost=stop.set):
        tags = {"study.sweep": digest}
        store.reap(tags, lambda run: run.tags.get("study.kind") == "sweep")
        earlier = store.find("sweep", tags=tags, max=1)
        sweep = store.resume(earlier[0]) if earlier else _start(recipe, store, digest, listed)
        with sweep:
            try:
                failed = _train_partss(sweep, listed, data, store, stop, bar)
            except Stopped:
                sweep.kill("stopped on request; the same command resumes it")
                raise
            if failed:
                raise StoreError(f"sweep: {len(failed)} of {len(listed)} cells failed, the first is {failed[0]}")
        return store.get(sweep.id)


def check_cells(
    listed: Sequence[Cell], data: CellData, check: Callable[[Recipe, Dataset], None] = lambda recipe, dataset: None
) -> list[str]:
    """Check each cell with its data; the digests of the data.

    Raises:
        StudyError: the first cell at fault, in one line.
    """
    digests = []
    for cell in listed:
        try:
            dataset = data(cell.recipe)
            check(cell.recipe, dataset)
        except StudyError as error:
            raise type(error)(f"sweep: cell {cell.name}: {error}") from None
        digests.append(dataset.digest)
    return digests


def _start(recipe: Recipe, store: Store, digest: str, listed: Sequence[Cell]) -> Run:
    values = {name: _listed(values) for name, values in recipe.sweep.values.items()}
    run = store.start(
        f"{recipe.data.title}/sweep",
        f"{len(listed)} cells {digest[: descriptions.SHORT]}",
        params={**flatten(recipe), **values, "sweep.repeats": recipe.sweep.repeats or recipe.single.repeats},
        tags={"study.kind": "sweep", "study.sweep": digest},
        description=descriptions.sweep_note(recipe, digest, len(listed)),
    )
    run.text("recipe.toml", dump(recipe))
    return run


def _listed(values: Sequence[Any]) -> str:
    """All values of a name; how many there are where MLflow would refuse so long a text."""
    text = " | ".join(map(_text, values))
    return text if len(text) <= LONGEST else f"{len(values)} values, see cells.parquet"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _train_partss(
    sweep: Run, listed: Sequence[Cell], data: CellData, store: Store, stop: threading.Event, bar: Bar
) -> list[str]:
    """Train cell by cell, tag the runs; what failed, with the reason."""
    failed, rows = [], []
    for number, cell in enumerate(listed):
        log.info(f"cell {number + 1} of {len(listed)}: {cell.name}")
        try:
            runs = train_parts(cell.recipe, data(cell.recipe), store, stop=stop, bar=bar)
        except StudyError as error:
            log.warning(f"cell {cell.name}: {error}")
            failed.append(f"{cell.name}: {error}")
            continue
        for run in runs:
            _join(sweep, run, number)
            rows.append(_row(number, cell, run))
        sweep.log({"cells/done": number + 1 - len(failed)}, step=number)
    if rows:
        sweep.table("cells.parquet", pd.DataFrame(rows))
    return failed


def train_parts(
    recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> list[Run]:
    """Train what a recipe's kind names, the ensemble first; what is finished is found."""
    runs = []
    if recipe.kind in ("study", "ensemble"):
        runs.append(run_ensemble(recipe, dataset, store, stop=stop, bar=bar))
    if recipe.kind in ("study", "single"):
        runs += run_singles(recipe, dataset, store, stop=stop, bar=bar)
    return runs


def _join(sweep: Run, run: Run, number: int) -> None:
    """Tag a run as one of this sweep's; a run that has no parent becomes its child."""
    run.tag(f"study.sweep.{sweep.tags['study.sweep']}", number)
    if run.parent is None:
        run.tag(PARENT, sweep.id)


def _row(number: int, cell: Cell, run: Run) -> dict[str, Any]:
    values = {name: _text(value) for name, value in cell.values.items()}
    repeat = int(run.params.get("repeat", 0))
    return {"cell": number, **values, "kind": run.tags["study.kind"], "repeat": repeat, "run": run.id}
