"""Proxies of finished single runs, without training.  in: a finished Run, a recipe   out: a run with its proxies

What a proxy reads of a training is in `trajectory.npz` (all evaluations), follows from the data, or from networks that
the run has kept (`single.keep`).  The scores go to a new run, with the trajectory and the series of the trained one: a
finished run does not change.
"""

from typing import Any, cast

import numpy as np

from study.data import Dataset
from study.errors import StoreError
from study.progress import command, say
from study.proxies import Spec
from study.recipe import Recipe
from study.runs.checkpoints import checkpoint_name, kept_epochs
from study.runs.jobs import SinglePlan
from study.signals import SOURCES, Collector, Shared, conditions, curved, due_epochs
from study.signals.collector import LAST
from study.signals.logit_statistics import NOW, SERIES
from study.tracking import Run
from study.training.checkpoints import snapshot_from
from study.training.placement import Placement

OWN = (  # not copied
    "scores.parquet",
    "scores.csv",
    "scores.json",
    "costs.json",
    "curves.npz",
    "trajectory.npz",
    "recipe.toml",
)


def missing_proxies(run: Run, recipe: Recipe, dataset: Dataset, specs: list[Spec]) -> list[Spec]:
    """The proxies that a run lacks, or holds under other conditions."""
    held = run.read_json("scores.json")
    curves, with_curve = run.read_some_arrays("curves.npz", "epochs")
    by_epoch = {spec.name for spec in curved(specs)}
    coarse = not set(due_epochs(recipe, dataset.n_train)) <= set(curves["epochs"].tolist())
    return [
        spec
        for spec in specs
        if not conditions(spec, recipe, dataset.n_train).items() <= held.get(spec.name, {}).items()
        or (spec.name in by_epoch and (coarse or spec.name not in with_curve))
    ]


def all_lacking(run: Run, recipe: Recipe, dataset: Dataset, specs: list[Spec]) -> dict[str, set[str]]:
    """Per proxy that needs a training, the signals that nothing stored with the run gives."""
    missing = missing_proxies(run, recipe, dataset, specs)
    if not missing:
        return {}
    stored, series = run.read_some_arrays("trajectory.npz", "epochs")
    kept, due = set(kept_epochs(run)), due_epochs(recipe, dataset.n_train)
    available = {"labels", *LAST, *series}
    if set(stored.get("epochs", [0])) <= kept:  # the network of every evaluation
        available |= set(SERIES)
    lacking = {spec.name: _lacking(spec, available, kept, due) for spec in missing}
    return {name: signals for name, signals in lacking.items() if signals}


def _lacking(spec: Spec, available: set[str], kept: set[int], due: list[int]) -> set[str]:
    """Signals of a proxy that are neither available nor given by the networks of the kept epochs."""
    every, by_epoch = set(due) <= kept, bool(curved([spec]))
    if by_epoch and not every:  # its curve needs the network of every due epoch
        return set(spec.signals)
    given = set(NOW) if due[-1] in kept else set()
    for source in SOURCES.values():
        now = due[-1] in kept and source.when in ("last", "due")
        through = source.when == "due" and (source.keep == "all" or by_epoch)
        if source.when == "data" or (every if through else now):
            given |= set(source.signals)
    return set(spec.signals) - available - given


def replayed(
    run: Run, plan: SinglePlan, dataset: Dataset, placement: Placement, specs: list[Spec], repeat: int
) -> Collector:
    """Collect what some proxies read from what a run has kept."""
    collector = Collector(dataset, specs, cast(Any, plan), placement.device, shared=Shared())
    series, epochs, steps = _stored_series(run)
    again = {name: formula for name, formula in collector.measures.items() if name in SERIES and name not in series}
    series |= {name: [] for name in again}
    replays = any(source.when in ("last", "due") for source in collector.sources) or collector.measures
    wanted = {epoch for epoch in kept_epochs(run) if epoch in collector.due} if replays else set()
    for epoch in sorted(wanted.union(epochs if again else ())):
        content = run.read(checkpoint_name(epoch)).read_bytes()
        snapshot = snapshot_from(content, plan.job(repeat, dataset), dataset, placement)
        for name, array in collector.measure(again, snapshot).items():
            series[name].append(array)
        if epoch in wanted:
            count = epochs.index(epoch) + 1
            collector.series = {
                name: arrays if steps and name == "predicted" else _first(name, arrays, count)
                for name, arrays in series.items()
            }
            collector.evaluated = epochs[:count]
            collector.replay(epoch, snapshot)
    collector.series, collector.evaluated, collector.steps = series, epochs, steps
    collector.data()
    return collector


def copy_training(trained: Run, run: Run, collector: Collector) -> None:
    """Give a run the files and series of another that do not depend on its proxies, nor were collected again."""
    again = {f"{source}.npz" for source in collector.memories}
    for memory in collector.memories.values():
        again |= {name for numbers in memory.get("metrics", {}).values() for name in numbers}
    for name in trained.files:
        if name not in (*OWN, *again):
            run.bytes(name, trained.read(name).read_bytes())
    for name in trained.metrics:
        points = trained.read_series(name)
        if points and name not in again and not name.startswith(("cost/", "online/")):
            run.series(name, [value for _, value in points], [step for step, _ in points])
    run.tag("study.scored_from", trained.id)


def explain(lacking: dict[str, set[str]]) -> str:
    """Why proxies cannot be computed without training, and what to do."""
    signals = set.union(*lacking.values())
    of_networks = {name for source in SOURCES.values() if source.when in ("last", "due") for name in source.signals}
    if not signals & (of_networks | set(SERIES) | set(NOW)):  # kept networks do not give them either
        cure = f"run `{command('single')}`, which trains again"
    else:
        finest = " --set single.signals_every=1" if signals & set(SERIES) else ""
        cure = f"train again with --set single.keep=checkpoints{finest}"
    return f"{reason(lacking)}; leave them out, or {cure}"


def reason(lacking: dict[str, set[str]]) -> str:
    """Which proxies need which signals that no finished run keeps."""
    signals = ", ".join(sorted(set.union(*lacking.values())))
    return f"{', '.join(sorted(lacking))}: the finished runs keep no {signals}"


def _stored_series(run: Run) -> tuple[dict[str, list[np.ndarray]], list[int], list[int]]:
    """The series of a trajectory, one array per evaluation, the epochs that were evaluated, and see `Collector.steps`.

    Raises:
        StoreError: a trajectory without them.
    """
    arrays = run.read_arrays("trajectory.npz")
    counts = {"correct": int(arrays["n"]), "online_correct": int(arrays["n_train"])}
    if "epochs" not in arrays:
        raise StoreError(f"run {run.id}: trajectory.npz has no epochs; run `study single` with its recipe again")
    series = {}
    for name in arrays:
        if name in counts:
            unpacked = np.unpackbits(arrays[name], axis=1, count=counts[name]).astype(bool)
            series[name] = list(unpacked)
        elif name not in ("n", "n_train", "epochs", "predicted_steps"):
            series[name] = list(arrays[name])
    steps = arrays.get("predicted_steps", np.empty(0, dtype=np.int64))
    return series, arrays["epochs"].astype(int).tolist(), steps.tolist()


def _first(name: str, arrays: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The evaluations up to one; predictions begin with the untrained network."""
    return arrays[: count + (name == "predicted")]


def say_scored(repeat: int, names: list[str]) -> None:
    """Tell what was computed without training."""
    say(f"single run, repeat {repeat}: {', '.join(names)} computed from what the finished run keeps, without training")
