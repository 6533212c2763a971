"""Finished runs side by side.  in: groups of runs   out: accuracies, agreement between groups, learning curves"""

import itertools
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import pearsonr

from study.analysis.by_epoch import trajectory
from study.errors import AnalysisError, Stopped
from study.experiments.arpit import FittingCurves, capacity_and_time, fitting_curves, has_noise
from study.experiments.findings import Finding
from study.experiments.select import Group, group_runs
from study.experiments.zhang import densities_of
from study.scores.rank_statistics import Correlation, kendall, spearman
from study.tracking import Run, Store

log = logging.getLogger(__name__)
LAST = 10  # epochs whose test accuracies J-tab3 averages
LAST_COLUMN = f"test/accuracy, last {LAST} epochs"
METRICS = {
    "single": ("test/accuracy", "train/accuracy", "train/loss", "time/train_s"),
    "ensemble": ("test/accuracy", "holdout/accuracy", "cscore/mean", "reliability/full", "time/train_s"),
}
CSCORES = ("cscore", "cscore_soft")
KEYS = ("example", "label", "clean_label", "split")
DENSITY = "density in Zhang's plane"


def compare_runs(
    runs: Sequence[Run], store: Store, *, only: Sequence[str] = (), stop: threading.Event | None = None
) -> "Comparison":
    """Set finished runs side by side: accuracies, agreement of their scores, learning curves by C-score.

    Args:
        runs: ensembles and single runs; those that differ in repeat and seed alone are averaged.
        store: where C-scores for the learning curves are looked for if no ensemble is among the runs; published ones
            count where there are no others.
        only: see `agreement`.
        stop: see `agreement`.

    Raises:
        AnalysisError: there are no runs, or a score of `only` is in none.
        Stopped: `stop` was set.
    """
    groups = group_runs(runs)
    if unknown := set(only) - {name for group in groups for name, _ in group_scores(group, only)}:
        names = ", ".join(sorted(unknown))
        raise AnalysisError(f"none of these runs has a score {names}; without --score all are shown")
    singles = [group for group in groups if group.kind == "single"]
    noisy = singles if has_noise(singles) else []
    fitting = [fitting_curves(group) for group in noisy]
    return Comparison(
        accuracy_table(groups),
        agreement(groups, only=only, stop=stop),
        learning_curves(groups, store),
        fitting,
        capacity_and_time(noisy, fitting),
    )


@dataclass(frozen=True)
class LearningCurves:
    """Curves of one group of single runs by C-score.

    epochs: (e,) after which the examples were evaluated.
    correct: (e, n) the share of the repeats that classify each training example correctly.
    cscore: (n,) of the examples.
    ensemble: name of the run that the C-scores are from, an ensemble or published ones.
    """

    label: str
    epochs: np.ndarray
    correct: np.ndarray
    cscore: np.ndarray
    ensemble: str


@dataclass(frozen=True)
class Comparison:
    """What several runs say beside each other.

    accuracies: see `accuracy_table`.
    agreement: see `agreement`.
    learning_curves: by C-score, of each group of single runs whose data have C-scores.
    fitting: by kind of label, of each group of single runs where noise differs between groups; else empty.
    capacity: of the same groups, see `study.experiments.arpit.capacity_and_time`.
    findings: of the analyses that were named, see `study.experiments.analyses`.
    """

    accuracies: pd.DataFrame
    agreement: pd.DataFrame
    learning_curves: Sequence[LearningCurves]
    fitting: Sequence[FittingCurves]
    capacity: pd.DataFrame
    findings: Sequence[Finding] = ()

    def summary(self) -> pd.DataFrame:
        """The agreement over all pairs: score | split | pairs | pearson, spearman, kendall, mean and lowest of each."""
        grouped = self.agreement.groupby(["score", "split"], sort=False)
        columns = {"pairs": grouped.size()}
        for name in ("pearson", "spearman", "kendall"):
            columns |= {name: grouped[name].mean(), f"lowest {name}": grouped[name].min()}
        return pd.DataFrame(columns).reset_index()


