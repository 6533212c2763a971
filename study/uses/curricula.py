"""Curricula and weights by a score.  in: runs of a study   out: a sweep over orders and budgets, accuracies"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.analysis import load_runs
from study.data import Dataset
from study.errors import AnalysisError
from study.experiments.sweep import run_sweep
from study.figures.uses import accuracy_by_budget
from study.progress import Bar, quiet
from study.recipe import Recipe, Sweep
from study.scores.rank_statistics import midranks
from study.tracking import Run, Store
from study.uses.scores import chosen_scores, folder_of_lists, training_scores
from study.uses.trainings import accuracy_and_gain, check_test_split, sweep_of_single_runs

SHUFFLED = "shuffled"
ORDERS = ("easy-first", "hard-first", "random")
BUDGETS = (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Curricula:
    """Accuracies of trainings that take examples in other orders, or some more often.

    table: a row per way and budget: `way` `budget` `steps` `runs` | `accuracy` `low` `high` (Student's 95 % interval
        over the repeats) | `gain` `gain_low` `gain_high` (over shuffled training of the same length, Welch's interval).
        Ways: shuffled; easy-first, hard-first, random (ranked at random, paced alike); easy-weighted, hard-weighted
        (drawn with replacement, as often as the rank of the score says).
    folder: of the files of scores and weights.
    sweep: the run that names all trainings.
    """

    table: pd.DataFrame
    folder: Path
    sweep: Run


def compare_curricula(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    *,
    by: str,
    budgets: Sequence[float] = BUDGETS,
    repeats: int = 5,
    pacing: str = "linear",
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> Curricula:
    """Train with every order and weight by a score, for several lengths; what is finished is not repeated.

    Args:
        recipe: of finished runs, whose network is trained.
        dataset: that they were trained on.
        store: where they are and where the trainings go.
        by: the score, a C-score or a proxy; high means easy.
        budgets: lengths, as shares of the recipe's updates.
        repeats: trainings of each.
        pacing: of the curricula: linear, root, quadratic or step.
        stop: set to end after the step under way.
        bar: display of the progress.

    Raises:
        AnalysisError: no test split, runs that are missing, or a score that they lack.
        Stopped: `stop` was set.
    """
    check_test_split(dataset)
    if not budgets or not all(0 < budget < np.inf for budget in budgets):
        raise AnalysisError("budgets are shares of the recipe's updates, such as 0.3 and 1")
    scores = chosen_scores(training_scores(load_runs(recipe, dataset, store), dataset), by)
    folder = folder_of_lists("order", recipe, dataset, store)
    ways = _ways(_write(scores, dataset, folder, by), pacing)
    whole = recipe.part("single").train.length(dataset.n_train)[1]
    steps = {budget: max(1, round(budget * whole)) for budget in budgets}
    cells = {(way, budget): keys | {"steps": steps[budget]} for budget in steps for way, keys in ways.items()}
    swept = _sweep_recipe(recipe, list(cells.values()), repeats)
    sweep = run_sweep(swept, store, dataset=dataset, stop=stop, bar=bar)
    trained = sweep.read_table("cells.parquet")
    accuracy = {
        key: np.array(
            [store.get(run).metrics["test/accuracy"] for run in trained["run"][trained["single.train"] == str(keys)]]
        )
        for key, keys in cells.items()
    }
    table = pd.DataFrame([_row(way, budget, steps[budget], accuracy) for way, budget in cells])
    sweep.table("curricula.parquet", table)
    sweep.figure(accuracy_by_budget(table), "figures/curricula.png")
    return Curricula(table, folder, sweep)


def _write(scores: np.ndarray, dataset: Dataset, folder: Path, by: str) -> tuple[str, str]:
    """Files of scores and weights: in the first the easy examples weigh most, in the second the hard ones."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = midranks(scores) / len(scores)
    table = pd.DataFrame({"example": dataset.ids[: dataset.n_train], "score": scores, "weight": weights})
    paths = folder / f"{by}.csv", folder / f"{by}_hard.csv"
    for path, column in zip(paths, (weights, 1 + 1 / len(scores) - weights), strict=True):
        table.assign(weight=column).to_csv(path, index=False)
    return str(paths[0]), str(paths[1])


def _ways(files: tuple[str, str], pacing: str) -> dict[str, dict[str, Any]]:
    """The keys of [train] for each way."""
    orders = {order: {"order": order, "scores": files[0], "pacing": pacing} for order in ORDERS}
    weighted = {f"{kind}-weighted": {"weights": file} for kind, file in zip(("easy", "hard"), files, strict=True)}
    return {SHUFFLED: {"order": SHUFFLED}} | orders | weighted


def _sweep_recipe(recipe: Recipe, trainings: list[dict[str, Any]], repeats: int) -> Recipe:
    sweep = Sweep(values={"single.train": tuple(trainings)})
    return sweep_of_single_runs(recipe, "curricula", {"repeats": repeats}, sweep)


def _row(
    way: str, budget: float, steps: int, accuracy: dict[tuple[str, float], np.ndarray]
) -> dict[str, str | float | int]:
    values = accuracy[way, budget]
    measured = accuracy_and_gain(values, None if way == SHUFFLED else accuracy[SHUFFLED, budget])
    return {"way": way, "budget": budget, "steps": steps, "runs": len(values), **measured}
