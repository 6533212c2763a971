"""The scores of a single run, and the files that keep them.  in: a Collector   out: tables, files of a Run"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.data import Dataset
from study.proxies import PROXIES, Spec, compute
from study.proxies.learning_speed import online_agreement
from study.signals import Collector, Cost, conditions
from study.tracking import Run


@dataclass(frozen=True)
class SingleScores:
    """The proxies of one single run.

    table: a row for each example: example, label(s), split, a float32 column per proxy, NaN outside of its split.
    declared: per proxy what it declares and its conditions.
    costs: per proxy seconds and flops beyond the steps of the training.
    values: per proxy the scores of its split.
    """

    table: pd.DataFrame
    declared: dict[str, dict[str, Any]]
    costs: dict[str, dict[str, float]]
    values: dict[str, np.ndarray]


def score_single(collector: Collector) -> SingleScores:
    """Compute the proxies of what a training has collected."""
    dataset = collector.dataset
    table = pd.DataFrame({"example": dataset.ids, **dataset.label_columns, "split": dataset.split()})
    declared, costs, values = {}, {}, {}
    for spec in collector.specs:
        conditioned = conditions(spec, collector.recipe, dataset.n_train)
        computing = Cost()
        with computing.measured():
            values[spec.name] = compute(spec, collector.of(spec), conditioned["settings"])
        column = np.full(dataset.n, np.nan, dtype=np.float32)
        column[dataset.rows(spec.on)] = values[spec.name]
        table[spec.name] = column
        cost = collector.cost(spec) + computing
        shown = ("family", "easy", "unit", "label", "source", "on", "cost")
        declared[spec.name] = {key: getattr(spec, key) for key in shown} | conditioned
        costs[spec.name] = {"seconds": cost.seconds, "flops": cost.flops}
    return SingleScores(table, declared, costs, values)


def log_scores(run: Run, dataset: Dataset, collector: Collector) -> None:
    """Write the trajectory, the scores by epoch, and the table of final scores with what is declared about them.

    trajectory.npz: epochs (e,) after which all examples were evaluated; correct (e, ceil(n / 8)) packed bits;
    confidence, top_confidence (e, n) float32, because float16 ties everything above .9995; n, n_train.  Where a proxy
    reads them also loss, margin, error_norm (e, n) float32, predicted (e + 1, n) int16, online_correct (e,
    ceil(n_train / 8)) packed bits.  With `single.evaluate_steps` predicted is (t, n), after predicted_steps (t,) steps.
    curves.npz: epochs (w,), and (w, n of its split) float32 per proxy of one checkpoint but those on confidences.
    scores.json: per proxy what it declares, and its conditions.
    costs.json: per proxy what it cost beyond the steps of the training, seconds and flops of its signals and its own
    computation; see `Collector.cost`.  A file of its own, since no two trainings take equally long.
    """
    header = {"epochs": np.array(collector.evaluated, dtype=np.int64), "n": np.int64(dataset.n)}
    header |= {"predicted_steps": np.array(collector.steps, dtype=np.int64)} if collector.steps else {}
    run.arrays("trajectory.npz", **header, n_train=np.int64(dataset.n_train), **_series(collector))
    run.arrays(
        "curves.npz",
        epochs=np.array(collector.epochs, dtype=np.int64),
        **{name: np.stack(scores) for name, scores in collector.epoch_scores.items()},
    )
    scores = score_single(collector)
    run.table("scores.parquet", described(scores.table, scores.declared, dataset.digest))
    run.json("costs.json", scores.costs)
    run.json("scores.json", scores.declared)
    log_signals(run, collector, scores.values)


def described(table: pd.DataFrame, declared: Mapping[str, Mapping[str, Any]], digest: str) -> pd.DataFrame:
    """The table with what its columns mean in `attrs`, which pandas writes into the Parquet schema's metadata.

    Args:
        table: a column per proxy.
        declared: of each proxy what scores.json says.
        digest: of the data.
    """
    kept = ("easy", "unit", "on", "source", "settings")
    proxies = {
        name: {key: declared[name][key] for key in kept if key in declared[name]}
        | {"ties": PROXIES[name].ties, "never_learned": PROXIES[name].never_learned}
        for name in table
        if name in declared and name in PROXIES
    }
    table = table.copy(deep=False)
    table.attrs = {"study": {"ids": "example", "data": digest, "proxies": proxies}}
    return table


def _series(collector: Collector) -> dict[str, np.ndarray]:
    """Series as trajectory.npz holds them."""
    stacked = {name: np.stack(collector.series[name]) for name in collector.kept if collector.series.get(name)}
    return {name: np.packbits(array, axis=1) if array.dtype == bool else array for name, array in stacked.items()}


def log_signals(run: Run, collector: Collector, scores: dict[str, np.ndarray]) -> None:
    """Log what sources report of each checkpoint, what they cost in all, and how online states agree
    with those at epoch ends (Z-online)."""
    for source, memory in collector.memories.items():
        for epoch, numbers in memory.get("metrics", {}).items():
            run.log(numbers, step=epoch)
        if memory.get("arrays"):
            run.arrays(f"{source}.npz", **memory["arrays"])
    costs = collector.costs | collector.shared.costs
    numbers = {f"cost/{name}_s": cost.seconds for name, cost in costs.items()}
    numbers |= {f"cost/{name}_flops": float(cost.flops) for name, cost in costs.items()}
    for name in ("cbtl", "forgetting_events"):
        if name in scores and f"{name}_online" in scores:
            pearson, error = online_agreement(scores[name], scores[f"{name}_online"])
            numbers |= {f"online/{name}_pearson": pearson, f"online/{name}_mean_absolute_error": error}
    run.log({name: value for name, value in numbers.items() if np.isfinite(value)})


def merge_scores(run: Run, trained: Run, collector: Collector, specs: list[Spec]) -> None:
    """Write the scores that a finished run holds and those computed later as one run's.

    Its curves have the due epochs of the later ones, as if it had been trained with their recipe; held ones may be
    finer, and those that lack a due epoch were computed again, see `missing_proxies`.  Its trajectory has the series
    of both.
    """
    series = trained.read_arrays("trajectory.npz")
    run.arrays("trajectory.npz", **(_series(collector) | series))
    scores, names = score_single(collector), [spec.name for spec in specs]
    held, costs = trained.read_json("scores.json"), trained.read_json("costs.json")
    table = trained.read_table("scores.parquet").drop(columns=list(scores.values), errors="ignore")
    table = table.join(scores.table[list(scores.values)])
    keys = [name for name in table if name in scores.table and name not in scores.values]
    declared, spent = {**held, **scores.declared}, {**costs, **scores.costs}
    table = pd.DataFrame(table[[*keys, *(name for name in names if name in table)]])
    run.table("scores.parquet", described(table, declared, collector.dataset.digest))
    run.json("scores.json", {name: declared[name] for name in names})
    run.json("costs.json", {name: spent[name] for name in names if name in spent})
    curves, due = trained.read_arrays("curves.npz"), np.array(collector.due, dtype=np.int64)
    rows = np.isin(curves.pop("epochs"), due)
    later = {name: np.stack(values) for name, values in collector.epoch_scores.items()}
    merged = {name: array[rows] for name, array in curves.items()} | later
    run.arrays("curves.npz", epochs=due, **{name: array for name, array in merged.items() if name in names})
    log_signals(run, collector, scores.values)
