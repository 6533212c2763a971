"""The subset ensemble (J-alg1, J-integral).  in: a recipe, a Dataset, a Store   out: a run with C-scores, its shards

Members are trained in shards; a shard is one child run that is written at once when its members are done.  Shards that
are finished are found by the recipe's digest, so an interrupted launch goes on, more members may be asked for later,
and any division into shards folds to the same integers.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from study.data import Dataset
from study.errors import Stopped, StoreError
from study.progress import Bar, quiet, say
from study.recipe import Recipe, dump, flatten
from study.runs.data_note import log_data
from study.runs.jobs import EnsemblePlan, ensemble_plan, runtime_of
from study.runs.members import (
    Shard,
    TrainedShard,
    by_size,
    place_ensemble,
    plan_shards,
    profile_table,
    score_table,
    train_shards,
)
from study.runs.shards import finished_shards, keys, mark_damaged
from study.scores import cscore
from study.scores.cscore import SUMS, Profile, ProfileSum
from study.scores.subsets import block_length, percent
from study.tracking import Run, Store, descriptions
from study.training.placement import Placement, like_tags
from study.training.results import Hooks


def size_tag(recipe: Recipe) -> str:
    """JSON: members at each ratio; the tag `study.size` tells an ensemble from a larger one of its digest."""
    subset = recipe.subset
    return json.dumps({"members": subset.members, "ratios": list(subset.ratios), "depth": subset.depth})


def size_text(tag: str) -> str:
    """The tag `study.size` for people, such as `20 at 10, 20 %`."""
    try:
        size = json.loads(tag)
    except ValueError:  # of a store from before 0.2
        return tag
    members = f"{size['members']} at {', '.join(percent(ratio) for ratio in size['ratios'])} %"
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
    plan, tags = ensemble_plan(recipe), keys(recipe, dataset)
    stop = stop or threading.Event()
    experiment = f"{recipe.data.title}/ensemble"
    name = f"ensemble-{recipe.digest()}-{dataset.digest}"
    parts = [str(ratio) for ratio in recipe.subset.ratios]
    with store.lock(name, waiting("this ensemble", stop), experiment=experiment, parts=parts, lost=stop.set):
        store.reap(tags, lambda run: run.params.get("ratio") in parts or run.tags.get("study.size") == size_tag(recipe))
        finished = finished_ensemble(store, recipe, dataset)
        if finished:
            say(f"ensemble {recipe.digest()}: finished before, {size_text(size_tag(recipe))}")
            return finished
        sized = tags | {"study.size": size_tag(recipe)}
        earlier = store.find("ensemble", tags=sized, max=1)
        folded, done, like = finished_shards(store, recipe, dataset)
        shards = plan_shards(plan, done, recipe.runtime.shard)
        shards, placement = by_size(shards, place_ensemble(plan, dataset, runtime_of(recipe), shards, like))
        parent = store.resume(earlier[0]) if earlier else _start(store, recipe, sized)
        _describe(parent, recipe, dataset)
        for key, value in placement.tags().items():
            parent.tag(key, value)
        with parent:
            try:
                profile = _train(recipe, plan, dataset, store, parent, shards, folded, placement, stop, bar)
            except Stopped:
                parent.kill("stopped on request; the same command resumes it")
                raise
            if profile.diverged == _total(recipe):
                raise StoreError(_all_diverged(recipe))
            _log_scores(parent, recipe, dataset, profile)
        mark_damaged(store, recipe, dataset)
        return store.get(parent.id)


def finished_ensemble(store: Store, recipe: Recipe, dataset: Dataset) -> Run | None:
    """The finished ensemble of this recipe and size on this data, if its scores can be read."""
    recipe = recipe.part("ensemble")
    earlier = store.find("ensemble", tags=keys(recipe, dataset) | {"study.size": size_tag(recipe)}, max=1)
    return earlier[0] if earlier and earlier[0].status == "FINISHED" and _complete(earlier[0], recipe) else None


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


def _train(
    recipe: Recipe,
    plan: EnsemblePlan,
    dataset: Dataset,
    store: Store,
    parent: Run,
    shards: Sequence[Shard],
    folded: Profile | None,
    placement: Placement,
    stop: threading.Event,
    bar: Bar,
) -> Profile:
    """Train the shards in order; each is written when its last member is done, and folded in."""
    members = plan.members * len(plan.ratios)
    missing = sum(len(shard.members) for shard in shards)
    done = members - missing
    total = ProfileSum()
    if folded is not None:
        total.add(folded)
    examples = sum(plan.examples(shard.ratio, shard.members, dataset.n_train) for shard in shards)
    begun = started = time.time()
    with (
        bar(f"ensemble, {missing} of {members} networks", examples, unit="examples") as advance,
        closing(train_shards(plan, shards, dataset, placement, Hooks(advance, stop=stop))) as trained,
    ):
        for part in trained:
            _write_shard(store, parent, recipe, dataset, part, started)
            total.add(part.profile)
            started = time.time()
            done += len(part.shard.members)
            parent.log({"members/done": done}, step=done)
    profile = total.total()
    if profile is None:
        raise StoreError(f"ensemble {recipe.digest()} has no members to fold")
    if shards:
        seconds = time.time() - begun
        parent.log({"time/train_s": seconds, "speed/examples_per_s": examples / seconds})
    return profile


def _write_shard(
    store: Store, parent: Run, recipe: Recipe, dataset: Dataset, trained: TrainedShard, started: float
) -> None:
    """One child run: its members' bits, their series, its sums.

    members.npz: subset (m, n_train) packed bits, members train on these; miss (m, n) (prediction - label) mod c, 0
    where right, which packs ten times better than the prediction; ratio, member (m,), seconds (m,), diverged (m,);
    and the sums of `cscore.Profile`.  With `subset.depth` also depth (m, n) in layers, -1 where undefined, and final
    (m, n), the class that it goes by: the member's prediction in the master precision; and where l x n x c is at most
    128 million the sums probe_votes and probe_class (l, n, c), see `signals.member_depths`.
    """
    shard, outcomes, masks = trained.shard, trained.outcomes, trained.masks
    profile, depths = trained.profile, trained.depths
    prediction = np.stack([outcome.prediction for outcome in outcomes]).astype(np.int64)
    params = flatten(recipe) | {"ratio": str(shard.ratio), "members": f"{shard.members[0]}-{shard.members[-1]}"}
    run = store.start(
        parent.experiment,
        descriptions.shard_name(shard.ratio, shard.members[0], shard.members[-1]),
        params=params,
        parent=parent,
        started=started,
        description=descriptions.shard_note(shard.ratio, shard.members[0], shard.members[-1]),
        tags=keys(recipe, dataset) | {"study.kind": "shard"} | like_tags(parent.tags),
    )
    with run:
        miss = np.mod(prediction - dataset.labels, dataset.n_classes)
        run.arrays(
            "members.npz",
            subset=np.packbits(masks[:, : dataset.n_train], axis=1),
            miss=miss.astype(np.uint8 if dataset.n_classes <= 256 else np.uint16),
            ratio=np.float64(shard.ratio),
            member=np.array(shard.members),
            seconds=np.array([outcome.seconds for outcome in outcomes]),
            diverged=np.array([outcome.diverged for outcome in outcomes]),
            predicted=_small(profile.predicted),
            **{name: _small(getattr(profile, name)) for name in SUMS},
            **depths,
        )
        train = slice(0, dataset.n_train)
        right, held_out = miss == 0, ~masks
        held_out_right = (right & held_out)[:, train].sum(axis=1) / held_out[:, train].sum(axis=1)
        test_right = right[:, dataset.n_train :].mean(axis=1) if dataset.n_test else None
        run.curves(
            {
                "member/holdout_accuracy": held_out_right,
                "member/train_accuracy": (right & masks).sum(axis=1) / masks.sum(axis=1),
                **({"member/test_accuracy": test_right} if dataset.n_test else {}),
                "member/loss": [outcome.losses[-1] for outcome in outcomes],
            },
            shard.members,
        )
        run.log(
            ({"test/accuracy": test_right.mean()} if dataset.n_test else {})
            | {
                "holdout/accuracy": held_out_right.mean(),
                "members/diverged": profile.diverged,
                "time/train_s": time.time() - started,
            }
            | ({"depth/undefined": np.count_nonzero(depths["depth"] < 0)} if depths else {})
        )


def _small(counts: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them."""
    top = int(counts.max(initial=0))
    return counts.astype(next(kind for kind in (np.uint8, np.uint16, np.uint32, np.int64) if top <= np.iinfo(kind).max))


def _log_scores(run: Run, recipe: Recipe, dataset: Dataset, profile: Profile) -> None:
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
