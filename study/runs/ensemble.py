"""The subset ensemble (J-alg1, J-integral).  in: a recipe, a Dataset, a Store   out: a run with C-scores, its shards

Members are trained in shards; a shard is one child run that is written at once when its members are done.  Shards that
are finished are found by the recipe's digest, so an interrupted launch goes on, more members may be asked for later,
and any division into shards folds to the same integers.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np

from study.data import Dataset
from study.errors import Stopped, StoreError
from study.progress import Bar, command, quiet, say
from study.recipe import Recipe, dump, flatten
from study.runs.data_note import log_data
from study.runs.engines import Engine, engine_of
from study.runs.jobs import ensemble_plan
from study.runs.members import Shard, plan_shards, profile_table, score_table
from study.runs.rounds import next_round, sizes_of
from study.runs.shard_runs import write_shard
from study.runs.shards import finished_shards, keys, mark_damaged
from study.runs.work_folder import WorkFolder
from study.scores import cscore
from study.scores.cscore import Profile, ProfileSum
from study.scores.subsets import block_length, percent
from study.tracking import Run, Store, descriptions
from study.training.results import Hooks


def size_tag(recipe: Recipe) -> str:
    """JSON: members at each ratio; the tag `study.size` tells an ensemble from a larger one of its digest."""
    subset = recipe.subset
    size = {"members": subset.members, "ratios": list(subset.ratios), "depth": subset.depth}
    return json.dumps(size | ({"until": subset.until.model_dump()} if subset.until.active else {}))


def size_text(tag: str) -> str:
    """The tag `study.size` for people, such as `20 at 10, 20 %`."""
    try:
        size = json.loads(tag)
    except ValueError:  # of a store from before 0.2
        return tag
    most = "at most " if "until" in size else ""
    members = f"{most}{size['members']} at {', '.join(percent(ratio) for ratio in size['ratios'])} %"
    return members + (", with prediction depths" if size["depth"] else "")


def run_ensemble(
    recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> Run:
    """Train what is missing of the ensemble, fold all shards, log the C-scores.

    Args:
        recipe: its `ensemble` part is used.
        dataset: train rows are drawn from, test rows are always held out.
        store: where runs go and where finished shards are found.
        stop: set to end after the step under way; the parent run is then KILLED and can be resumed.
        bar: display of the progress.

    Returns:
        The parent run, FINISHED, with `cscore.parquet` and `profile.parquet`.

    Raises:
        StoreError: every network diverged; the parent run is then FAILED.
        Stopped: `stop` was set, also while another process trained the same ensemble and this one waited for it.
    """
    recipe = recipe.part("ensemble")
    stop = stop or threading.Event()
    folder = WorkFolder(store.root, recipe, dataset)
    with ensemble_lock(recipe, dataset, store, stop):
        finished = finished_ensemble(store, recipe, dataset)
        if finished:
            say(f"ensemble {recipe.digest()}: finished before, {size_text(size_tag(recipe))}")
            return finished
        folder.wait(waiting("this ensemble", stop))
        parent = write_results(folder, recipe, dataset, store)
        sizes = sizes_of(recipe, parent or earlier_parent(recipe, dataset, store))
        with engine_of(recipe, dataset) as engine:
            begun = _begin_round(recipe, dataset, store, sizes, engine)
            parent = parent or open_parent(recipe, dataset, store)
            with parent:
                try:
                    while True:
                        profile = _train(recipe, dataset, store, parent, begun, engine, stop, bar)
                        if not next_round(parent, recipe, dataset, profile, sizes):
                            break
                        sizes = sizes_of(recipe, parent)
                        begun = _begin_round(recipe, dataset, store, sizes, engine)
                except Stopped:
                    parent.kill("stopped on request; the same command resumes it")
                    raise
                log_ensemble(parent, recipe, dataset, profile)
        mark_damaged(store, recipe, dataset)
        folder.remove()
        return store.get(parent.id)


def gather_ensemble(recipe: Recipe, dataset: Dataset, store: Store) -> tuple[Run, list[Shard]]:
    """Write the runs of the shards that workers have trained, and fold all there are; nothing is trained.

    Args:
        recipe: its `ensemble` part is used.
        dataset: as the workers have read it.
        store: whose root is the folder that the workers share.

    Returns:
        The ensemble's run: FINISHED when no member is missing, else KILLED with the scores of those there are; and the
        shards that are missing.

    Raises:
        StoreError: there is no shard yet, every network diverged, or another launch is at work on this ensemble.
    """
    recipe = recipe.part("ensemble")
    folder = WorkFolder(store.root, recipe, dataset)
    with ensemble_lock(recipe, dataset, store, None):
        finished = finished_ensemble(store, recipe, dataset)
        if finished:
            return finished, []
        parent = write_results(folder, recipe, dataset, store)
        profile, done, like = finished_shards(store, recipe, dataset)
        missing = plan_shards(ensemble_plan(recipe), done, recipe.runtime.shard)
        folder.reopen(missing)
        if profile is None:
            raise StoreError(f"ensemble {recipe.digest()}: no shard is finished yet; {_workers_at(folder, recipe)}")
        parent = parent or open_parent(recipe, dataset, store)
        for key, value in like.items():
            parent.tag(key, value)
        with parent:
            log_ensemble(parent, recipe, dataset, profile)
            parent.log({"time/train_s": _span(store.find("shard", tags=keys(recipe, dataset), status="FINISHED"))})
            if missing:
                parent.kill(f"{sum(len(shard.members) for shard in missing)} networks are missing")
        mark_damaged(store, recipe, dataset)
        if not missing:
            folder.remove()
        return store.get(parent.id), missing


@contextmanager
def ensemble_lock(recipe: Recipe, dataset: Dataset, store: Store, stop: threading.Event | None) -> Iterator[None]:
    """Be the one launch that writes runs of this ensemble; what dead ones have left RUNNING is marked.

    Args:
        recipe, dataset, store: of the ensemble.
        stop: ends the wait for another launch; None: do not wait.

    Raises:
        StoreError: another launch is at work, and there is no `stop`.
        Stopped: `stop` was set while another launch was waited for.
    """
    parts, tags = [str(ratio) for ratio in recipe.subset.ratios], keys(recipe, dataset)
    name = f"ensemble-{recipe.digest()}-{dataset.digest}"
    experiment = f"{recipe.data.title}/ensemble"
    wait, lost = (waiting("this ensemble", stop), stop.set) if stop else (None, lambda: None)
    with store.lock(name, wait, experiment=experiment, parts=parts, lost=lost):
        store.reap(tags, lambda run: run.params.get("ratio") in parts or run.tags.get("study.size") == size_tag(recipe))
        yield


def write_results(folder: WorkFolder, recipe: Recipe, dataset: Dataset, store: Store) -> Run | None:
    """Write the runs of the shards that workers have left in their folder; the ensemble's run if there were any."""
    parent, done = None, None
    for path, result in folder.results():
        if parent is None or done is None:
            parent, done = open_parent(recipe, dataset, store), finished_shards(store, recipe, dataset)[1]
        shard = result.shard
        members = {(shard.ratio, member) for member in shard.members}
        if not members & done:  # a launch that died here has written it, and could not say so
            write_shard(store, parent, recipe, dataset, result)
            done |= members
        folder.written(path)
    return parent


