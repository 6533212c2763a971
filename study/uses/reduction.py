"""Smaller training sets (Z-reduce).  in: runs of a study   out: keep lists, trainings on them, accuracy by share"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.analysis import StudyRuns, load_runs
from study.data import Dataset
from study.data.edits import PREFIX
from study.errors import AnalysisError, RecipeError
from study.experiments.sweep import run_sweep
from study.figures.uses import accuracy_by_share
from study.progress import Bar, quiet
from study.recipe import Recipe, Sweep
from study.scores.selection import RULES, select
from study.tracking import Run, Store
from study.uses.scores import DENSITY, chosen_scores, folder_of_lists, training_scores
from study.uses.trainings import accuracy_and_gain, check_test_split, sweep_of_single_runs

RANDOM = "random"
USUAL = (RANDOM, "density", "cbtl:hard", "forgetting_events:hard", "el2n:hard", "aum:hard")
OF_CSCORES = ("cscore_soft:easy", "cscore_soft:middle", "cscore_soft:hard", "cscore_soft:strata")
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Reduction:
    """Accuracies after training on parts of the training set.

    table: a row per list and share: `by` `share` `n` (examples) `runs` | `accuracy` `low` `high` (Student's 95 %
        interval over the runs) | `gain` `gain_low` `gain_high` (over random lists of the same share, Welch's interval).
    runs: a row per run: `by` `share` `n` `accuracy` `run`.
    folder: of the keep lists.
    sweep: the run that names all trainings.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    folder: Path
    sweep: Run


def reduce_training_set(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    *,
    by: Sequence[str] = (),
    shares: Sequence[float] = SHARES,
    repeats: int = 3,
    same_steps: bool = True,
    train: Mapping[str, Any] | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> Reduction:
    """Train on parts of the training set that scores choose, and on random parts; what is finished is not repeated.

    Args:
        recipe: of finished runs, whose network is trained.
        dataset: that they were trained on.
        store: where they are and where the trainings go.
        by: which lists: `SCORE:RULE` with a C-score or proxy and easy, hard, middle or strata, which says what is kept;
            `density`, which keeps what is least dense in Zhang's plane; `random`.  The usual ones unless given.  Of a
            class that a list leaves out one example is added, drawn at random.
        shares: of the training examples that are kept.
        repeats: trainings on each list; of random lists one on each of as many draws.
        same_steps: as many updates as on all examples; else as many epochs.
        train: keys of [train] that differ in these trainings from the recipe's single runs, such as `batch_size`.
        baselines: further scores by name, (n_train,) each, high means easy.
        stop: set to end after the step under way.
        bar: display of the progress.

    Raises:
        AnalysisError: runs that are missing, or a score that they lack.
        StudyError: a list without examples of a class.
        Stopped: `stop` was set.
    """
    check_test_split(dataset)
    if recipe.data.keep:
        raise AnalysisError("data.keep has cut these data already; start from the recipe without it")
    if not shares or not all(0 < share < 1 for share in shares):
        raise AnalysisError("the shares that are kept lie between 0 and 1, such as 0.1 and 0.5; all examples are added")
    runs = load_runs(recipe, dataset, store)
    folder = folder_of_lists("keep", recipe, dataset, store)
    scores = training_scores(runs, dataset) | dict(baselines or {})
    lists = _write_lists(scores, recipe, dataset, folder, by or _usual(runs), shares, repeats)
    swept = _sweep_recipe(recipe, dataset, lists, repeats, same_steps, train or {})
    sweep = run_sweep(swept, store, dataset=dataset, stop=stop, bar=bar)
    trained = _accuracies(sweep, lists, store)
    reduction = Reduction(_table(trained), trained, folder, sweep)
    sweep.table("reduction.parquet", reduction.table)
    sweep.figure(accuracy_by_share(reduction.table), "figures/reduction.png")
    return reduction


def _usual(runs: StudyRuns) -> tuple[str, ...]:
    """The lists that these runs can give."""
    proxies = {name for table in runs.scores for name in table}
    usable = [by for by in USUAL if ":" not in by or by.partition(":")[0] in proxies]
    return (*(by for by in usable if by != DENSITY or runs.singles), *(OF_CSCORES if runs.ensemble else ()))


@dataclass(frozen=True)
class _List:
    by: str
    share: float
    n: int
    path: str


def _write_lists(
    scores: dict[str, np.ndarray],
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    by: Sequence[str],
    shares: Sequence[float],
    repeats: int,
) -> list[_List]:
    """Write every keep list, the one of all examples too."""
    lists: list[_List] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(by):
        for share in shares:
            for number in range(repeats if name == RANDOM else 1):
                rng = recipe.stream("keep", name, str(share), number)
                rows = _of_each_class(_rows(name, share, scores, dataset.n_train, rng), dataset, rng)
                file = f"{name.replace(':', '_')}_{100 * share:g}" + (f"_{number}" if name == RANDOM else "")
                lists.append(_List(name, share, len(rows), _write(dataset, rows, folder / f"{file}.csv")))
    everything = _write(dataset, np.arange(dataset.n_train), folder / "all.csv")
    return [*lists, _List("all", 1.0, dataset.n_train, everything)]


def _rows(by: str, share: float, scores: dict[str, np.ndarray], n_train: int, rng: np.random.Generator) -> np.ndarray:
    if by == RANDOM:
        return select(np.zeros(n_train), share, "easy", rng)
    name, _, rule = by.partition(":")
    if by == DENSITY:
        return select(chosen_scores(scores, DENSITY), share, "hard", rng)
    if rule not in RULES:
        raise AnalysisError(f"--by {by}: write {name}:easy, :hard, :middle or :strata, for what is kept")
    return select(chosen_scores(scores, name), share, rule, rng)


def _of_each_class(rows: np.ndarray, dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """The rows, and one at random of each class that they leave out: no network can be trained without."""
    labels = dataset.labels[: dataset.n_train]
    missing = np.setdiff1d(labels, labels[rows])
    return np.sort(np.concatenate([rows, [rng.choice(np.flatnonzero(labels == label)) for label in missing]])).astype(
        int
    )


def _write(dataset: Dataset, rows: np.ndarray, path: Path) -> str:
    lines = [f'"{name}",{PREFIX}{dataset.digest}' for name in (text.replace('"', '""') for text in dataset.ids[rows])]
    path.write_text("\n".join(["example,data_digest", *lines, ""]), encoding="utf-8")
    return str(path)


def _sweep_recipe(
    recipe: Recipe,
    dataset: Dataset,
    lists: list[_List],
    repeats: int,
    same_steps: bool,
    train: Mapping[str, Any],
) -> Recipe:
    """Single runs over the lists: random ones are trained once each, the others as often as asked for."""
    single = recipe.part("single")
    if same_steps and single.schedule.milestones and single.schedule.unit == "epochs":
        raise RecipeError("schedule.unit = 'epochs' falls too early on a part of the data; set schedule.unit = 'share'")
    steps = {"steps": single.train.length(dataset.n_train)[1]} if same_steps else {}
    drawn = [each.path for each in lists if each.by == RANDOM]
    others = [each.path for each in lists if each.by != RANDOM]
    repeated = {"single.repeats": [1, repeats]} if drawn and repeats > 1 else {"single.repeats": [repeats]}
    sweep = Sweep(
        values={"data.keep": tuple(each.path for each in lists)} | {k: tuple(v) for k, v in repeated.items()},
        exclude=({"data.keep": drawn, "single.repeats": repeats}, {"data.keep": others, "single.repeats": 1})
        if len(repeated["single.repeats"]) > 1
        else (),
    )
    return sweep_of_single_runs(recipe, "reduce", {"train": {**train, **steps}}, sweep)


def _accuracies(sweep: Run, lists: list[_List], store: Store) -> pd.DataFrame:
    cells, by_path = sweep.read_table("cells.parquet"), {each.path: each for each in lists}
    rows = []
    for path, run in zip(cells["data.keep"], cells["run"], strict=True):
        kept = by_path[path]
        accuracy = store.get(run).metrics["test/accuracy"]
        rows.append({"by": kept.by, "share": kept.share, "n": kept.n, "accuracy": accuracy, "run": run})
    return pd.DataFrame(rows)


def _table(trained: pd.DataFrame) -> pd.DataFrame:
    """A row per list and share, the largest share last, the most accurate list first."""
    rows = [
        _table_row(trained, by, share) for by, share in dict.fromkeys(zip(trained["by"], trained["share"], strict=True))
    ]
    return pd.DataFrame(sorted(rows, key=lambda row: (row["share"], -row["accuracy"])))


def _table_row(trained: pd.DataFrame, by: str, share: float) -> dict[str, Any]:
    same = trained["share"] == share
    drawn, rows = trained[same & (trained["by"] == RANDOM)], trained[same & (trained["by"] == by)]
    measured = accuracy_and_gain(rows["accuracy"], None if by == RANDOM else drawn["accuracy"])
    return {"by": by, "share": share, "n": max(rows["n"].tolist()), "runs": len(rows), **measured}
