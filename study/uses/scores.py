"""The scores that a use of them can choose from.  in: runs of a study   out: {name: (n_train,)}, a folder for files"""

import hashlib
import json
from pathlib import Path

import numpy as np

from study.analysis import StudyRuns
from study.analysis.single_run import planes
from study.data import Dataset
from study.errors import AnalysisError, did_you_mean
from study.experiments.cells import parts
from study.proxies import PROXIES, oriented
from study.recipe import Recipe
from study.tracking import Store

DENSITY = "density"  # in Zhang's plane
RADIUS = 1.0  # epochs and events; Z-reduce finds it the best


def training_scores(runs: StudyRuns, dataset: Dataset) -> dict[str, np.ndarray]:
    """Every score of the training examples, (n_train,) each, high means easy; of proxies the means over the repeats.

    The names are `cscore`, `cscore_soft`, `published`, as far as there are any, the proxies', and `density` of an
    example's neighbourhood in the plane of learning speed and forgetting events (Zhang): dense means redundant.
    """
    rows = dataset.rows("train")
    columns = ("cscore", "cscore_soft", "published")
    scores = {
        name: runs.cscores[name].to_numpy(dtype=float)[rows]
        for name in columns
        if name in runs.cscores and np.isfinite(runs.cscores[name].to_numpy(dtype=float)).any()
    }
    for name, spec in PROXIES.items():
        if spec.on == "train" and runs.scores and all(name in table for table in runs.scores):
            repeats = [oriented(spec, table[name].to_numpy(dtype=float)[rows]) for table in runs.scores]
            scores[name] = np.mean(repeats, axis=0)
    densities = [planes(run, dataset, RADIUS).get("train") for run in runs.singles]
    if densities and all(table is not None for table in densities):
        scores[DENSITY] = np.mean([table["density"] for table in densities if table is not None], axis=0)
    return scores


def chosen_scores(scores: dict[str, np.ndarray], name: str) -> np.ndarray:
    """One of the scores.

    Raises:
        AnalysisError: there is none of this name.
    """
    if name not in scores:
        raise AnalysisError(f"these runs have no score {name!r}{did_you_mean(name, scores)}")
    return scores[name]


def folder_of_lists(kind: str, recipe: Recipe, dataset: Dataset, store: Store) -> Path:
    """Where files made of a recipe's scores go: a folder of their own for each data set and recipe.

    Two recipes share one only if they give the same scores: they train alike, as often, and compute the same proxies.

    Args:
        kind: of the files, the first folder's name.
        recipe: whose scores they are made of.
        dataset: that it was trained on.
        store: below whose root the folder lies; it is not made.
    """
    trainings = [part.digest() for part in parts(recipe)]
    counts = recipe.model_dump(mode="json", include={"subset", "proxies", "signals"}) | {
        "repeats": recipe.single.repeats
    }
    digest = hashlib.sha256(json.dumps([trainings, counts], sort_keys=True).encode()).hexdigest()[:16]
    return store.root / kind / dataset.digest / digest