def open_parent(recipe: Recipe, dataset: Dataset, store: Store) -> Run:
    """The run of this ensemble and size: resumed, or a new one."""
    earlier = earlier_parent(recipe, dataset, store)
    sized = keys(recipe, dataset) | {"study.size": size_tag(recipe)}
    parent = store.resume(earlier) if earlier else _start(store, recipe, sized)
    _describe(parent, recipe, dataset)
    return parent


def earlier_parent(recipe: Recipe, dataset: Dataset, store: Store) -> Run | None:
    """The newest run of this ensemble and size, finished or not."""
    sized = keys(recipe, dataset) | {"study.size": size_tag(recipe)}
    return next(iter(store.find("ensemble", tags=sized, max=1)), None)


def _span(shards: Sequence[Run]) -> float:
    """Seconds from the beginning of the first of these shards to the end of the training of the last."""
    ends = [shard.started / 1000 + shard.metrics["time/train_s"] for shard in shards]
    return max(ends) - min(shard.started for shard in shards) / 1000


def _workers_at(folder: WorkFolder, recipe: Recipe) -> str:
    """What workers do at this ensemble, or the command that starts one."""
    holders = folder.claims.holders()
    return f"{len(holders)} are being trained" if holders else f"start workers: `{command('worker')} RECIPE`"