def accuracy_table(groups: Sequence[Group]) -> pd.DataFrame:
    """Means over the repeats of each group.

    Returns:
        kind | a column per parameter that differs | runs, their number | a column per metric, its mean | for test
        accuracies of several runs `test/accuracy, SD` (n - 1) | for single runs the mean of the test accuracies of the
        last ten epochs (J-tab3).  Columns that no group has are left out.
    """
    rows = []
    for group in groups:
        row: dict[str, object] = {"kind": group.kind, **group.differing, "runs": len(group.runs)}
        for name in METRICS[group.kind]:
            row[name] = _mean([run.metrics.get(name, np.nan) for run in group.runs])
        tests = [run.metrics.get("test/accuracy", np.nan) for run in group.runs]
        row["test/accuracy, SD"] = float(np.std(tests, ddof=1)) if len(tests) > 1 else np.nan
        if group.kind == "single":
            row[LAST_COLUMN] = _mean([last_epochs(run) for run in group.runs])
        rows.append(row)
    table = pd.DataFrame(rows)
    first = ["kind", *sorted({name for group in groups for name in group.differing}), "runs"]
    ordered = table.reindex(columns=[*first, *(name for name in table if name not in first)])
    return ordered.dropna(axis="columns", how="all")


def last_epochs(run: Run) -> float:
    """Mean test accuracy over the evaluations of the last ten epochs (J-tab3); NaN without test examples."""
    points = run.read_series("test/accuracy") if "test/accuracy" in run.metrics else []
    return _mean([value for step, value in points if step > points[-1][0] - LAST])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def agreement(
    groups: Sequence[Group], *, only: Sequence[str] = (), stop: threading.Event | None = None
) -> pd.DataFrame:
    """Correlate the scores of every two groups of one kind on the same data, example by example.

    Scores are averaged over the repeats first, as in Zhang's Table 2.  Of ensembles these are the C-scores of the
    training examples, of single runs the proxies and the densities in Zhang's plane, which are counted run by run.

    Args:
        groups: those on different data (other noise, other examples) are not paired.
        only: these scores; none named: all that both groups have.
        stop: set to end between two pairs.

    Returns:
        score | split | a, b (labels of the groups) | pearson spearman kendall, each with its 95 % interval `_low`,
        `_high` (Pearson's by Fisher's z) | n examples.  A coefficient is NaN where one side is constant.

    Raises:
        Stopped: `stop` was set.

    Source: Z-tab2, Z-fig11.
    """
    columns = ["score", "split", "a", "b", *_names("pearson"), *_names("spearman"), *_names("kendall"), "n"]
    scores = [group_scores(group, only) for group in groups]
    rows = []
    for (a, left), (b, right) in itertools.combinations(zip(groups, scores, strict=True), 2):
        if (a.kind, a.data) != (b.kind, b.data):
            continue
        for name in (name for name in left if name in right):
            if stop is not None and stop.is_set():
                raise Stopped
            score, split = name
            paired = pd.concat([left[name], right[name]], axis=1, join="inner").to_numpy(dtype=float)
            row = {"score": score, "split": split, "a": a.label, "b": b.label}
            rows.append(row | correlated(paired[:, 0], paired[:, 1]))
    return pd.DataFrame(rows, columns=columns)


