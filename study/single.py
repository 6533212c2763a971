"""Single runs on all examples.  in: a recipe, a Dataset, a Store   out: one run per repeat, trajectory and proxies"""

import threading
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from study import notes
from study.data import Dataset
from study.display import Bar, quiet, say
from study.ensemble import keys, waiting
from study.errors import StoreError
from study.evidence import Collector, due_epochs, wanted
from study.proxies import PROXIES, Spec, bind, compute
from study.recipe import Recipe, dump, flatten
from study.tracking import Run, Store
from study.training import Hooks, Look, Member, Outcome, Stopped, fit, stackable
from study.training.placement import Placement, place


def run_singles(
    recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> list[Run]:
    """Train the network on all training examples, once per repeat, and compute the recipe's proxies.

    Returns:
        The runs, FINISHED, one per repeat: `trajectory.npz`, `curves.npz`, `scores.parquet`, `scores.json`.

    Raises:
        Stopped: `stop` was set, also while another process trained the same and this one waited for it.
    """
    recipe = recipe.part("single")
    specs = wanted(recipe.proxies, dataset)
    settings = _settings(recipe, specs)
    stop = stop or threading.Event()
    shared: dict[str, np.ndarray] = {}
    runs = []
    with store.lock(f"single-{recipe.digest()}-{dataset.digest}", waiting("this single run", stop)):
        store.reap(keys(recipe, dataset))
        for repeat in range(recipe.single.repeats):
            own = keys(recipe, dataset) | {"study.repeat": str(repeat)}
            known = _finished(store, own, recipe, dataset, settings)
            if known:
                say(f"single run {recipe.digest()}, repeat {repeat}: finished before")
                runs.append(known)
                continue
            placement = place(recipe.runtime, stackable=stackable(recipe)).alone(wide=not stackable(recipe))
            run = _start(store, recipe, dataset, own | placement.tags(), repeat)
            with run:
                try:
                    collector, final = _train(recipe, dataset, run, repeat, specs, shared, placement, stop, bar)
                    if final.diverged:
                        raise StoreError(
                            f"single run, repeat {repeat}: training left the finite numbers; lower optimizer.lr"
                        )
                    with bar("evidence of the inputs", 100, unit="%") as advance:
                        collector.progress = _percent(advance, stop)
                        collector.data()
                    _log_scores(run, dataset, collector, settings)
                except Stopped:
                    run.kill("stopped on request; the same command starts this repeat again")
                    raise
            runs.append(store.get(run.id))
    return runs


def _percent(advance: Callable[[int], None], stop: threading.Event) -> Callable[[float], None]:
    """Advance by whole percents; end the work where it reports, once `stop` is set."""
    shown = 0

    def progress(share: float) -> None:
        nonlocal shown
        if stop.is_set():
            raise Stopped
        advance(int(100 * share) - shown)
        shown = int(100 * share)

    return progress


def finished_repeats(store: Store, recipe: Recipe, dataset: Dataset) -> dict[int, Run]:
    """The finished run of each repeat of a recipe on this data, those that hold what it asks for; floor 4 reads them.

    Raises:
        RecipeError: see `wanted`.
    """
    recipe = recipe.part("single")
    settings = _settings(recipe, wanted(recipe.proxies, dataset))
    found = {}
    for repeat in range(recipe.single.repeats):
        run = _finished(store, keys(recipe, dataset) | {"study.repeat": str(repeat)}, recipe, dataset, settings)
        if run:
            found[repeat] = run
    return found


def _settings(recipe: Recipe, specs: list[Spec]) -> dict[str, dict]:
    return {spec.name: bind(spec, recipe.proxies.get(spec.name, {})) for spec in specs}


def _finished(
    store: Store, own: dict[str, str], recipe: Recipe, dataset: Dataset, settings: dict[str, dict]
) -> Run | None:
    """A finished run of this training that holds every proxy asked for, with the same settings, at every epoch due."""
    for run in store.find("single", tags=own, status="FINISHED"):
        try:
            held, curves = run.read_json("scores.json"), run.read_arrays("curves.npz")
            run.read("scores.parquet"), run.read("trajectory.npz")
        except StoreError as error:
            say(f"{error}; it counts as not finished")
            continue
        same = all(name in held and held[name]["settings"] == wanted for name, wanted in settings.items())
        hidden = any("hidden_density" in PROXIES[name].evidence for name in settings)
        if same and (not hidden or set(due_epochs(recipe, dataset.n_train)) <= set(curves["epochs"].tolist())):
            return run
    return None


def _start(store: Store, recipe: Recipe, dataset: Dataset, tags: dict[str, str], repeat: int) -> Run:
    run = store.start(
        f"{recipe.data.title}/single",
        notes.single_name(recipe, repeat),
        params=flatten(recipe) | {"repeat": repeat},
        tags=tags | {"study.kind": "single"},
        description=notes.single_note(recipe, repeat),
    )
    run.text("recipe.toml", dump(recipe))
    run.dataset(dataset.name, dataset.digest, "training", dataset.n_train, classes=dataset.n_classes)
    return run


def _train(
    recipe: Recipe,
    dataset: Dataset,
    run: Run,
    repeat: int,
    specs: list[Spec],
    shared: dict[str, np.ndarray],
    placement: Placement,
    stop: threading.Event,
    bar: Bar,
) -> tuple[Collector, Outcome]:
    epochs, _ = recipe.train.length(dataset.n_train)
    heard = _percent(lambda percent: None, stop)
    collector = Collector(dataset, specs, recipe, placement.device, heard, shared)
    train, test = dataset.rows("train"), dataset.rows("test")
    begun = time.perf_counter()

    def after_epoch(member: Member, epoch: int, look: Look) -> None:
        outcome = look.outcome()
        if outcome.diverged:
            return
        collector.take(epoch, look, outcome)
        if not epoch:
            return
        right = collector.series["correct"][-1]
        point = {"train/accuracy": right[train].mean()}
        if dataset.n_test:
            point["test/accuracy"] = right[test].mean()
        run.log(point, step=epoch)

    member = Member(("single", repeat), np.arange(dataset.n_train))
    with bar(f"single run, repeat {repeat}", epochs * dataset.n_train, unit="examples") as advance:
        hooks = Hooks(progress=advance, after_epoch=after_epoch, stop=stop)
        final = next(fit([member], dataset, recipe, placement, hooks))
    run.series("train/loss", final.losses, range(1, len(final.losses) + 1))
    run.log({"time/train_s": time.perf_counter() - begun})
    return collector, final


def _log_scores(run: Run, dataset: Dataset, collector: Collector, settings: dict[str, dict]) -> None:
    """Write the trajectory, the scores by epoch, and the table of final scores with what is declared about them.

    trajectory.npz: correct (e, ceil(n / 8)) packed bits; confidence, top_confidence (e, n) float32, because float16
    ties everything above .9995; n.  curves.npz: epochs (w,), and (w, n_train) float32 per proxy on hidden densities.
    """
    run.arrays(
        "trajectory.npz",
        correct=np.packbits(np.stack(collector.series["correct"]), axis=1),
        n=np.int64(dataset.n),
        confidence=np.stack(collector.series["confidence"]),
        top_confidence=np.stack(collector.series["top_confidence"]),
    )
    run.arrays(
        "curves.npz",
        epochs=np.array(collector.epochs, dtype=np.int64),
        **{name: np.stack(scores) for name, scores in collector.moments.items()},
    )
    table = pd.DataFrame({"example": dataset.ids, "label": dataset.labels, "split": dataset.split()})
    declared = {}
    for spec in collector.specs:
        scores = compute(spec, collector.of(spec), settings[spec.name])
        column = np.full(dataset.n, np.nan, dtype=np.float32)
        column[dataset.rows(spec.on)] = scores
        table[spec.name] = column
        declared[spec.name] = {key: getattr(spec, key) for key in ("family", "easy", "unit", "label", "source", "on")}
        declared[spec.name]["settings"] = settings[spec.name]
    run.table("scores.parquet", table)
    run.json("scores.json", declared)
    for epoch, bandwidth in zip(collector.epochs, collector.bandwidths, strict=False):
        run.log({"density/bandwidth_hidden": bandwidth}, step=epoch)
