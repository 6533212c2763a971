"""What one protocol measures here.  in: a Protocol, its recipe and data, a store   out: a row per score and measure"""

import threading
from typing import Any

import numpy as np
import pandas as pd

from study.analysis import label_errors, load_runs
from study.benchmark.baselines import REASON, cleanlab_installed, cleanlab_scores
from study.benchmark.protocols import DROPPING, LABEL_ERRORS, Protocol
from study.data import Dataset
from study.experiments.sweep import train_parts
from study.progress import Bar, quiet, say
from study.recipe import Recipe
from study.runs.cross_validation import cross_validate, held_out_probabilities
from study.tracking import Store
from study.uses.reduction import Reduction, reduce_training_set

SHOWN = ("cscore_soft", "consensus_disagreement")  # of the C-scores
RULES = {  # how long a pruned training set is trained
    "as many epochs": {"same_steps": False},
    "as many updates": {"same_steps": True},
    "small batches": {"same_steps": False, "train": ("batch_size",)},
}


def measure(
    protocol: Protocol,
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    *,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> pd.DataFrame:
    """Train what is missing of a protocol and measure it.

    Returns:
        A row per score and measure: `score` `label` `measure` `value` `low` `high`, ends of the 95 % interval.

    Raises:
        Stopped: `stop` was set.
    """
    train_parts(recipe, dataset, store, stop=stop, bar=bar)
    if protocol.measure == LABEL_ERRORS:
        return _label_errors(recipe, dataset, store, stop, bar)
    baselines = _cleanlab(recipe, dataset, store, stop, bar) if "self_confidence" in protocol.by else {}
    common: dict[str, Any] = {"repeats": protocol.repeats, "baselines": baselines, "stop": stop, "bar": bar}
    if protocol.measure == DROPPING:
        by = [
            name if name == "random" else f"{name}:easy"
            for name in protocol.by
            if baselines or name != "self_confidence"
        ]
        shares = [1 - share for share in protocol.shares]
        return _accuracies(reduce_training_set(recipe, dataset, store, by=by, shares=shares, **common), dropped=True)
    tables = []
    for rule, settings in RULES.items():
        train = {"batch_size": protocol.small_batch} if "train" in settings else {}
        reduction = reduce_training_set(
            recipe,
            dataset,
            store,
            by=protocol.by,
            shares=protocol.shares,
            same_steps=settings["same_steps"],
            train=train,
            **common,
        )
        table = _accuracies(reduction)
        tables.append(table.assign(measure=[f"{name}, {rule}" for name in table["measure"]]))
    return pd.concat(tables, ignore_index=True)


def _label_errors(
    recipe: Recipe, dataset: Dataset, store: Store, stop: threading.Event | None, bar: Bar
) -> pd.DataFrame:
    qualities = _cleanlab(recipe, dataset, store, stop, bar)
    suspicions = {name: -values for name, values in qualities.items()}
    suspicions["random"] = recipe.stream("benchmark", "random").random(dataset.n_train)
    table = label_errors(load_runs(recipe, dataset, store), dataset, suspicions).table
    table = pd.DataFrame(table[(table["family"] != "C-score") | table["score"].isin(SHOWN)])
    rows = [
        {"score": row["score"], "label": row["label"], "measure": name}
        | {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
        for name in ("auroc", "average_precision")
        for row in table.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _cleanlab(
    recipe: Recipe, dataset: Dataset, store: Store, stop: threading.Event | None, bar: Bar
) -> dict[str, np.ndarray]:
    """Cleanlab's scores of the training examples; none where it is not installed."""
    if not cleanlab_installed():
        say(REASON)
        return {}
    run = cross_validate(recipe, dataset, store, stop=stop, bar=bar)
    return cleanlab_scores(dataset.labels[: dataset.n_train], held_out_probabilities(run))


def _accuracies(reduction: Reduction, *, dropped: bool = False) -> pd.DataFrame:
    rows = []
    for row in reduction.table.to_dict("records"):
        share = 1 - row["share"] if dropped else row["share"]
        name = f"{100 * share:.3g} % {'dropped' if dropped else 'kept'}"
        name = "nothing dropped" if dropped and row["by"] == "all" else name
        score = row["by"].removesuffix(":easy") if dropped else row["by"]
        rows.append(
            {"score": score, "label": score, "measure": name}
            | {"value": row["accuracy"], "low": row["low"], "high": row["high"]}
        )
    return pd.DataFrame(rows)
