"""Single runs on all examples.  in: a recipe, a Dataset, a Store   out: one run per repeat, trajectory and proxies"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from study.data import Dataset
from study.errors import Stopped, StoreError
from study.progress import Advance, Bar, quiet, say
from study.proxies import Spec
from study.recipe import Recipe, dump, flatten
from study.runs.checkpoints import checkpoint_name, due_to_keep, kept_epochs
from study.runs.data_note import log_data
from study.runs.ensemble import keys, waiting
from study.runs.jobs import SinglePlan, runtime_of, single_plan
from study.runs.rescore import (
    all_lacking,
    copy_training,
    missing_proxies,
    reason,
    replayed,
    say_scored,
)
from study.runs.single_scores import log_scores, merge_scores
from study.signals import Collector, Shared, due_epochs, evaluation_epochs, wanted
from study.tracking import Run, Store, descriptions
from study.training.autotune import place_network
from study.training.checkpoints import network_bytes
from study.training.evaluation import Snapshot
from study.training.fit import fit
from study.training.placement import Placement, like_tags
from study.training.results import Hooks, Outcome
from study.training.types import Job, RuntimeSpec


def run_singles(
    recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> list[Run]:
    """Train the network on all training examples, once per repeat, and compute the recipe's proxies.

    Returns:
        The runs, FINISHED, one per repeat: `trajectory.npz`, `curves.npz`, `scores.parquet`, `scores.json`, and a
        <source>.npz of each signal source that keeps arrays.

    Raises:
        Stopped: `stop` was set, also while another process trained the same and this one waited for it.
    """
    recipe = recipe.part("single")
    specs = wanted(recipe.proxies, dataset)
    stop = stop or threading.Event()
    shared = Shared()
    plan, runs = single_plan(recipe), []
    experiment, name = f"{recipe.data.title}/single", f"single-{recipe.digest()}-{dataset.digest}"
    with store.lock(name, waiting("this single run", stop), experiment=experiment, lost=stop.set):
        store.reap(keys(recipe, dataset), lambda run: run.tags.get("study.kind") == "single")
        before = store.find("single", tags=keys(recipe, dataset), status="FINISHED")
        like = like_tags(before[-1].tags) if before else None  # with other proxies it is the same training
        for repeat in range(recipe.single.repeats):
            tags = repeat_keys(recipe, dataset, repeat)
            finished = finished_run(store, tags, recipe, dataset, specs)
            if finished:
                say(f"single run {recipe.digest()}, repeat {repeat}: finished before")
                _repair(finished, recipe)
                runs.append(finished)
                continue
            scored = score_finished(store, recipe, dataset, specs, repeat)
            if scored:
                runs.append(scored)
                continue
            _say_why_trained(store.find("single", tags=tags, status="FINISHED"), recipe, dataset, specs, repeat)
            placement = place_single(plan, dataset, runtime_of(recipe), recipe.single.repeats, like)
            run = _start(store, recipe, dataset, tags | placement.tags(), repeat)
            with run:
                try:
                    collector = _log_training(run, recipe, dataset, repeat, shared, placement, stop, bar)
                    log_scores(run, dataset, collector)
                except Stopped:
                    run.kill("stopped on request; the same command starts this repeat again")
                    raise
            runs.append(store.get(run.id))
            for earlier in store.find("single", tags=tags, status="FINISHED"):
                earlier.fail_damaged()
    return runs


def _repair(run: Run, recipe: Recipe) -> None:
    """Write a damaged recipe again; name other damaged files, which only a new training could make."""
    for error in run.verify("recipe.toml"):
        say(f"{error}: writing it again")
        run.text("recipe.toml", dump(recipe))
    for error in run.verify():
        say(str(error))


def _percent(advance: Advance, stop: threading.Event) -> Callable[[str, float], None]:
    """Advance by whole percents of one source; end the work where it reports, once `stop` is set."""
    shown = 0

    def progress(source: str, share: float) -> None:
        nonlocal shown
        if stop.is_set():
            raise Stopped
        advance(int(100 * share) - shown)
        shown = int(100 * share)

    return progress


def _aside(advance: Advance, stop: threading.Event) -> Callable[[str, float], None]:
    """Say which signals are being collected while the training waits; end the work once `stop` is set."""

    def progress(source: str, share: float) -> None:
        if stop.is_set():
            raise Stopped
        advance(0, f"gathering {source.replace('_', ' ')}, {share:.0%}")

    return progress


def score_finished(store: Store, recipe: Recipe, dataset: Dataset, specs: list[Spec], repeat: int) -> Run | None:
    """A run with every proxy, computed from what a finished run of this training keeps; None where none keeps it."""
    tags = repeat_keys(recipe, dataset, repeat)
    for trained in store.find("single", tags=tags, status="FINISHED"):
        try:
            if not _keeps(trained, recipe, dataset) or all_lacking(trained, recipe, dataset, specs):
                continue
            missing = missing_proxies(trained, recipe, dataset, specs)
            plan, like = single_plan(recipe), like_tags(trained.tags)
            placement = place_single(plan, dataset, runtime_of(recipe), like=like)
            collector = replayed(trained, plan, dataset, placement, missing, repeat)
        except StoreError as error:
            say(f"{error}; it is left as it is")
            continue
        run = _start(store, recipe, dataset, tags | like, repeat)
        with run:
            copy_training(trained, run, collector)
            merge_scores(run, trained, collector, specs)
        say_scored(repeat, [spec.name for spec in missing])
        return store.get(run.id)
    return None


def _say_why_trained(before: list[Run], recipe: Recipe, dataset: Dataset, specs: list[Spec], repeat: int) -> None:
    """Tell which signals the newest finished run lacks, where there is one."""
    try:
        lacking = all_lacking(before[0], recipe, dataset, specs) if before else {}
    except StoreError:  # a damaged run, which is named elsewhere
        return
    if lacking:
        say(f"single run, repeat {repeat}: {reason(lacking)}; it trains again")


def finished_repeats(store: Store, recipe: Recipe, dataset: Dataset) -> dict[int, Run]:
    """The finished run of each repeat of a recipe on this data, those that hold what it asks for.

    Raises:
        RecipeError: see `wanted`.
    """
    recipe = recipe.part("single")
    specs = wanted(recipe.proxies, dataset)
    finished = {}
    for repeat in range(recipe.single.repeats):
        run = finished_run(store, repeat_keys(recipe, dataset, repeat), recipe, dataset, specs)
        if run:
            finished[repeat] = run
    return finished


def repeat_keys(recipe: Recipe, dataset: Dataset, repeat: int) -> dict[str, str]:
    """The tags by which launches know a repeat: one that is evaluated at other epochs is the same network
    with other series."""
    return keys(recipe, dataset) | {"study.repeat": str(repeat)} | evaluation_tags(recipe)


def evaluation_tags(recipe: Recipe) -> dict[str, str]:
    """When a single run is evaluated."""
    single = recipe.single
    steps = {"study.evaluate_steps": str(single.evaluate_steps)} if single.evaluate_steps else {}
    return {"study.evaluate_every": str(single.evaluate_every)} | steps


def finished_run(store: Store, tags: dict[str, str], recipe: Recipe, dataset: Dataset, specs: list[Spec]) -> Run | None:
    """A finished run of this training that holds every proxy asked for, under its conditions, at every epoch due."""
    for run in store.find("single", tags=tags, status="FINISHED"):
        try:
            missing = missing_proxies(run, recipe, dataset, specs)
            run.read("scores.parquet"), run.read("trajectory.npz")
        except StoreError as error:
            say(f"{error}; it counts as not finished")
            continue
        if not missing and _keeps(run, recipe, dataset):
            return run
    return None


def _keeps(run: Run, recipe: Recipe, dataset: Dataset) -> bool:
    """Whether a run has kept every network that the recipe asks for."""
    due = due_epochs(recipe, dataset.n_train)
    return {epoch for epoch in due if due_to_keep(recipe.single.keep, epoch, due)} <= set(kept_epochs(run))


def _start(store: Store, recipe: Recipe, dataset: Dataset, tags: dict[str, str], repeat: int) -> Run:
    run = store.start(
        f"{recipe.data.title}/single",
        descriptions.single_name(recipe, dataset.digest, repeat),
        params=flatten(recipe) | {"repeat": repeat},
        tags=tags | {"study.kind": "single"},
        description=descriptions.single_note(recipe, repeat),
    )
    run.text("recipe.toml", dump(recipe))
    log_data(run, dataset)
    return run


def place_single(
    plan: SinglePlan,
    dataset: Dataset,
    runtime: RuntimeSpec,
    repeats: int = 1,
    like: Mapping[str, str] | None = None,
) -> Placement:
    """Choose device, precision and layout of networks that train one at a time.

    Args:
        plan: of the single run.
        dataset: n examples.
        runtime: what is asked for.
        repeats: that will be trained.
        like: tags of a run of another repeat; what its bits depend on is taken over.

    Raises:
        RecipeError: a device that is not there.
    """
    seen = repeats * plan.train.seen(dataset.n_train)
    return place_network(plan.template, dataset, runtime, seen, like=like, alone=True)


def train_single(
    plan: SinglePlan,
    dataset: Dataset,
    placement: Placement,
    *,
    repeat: int = 0,
    shared: Shared | None = None,
    on_epoch: Callable[[int, Collector], None] = lambda epoch, collector: None,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> tuple[Collector, Outcome]:
    """Train on all training rows and collect what the proxies read; nothing is written anywhere.

    Args:
        plan: `SinglePlan(JobTemplate(network, optimizer, schedule, training, seed), proxies={"cbtl": {}})`.
        dataset: n examples.
        placement: see `place_single`.
        repeat: networks of different repeats have other initial weights and batch orders.
        shared: what was collected of the data alone, for all repeats.
        on_epoch: hears of each epoch that was evaluated, when all of it is collected.
        stop: set to end after the step under way.
        bar: display of the progress.

    Returns:
        The collector, from which `score_single` makes the table of scores, and what the network says at the end;
        with `Outcome.diverged` there are no scores.

    Raises:
        Stopped: `stop` was set.
        RecipeError: a proxy that is not registered, or that needs test examples where there are none.
    """
    stop = stop or threading.Event()
    specs = wanted(plan.proxies, dataset)
    # a plan has all that a collector reads of a recipe
    collector = Collector(dataset, specs, cast(Any, plan), placement.device, shared=shared or Shared())
    epochs, _ = plan.train.length(dataset.n_train)

    def after_epoch(job: Job, epoch: int, snapshot: Snapshot) -> None:
        taken = collector.take(epoch, snapshot)
        advance(0)  # the training goes on
        if taken and epoch:
            on_epoch(epoch, collector)

    with bar(f"single run, repeat {repeat}", epochs * dataset.n_train, unit="examples") as advance:
        collector.progress = _aside(advance, stop)
        hooks = Hooks(
            progress=advance,
            after_epoch=after_epoch,
            after_steps=collector.take_step,
            steps=collector.every_steps,
            online=collector.online,
            stop=stop,
        )
        final = next(fit([plan.job(repeat, dataset)], dataset, placement, hooks))
    if not final.diverged:
        with bar("signals of the inputs", 100, unit="%") as advance:
            collector.progress = _percent(advance, stop)
            collector.data()
    return collector, final


def _log_training(
    run: Run,
    recipe: Recipe,
    dataset: Dataset,
    repeat: int,
    shared: Shared,
    placement: Placement,
    stop: threading.Event,
    bar: Bar,
) -> Collector:
    """Train one repeat and log its curves while it goes on."""
    train, test = dataset.rows("train"), dataset.rows("test")
    begun = time.perf_counter()

    def on_epoch(epoch: int, collector: Collector) -> None:
        right = collector.series["correct"][-1]
        point = {"train/accuracy": right[train].mean()}
        if dataset.n_test:
            point["test/accuracy"] = right[test].mean()
        run.log(point, step=epoch)
        if due_to_keep(recipe.single.keep, epoch, collector.due):
            run.bytes(checkpoint_name(epoch), network_bytes(collector.network))

    collector, final = train_single(
        single_plan(recipe), dataset, placement, repeat=repeat, shared=shared, on_epoch=on_epoch, stop=stop, bar=bar
    )
    steps = [epoch for epoch in evaluation_epochs(recipe, dataset.n_train) if epoch <= len(final.losses)]
    run.series("train/loss", [final.losses[epoch - 1] for epoch in steps], steps)
    run.log({"time/train_s": time.perf_counter() - begun})
    if final.diverged:
        raise StoreError(f"single run, repeat {repeat}: training left the finite numbers; lower optimizer.lr")
    return collector