def finished_ensemble(store: Store, recipe: Recipe, dataset: Dataset) -> Run | None:
    """The finished ensemble of this recipe and size on this data, if its scores can be read."""
    recipe = recipe.part("ensemble")
    earlier = earlier_parent(recipe, dataset, store)
    return earlier if earlier and earlier.status == "FINISHED" and _complete(earlier, recipe) else None


def finished_members(recipe: Recipe, dataset: Dataset, store: Store) -> tuple[set[tuple[float, int]], dict[str, str]]:
    """The (ratio, member) that need no training, and the tags that say how they were trained."""
    run = finished_ensemble(store, recipe, dataset)
    if run:
        return {(ratio, member) for ratio in recipe.subset.ratios for member in range(recipe.subset.members)}, {}
    _, done, like = finished_shards(store, recipe, dataset)
    return done, like


def waiting(what: str, stop: threading.Event) -> Callable[[str], None]:
    """What to do while another launch trains the same: say so once, wait, then find its runs finished."""
    said = threading.Event()

    def wait(holder: str) -> None:
        if stop.is_set():
            raise Stopped
        if not said.is_set():
            say(f"{what} is being trained by {holder}; waiting for it")
            said.set()

    return wait


def _total(recipe: Recipe) -> int:
    """Networks that the ensemble asks for."""
    return recipe.subset.members * len(recipe.subset.ratios)


def _all_diverged(recipe: Recipe) -> str:
    cure = f"lower optimizer.lr (now {recipe.optimizer.lr:g})"
    return f"ensemble {recipe.digest()}: all {_total(recipe)} networks diverged, so there are no scores; {cure}"


def _complete(run: Run, recipe: Recipe) -> bool:
    """Whether a finished ensemble has its scores, and files that can be read."""
    if run.metrics.get("members/diverged") == _total(recipe):  # such a run counted as finished before 0.2
        return False
    if not {"cscore.parquet", "profile.parquet"} <= set(run.files):
        return False
    damaged = run.verify()
    if damaged:
        say(f"{damaged[0]}: folding the shards again")
    return not damaged


def _start(store: Store, recipe: Recipe, tags: dict[str, str]) -> Run:
    return store.start(
        f"{recipe.data.title}/ensemble",
        descriptions.ensemble_name(recipe, tags["study.data"]),
        params=flatten(recipe),
        tags=tags | {"study.kind": "ensemble"},
        description=descriptions.ensemble_note(recipe),
    )


def _describe(run: Run, recipe: Recipe, dataset: Dataset) -> None:
    """Name data and recipe, the recipe last: where it is missing, a launch was killed before it had written all."""
    if "recipe.toml" in run.files and not run.verify("recipe.toml"):
        return
    run.param(flatten(recipe))
    log_data(run, dataset)
    run.text("recipe.toml", dump(recipe))


@dataclass(frozen=True)
class _Round:
    """What is to be trained now: the shards that are missing, how (tags); the sums of those that are there."""

    members: int
    shards: list[Shard]
    tags: dict[str, str]
    folded: Profile | None


def _begin_round(recipe: Recipe, dataset: Dataset, store: Store, sizes: Mapping[float, int], engine: Engine) -> _Round:
    """Find what is missing of so many members at each ratio, and place it."""
    folded, done, like = finished_shards(store, recipe, dataset, sizes)
    shards = plan_shards(ensemble_plan(recipe), done, recipe.runtime.shard, sizes)
    return _Round(sum(sizes.values()), shards, engine.place(shards, like), folded)