def correlated(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Pearson's, Spearman's and Kendall's coefficient of two (n,) scores with their 95 % intervals, and n."""
    ranks, tau = spearman(x, y), kendall(x, y)
    row: dict[str, float] = {}
    for name, value in (("pearson", _pearson(x, y, ranks)), ("spearman", ranks), ("kendall", tau)):
        row |= dict(zip(_names(name), value[:3], strict=True))
    return row | {"n": ranks.n}


def _pearson(x: np.ndarray, y: np.ndarray, ranks: Correlation) -> Correlation:
    both = np.isfinite(x) & np.isfinite(y)
    if not np.isfinite(ranks.value) or both.sum() < 4:
        return Correlation(np.nan, np.nan, np.nan, int(both.sum()))
    result: Any = pearsonr(x[both], y[both])  # whose statistic the stubs do not know
    low, high = result.confidence_interval(0.95)
    return Correlation(float(result.statistic), float(low), float(high), int(both.sum()))


def _names(measure: str) -> list[str]:
    return [measure, f"{measure}_low", f"{measure}_high"]


def group_scores(group: Group, only: Sequence[str] = ()) -> dict[tuple[str, str], pd.Series]:
    """{(score, split): values by example}, each the mean over the runs of the group; scores that all of them have."""
    of_runs = [_ensemble_scores(run) if group.kind == "ensemble" else _single_scores(run) for run in group.runs]
    names = [name for name in of_runs[0] if all(name in scores for scores in of_runs)]
    wanted = [name for name in names if not only or name[0] in only]
    return {name: pd.concat([scores[name] for scores in of_runs], axis=1).mean(axis=1, skipna=False) for name in wanted}


def _ensemble_scores(run: Run) -> dict[tuple[str, str], pd.Series]:
    table = run.read_table("cscore.parquet").set_index("example")
    train = (table["split"] == "train").to_numpy()
    return {(name, "train"): pd.Series(table.loc[train, name]) for name in CSCORES}


def _single_scores(run: Run) -> dict[tuple[str, str], pd.Series]:
    table = run.read_table("scores.parquet").set_index("example")
    scores = {}
    for name in (name for name in table if name not in KEYS):
        defined = pd.Series(table[name]).dropna()
        for split, values in defined.groupby(table["split"], sort=False):
            scores[str(name), str(split)] = values
    densities = densities_of(run, table)
    return scores | {(DENSITY, split): values for split, values in densities.items()}


def learning_curves(groups: Sequence[Group], store: Store) -> list[LearningCurves]:
    """The curves of every group of single runs on whose data there are C-scores (J-fig10, J-fig17 to 19).

    The C-scores are those of the newest ensemble among the groups, else of the newest in the store, else the published
    ones that `study reference` has kept.
    """
    sources: dict[str, Run] = {}
    for group in groups:
        if group.kind == "ensemble":
            sources[group.data] = max((*group.runs, sources.get(group.data, group.runs[0])), key=_started)
    curves = []
    for group in groups:
        if group.kind != "single":
            continue
        if group.data not in sources:
            tags = {"study.data": group.data}
            kept = [store.find(kind, tags=tags, status="FINISHED", max=1) for kind in ("ensemble", "reference")]
            newest = [*kept[0], *kept[1]]
            if not newest:
                log.warning(f"no C-scores of the data of {group.label}: its learning curves are left out")
                continue
            sources[group.data] = newest[0]
        curves.append(curves_of(group, sources[group.data]))
    return curves


def _started(run: Run) -> int:
    return run.started


def curves_of(group: Group, source: Run) -> LearningCurves:
    """The learning curves of one group of single runs by C-scores of the same examples, or more.

    Args:
        group: of single runs.
        source: an ensemble, or published C-scores.
    """
    published = "reference.parquet" in source.files
    scores = source.read_table("reference.parquet" if published else "cscore.parquet").set_index("example")["cscore"]
    table = group.runs[0].read_table("scores.parquet")
    train = (table["split"] == "train").to_numpy()
    first = trajectory(group.runs[0])
    total = first["correct"][:, train].astype(float)
    for run in group.runs[1:]:
        total += trajectory(run)["correct"][:, train]
    cscore = scores.reindex(table.loc[train, "example"]).to_numpy(dtype=float)
    return LearningCurves(group.label, first["epochs"], total / len(group.runs), cscore, source.name)
