"""A study that is finished.  in: a recipe, a Dataset, a Store   out: its runs, without torch, at a second command

What a finished launch has trained is on its last run: a digest of all that decides its results, and the ids of its
runs.  The record counts as long as these runs can be read and nothing was logged of these data since; where it does
not count, the launch finds out run by run what is missing.
"""

import hashlib

from study import plugins
from study.code_hash import package_digest
from study.data import Dataset
from study.errors import StoreError
from study.progress import say
from study.recipe import Recipe, dump
from study.tracking import Run, Store

FINISHED, RUNS = "study.finished", "study.finished_runs"
READ = ("ensemble", "single", "reference")  # kinds of runs that a report reads


def mark_finished(runs: list[Run], recipe: Recipe, dataset: Dataset) -> None:
    """Write the record of a launch that has ended with these runs on the last of them."""
    runs[-1].tag(RUNS, " ".join(run.id for run in runs))
    runs[-1].tag(FINISHED, _digest(recipe, dataset))


def finished_study(recipe: Recipe, dataset: Dataset, store: Store) -> list[Run] | None:
    """The runs of an earlier launch of the same recipe, data and code; None where something may be missing."""
    recorded = store.find(tags={FINISHED: _digest(recipe, dataset)}, status="FINISHED", max=1)
    if not recorded:
        return None
    ids = recorded[0].tags[RUNS].split()
    try:
        runs = [store.get(run_id) for run_id in ids]
    except StoreError:  # one was deleted
        return None
    if any(run.status != "FINISHED" or run.verify() for run in runs):
        return None
    since = (run for run in store.find(READ, tags={"study.data": dataset.digest}) if run.id not in ids)
    begun = runs[-1].started
    if any(run.ended is None or run.ended >= begun for run in since):
        return None
    for run in runs:
        say(f"{run.experiment}: {run.name}, finished before")
    return runs


def _digest(recipe: Recipe, dataset: Dataset) -> str:
    """Of the recipe, the data, the plugins and this package's code."""
    parts = (dump(recipe), recipe.kind, dataset.digest, str(plugins.tags()), package_digest())
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