def _train(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    parent: Run,
    begun: _Round,
    engine: Engine,
    stop: threading.Event,
    bar: Bar,
) -> Profile:
    """Train the shards; each is written when its last member is done, and folded in."""
    plan, members, shards = ensemble_plan(recipe), begun.members, begun.shards
    for key, value in begun.tags.items():
        parent.tag(key, value)
    missing = sum(len(shard.members) for shard in shards)
    done = members - missing
    total = ProfileSum()
    if begun.folded is not None:
        total.add(begun.folded)
    examples = sum(plan.examples(shard.ratio, shard.members, dataset.n_train) for shard in shards)
    start = time.time()
    with (
        bar(f"ensemble, {missing} of {members} networks", examples, unit="examples") as advance,
        closing(engine.train(Hooks(advance, stop=stop))) as results,
    ):
        for result in results:
            write_shard(store, parent, recipe, dataset, result)
            total.add(result.profile)
            done += len(result.shard.members)
            parent.log({"members/done": done}, step=done)
    profile = total.total()
    if profile is None:
        raise StoreError(f"ensemble {recipe.digest()} has no members to fold")
    if shards:
        seconds = time.time() - start
        parent.log({"time/train_s": seconds, "speed/examples_per_s": examples / seconds})
    return profile


def log_ensemble(run: Run, recipe: Recipe, dataset: Dataset, profile: Profile) -> None:
    """Log the C-scores of the members that a profile holds.

    Raises:
        StoreError: every network diverged.
    """
    if profile.diverged == _total(recipe):
        raise StoreError(_all_diverged(recipe))
    scores = score_table(profile, dataset)
    run.table("cscore.parquet", scores)
    run.table("profile.parquet", profile_table(profile, dataset))

    train = scores[: dataset.n_train]
    steps = [round(100 * ratio) for ratio in profile.ratios]
    run.series("holdout/accuracy", _accuracy(profile, slice(0, dataset.n_train)), steps)
    if dataset.n_test:
        run.series("test/accuracy", _accuracy(profile, slice(dataset.n_train, None)), steps)
    if profile.diverged:
        say(f"{profile.diverged} of {_total(recipe)} networks diverged and count for nothing; lower optimizer.lr")
    halves = cscore.reliability(profile, slice(0, dataset.n_train))
    blocks = [block_length(ratio) for ratio in profile.ratios] if recipe.subset.design == "balanced" else [1]
    if np.isnan(halves.hard.value) and recipe.subset.members < 2 * max(blocks):
        say(f"too few members for a reliability and a noise ceiling; --set subset.members={2 * max(blocks)}")
    outcomes = {
        "cscore/mean": train["cscore"].mean(),
        "cscore/soft_mean": train["cscore_soft"].mean(),
        "cscore/stderr_mean": train["stderr"].mean(),
        "cscore/share_at_1": (train["cscore"] == 1).mean(),
        "cscore/missing": int(np.isnan(np.asarray(train["cscore"], dtype=float)).sum()),
        "consensus/consistency_mean": train["consensus_consistency"].mean(),
        "consensus/wrong_share": (train["consensus"] != train["label"])[train["consensus"] >= 0].mean(),
        "memorization/mean": train["memorization"].mean(),
        "reliability/half": halves.hard.value,
        "reliability/half_soft": halves.soft.value,
        "reliability/full": halves.hard_full,
        "reliability/full_soft": halves.soft_full,
        "members/diverged": profile.diverged,
    }
    run.log({name: value for name, value in outcomes.items() if not np.isnan(value)})


def _accuracy(profile: Profile, rows: slice) -> np.ndarray:
    """(s,) share of correct held-out predictions at each subset ratio."""
    return cscore.consistency(
        profile.correct[:, :, rows].sum(axis=(1, 2)), profile.held_out[:, :, rows].sum(axis=(1, 2))
    )
