"""The subset ensemble (J-alg1, J-integral).  in: a recipe, a Dataset, a Store   out: a run with C-scores, its shards

Members are trained in shards; a shard is one child run that is written at once when its members are done.  Shards that
are finished are found by the recipe's digest, so an interrupted launch goes on, more members may be asked for later,
and any division into shards folds to the same integers.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from study.data import Dataset
from study.errors import Stopped, StoreError
from study.kernels.kde import exact_routing
from study.progress import Bar, quiet, say
from study.recipe import Recipe, dump, flatten
from study.runs.shards import finished_shards, keys, placed
from study.scores import cscore
from study.scores.cscore import SUMS, Profile
from study.scores.memorization import memorization_columns
from study.scores.subsets import block_length, percent, subset_mask, subset_size
from study.signals import MemberDepths
from study.tracking import Run, Store, descriptions
from study.training.autotune import place_network
from study.training.fit import fit
from study.training.job import Hooks, Member, Outcome
from study.training.placement import Placement


@dataclass(frozen=True)
class Shard:
    """Members of one subset ratio that are trained and written together."""

    ratio: float
    members: tuple[int, ...]

    @property
    def name(self) -> str:
        """As the MLflow UI shows it: `30 %: 0-9`."""
        return descriptions.shard_name(self.ratio, self.members[0], self.members[-1])


def plan(recipe: Recipe, done: set[tuple[float, int]]) -> list[Shard]:
    """Shards for the members that are still missing, the first shard of every ratio before the second of any.

    An ensemble that is stopped half way then has members at every ratio.
    """
    per_ratio = []
    for ratio in recipe.subset.ratios:
        missing = [member for member in range(recipe.subset.members) if (ratio, member) not in done]
        size = recipe.runtime.shard
        per_ratio.append([Shard(ratio, tuple(missing[low : low + size])) for low in range(0, len(missing), size)])
    rounds = itertools.zip_longest(*per_ratio)
    return [shard for each in rounds for shard in each if shard is not None]


def size(recipe: Recipe) -> str:
    """How many members at which ratios; the tag `study.size` tells an ensemble from a larger one of its digest."""
    members = f"{recipe.subset.members} at {', '.join(percent(ratio) for ratio in recipe.subset.ratios)} %"
    return members + (", with prediction depths" if recipe.subset.depth else "")


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
        Stopped: `stop` was set, also while another process trained the same ensemble and this one waited for it.
    """
    recipe = recipe.part("ensemble")
    own = keys(recipe, dataset)
    stop = stop or threading.Event()
    with store.lock(f"ensemble-{recipe.digest()}-{dataset.digest}", waiting("this ensemble", stop)):
        store.reap(own)
        sized = own | {"study.size": size(recipe)}
        known = store.find("ensemble", tags=sized, max=1)
        if known and known[0].status == "FINISHED" and _readable(known[0]):
            say(f"ensemble {recipe.digest()}: finished before, {size(recipe)}")
            return known[0]
        folded, done, like = finished_shards(store, recipe, dataset)
        shards = plan(recipe, done)
        seen = sum(examples(recipe, dataset, shard) for shard in shards)
        placement = place_network(recipe, dataset, seen, like=like)
        if recipe.subset.depth:  # a look is at one network; its searches set the routing for those beside it too
            placement = replace(placement, stack=1, matmul=exact_routing(placement.device))
        parent = store.resume(known[0]) if known else _start(store, recipe, sized)
        _describe(parent, recipe, dataset)
        for key, value in placement.tags().items():
            parent.tag(key, value)
        with parent:
            try:
                profile = _train(recipe, dataset, store, parent, shards, folded, placement, stop, bar)
            except Stopped:
                parent.kill("stopped on request; the same command resumes it")
                raise
            _log_scores(parent, recipe, dataset, profile)
        return store.get(parent.id)


def waiting(what: str, stop: threading.Event) -> Callable[[str], None]:
    """What to do while another launch trains the same: say so once, wait, then find its runs finished."""
    told = threading.Event()

    def wait(holder: str) -> None:
        if stop.is_set():
            raise Stopped
        if not told.is_set():
            say(f"{what} is being trained by {holder}; waiting for it")
            told.set()

    return wait


def _readable(run: Run) -> bool:
    try:
        run.read("cscore.parquet"), run.read("profile.parquet")
    except StoreError as error:
        say(f"{error}; folding the shards again")
        return False
    return True


def _start(store: Store, recipe: Recipe, tags: dict[str, str]) -> Run:
    return store.start(
        f"{recipe.data.title}/ensemble",
        descriptions.ensemble_name(recipe),
        params=flatten(recipe),
        tags=tags | {"study.kind": "ensemble"},
        description=descriptions.ensemble_note(recipe),
    )


def _describe(run: Run, recipe: Recipe, dataset: Dataset) -> None:
    """Name data and recipe, the recipe last: where it is missing, a launch was killed before it had told all."""
    if "recipe.toml" in run.files:
        return
    run.param(flatten(recipe))
    run.dataset(dataset.name, dataset.digest, "training", dataset.n_train, classes=dataset.n_classes)
    run.text("recipe.toml", dump(recipe))


def _train(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    parent: Run,
    shards: Sequence[Shard],
    profile: Profile | None,
    placement: Placement,
    stop: threading.Event,
    bar: Bar,
) -> Profile:
    """Train the shards in order; each is written when its last member is done, and folded in."""
    masks: dict[tuple[float, int], np.ndarray] = {}
    depths = MemberDepths(recipe, dataset, placement.device, stop)
    after_epoch = depths.take if recipe.subset.depth else None

    def members() -> Iterator[Member]:
        for shard in shards:
            for member in shard.members:
                mask = _mask(recipe, dataset, shard.ratio, member)
                masks[shard.ratio, member] = mask
                yield Member(_words(shard.ratio, member), np.flatnonzero(mask))

    total = recipe.subset.members * len(recipe.subset.ratios)
    missing = sum(len(shard.members) for shard in shards)
    trained = sum(examples(recipe, dataset, shard) for shard in shards)
    begun = started = time.time()
    with (
        bar(f"ensemble, {missing} of {total} networks", trained, unit="examples") as advance,
        closing(fit(members(), dataset, recipe, placement, Hooks(advance, after_epoch, stop=stop))) as outcomes,
    ):
        for number, shard in enumerate(shards, 1):
            own = list(itertools.islice(outcomes, len(shard.members)))
            shard_masks = np.stack([masks.pop((shard.ratio, member)) for member in shard.members])
            deep = depths.pop([_words(shard.ratio, member) for member in shard.members])
            part = _write_shard(store, parent, recipe, dataset, shard, own, shard_masks, deep, started)
            profile = part if profile is None else profile + part
            started = time.time()
            done = total - missing + sum(len(shard.members) for shard in shards[:number])
            parent.log({"members/done": done}, step=done)
    if profile is None:
        raise StoreError(f"ensemble {recipe.digest()} has no members to fold")
    if shards:
        seconds = time.time() - begun
        parent.log({"time/train_s": seconds, "speed/examples_per_s": trained / seconds})
    return profile


def examples(recipe: Recipe, dataset: Dataset, shard: Shard) -> int:
    """How many examples its members see in training, over all epochs."""
    sizes = (subset_size(shard.ratio, member, dataset.n_train, recipe.subset.design) for member in shard.members)
    return sum(recipe.train.seen(size) for size in sizes)


def _words(ratio: float, member: int) -> tuple[object, ...]:
    """The name of a member in the random streams."""
    return "member", str(ratio), member


def _mask(recipe: Recipe, dataset: Dataset, ratio: float, member: int) -> np.ndarray:
    """(n,) bool: the rows that a member trains on; never a test row."""
    mask = np.zeros(dataset.n, dtype=bool)
    mask[: dataset.n_train] = subset_mask(recipe.stream, ratio, member, dataset.n_train, recipe.subset.design)
    return mask


def _write_shard(
    store: Store,
    parent: Run,
    recipe: Recipe,
    dataset: Dataset,
    shard: Shard,
    outcomes: Sequence[Outcome],
    masks: np.ndarray,
    depths: dict[str, np.ndarray],
    started: float,
) -> Profile:
    """One child run: its members' bits, their series, its sums.

    members.npz: subset (m, n_train) packed bits, members train on these; miss (m, n) (prediction - label) mod c, 0
    where right, which packs ten times better than the prediction; ratio, member (m,), seconds (m,), diverged (m,);
    and the sums of `cscore.Profile`.  With `subset.depth` also depth (m, n) in layers, -1 where undefined, and final
    (m, n), the class that it goes by: the member's answer in the master precision.
    """
    prediction = np.stack([outcome.prediction for outcome in outcomes]).astype(np.int64)
    confidence = np.stack([outcome.confidence for outcome in outcomes])
    profile = cscore.shard_profile(
        masks,
        prediction,
        confidence,
        dataset.labels,
        shard.ratio,
        shard.members,
        dataset.n_classes,
        design=recipe.subset.design,
    )
    params = flatten(recipe) | {"ratio": str(shard.ratio), "members": f"{shard.members[0]}-{shard.members[-1]}"}
    run = store.start(
        parent.experiment,
        shard.name,
        params=params,
        parent=parent,
        started=started,
        description=descriptions.shard_note(shard.ratio, shard.members[0], shard.members[-1]),
        tags=keys(recipe, dataset) | {"study.kind": "shard"} | placed(parent),
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
    return profile


def _small(counts: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them."""
    top = int(counts.max(initial=0))
    return counts.astype(next(kind for kind in (np.uint8, np.uint16, np.uint32, np.int64) if top <= np.iinfo(kind).max))


def _log_scores(run: Run, recipe: Recipe, dataset: Dataset, profile: Profile) -> None:
    frame = pd.DataFrame({"example": dataset.ids, **dataset.label_columns, "split": dataset.split()})
    scores = frame.assign(**cscore.cscore_columns(profile, dataset.labels), **memorization_columns(profile))
    run.table("cscore.parquet", scores)
    long = pd.DataFrame(profile.columns())
    repeats = len(long) // dataset.n
    long.insert(0, "example", np.tile(dataset.ids, repeats))
    long.insert(1, "label", np.tile(dataset.labels, repeats))
    run.table("profile.parquet", long)

    train = scores[: dataset.n_train]
    steps = [round(100 * ratio) for ratio in profile.ratios]
    run.series("holdout/accuracy", _accuracy(profile, slice(0, dataset.n_train)), steps)
    if dataset.n_test:
        run.series("test/accuracy", _accuracy(profile, slice(dataset.n_train, None)), steps)
    if profile.diverged:
        total = recipe.subset.members * len(recipe.subset.ratios)
        say(f"{profile.diverged} of {total} networks diverged and count for nothing; lower optimizer.lr")
    halves = cscore.reliability(profile, slice(0, dataset.n_train))
    if np.isnan(halves.hard.value):
        blocks = [block_length(ratio) for ratio in profile.ratios] if recipe.subset.design == "balanced" else [1]
        say(f"too few members for a reliability and a noise ceiling; --set subset.members={2 * max(blocks)}")
    run.log(
        {
            "cscore/mean": train["cscore"].mean(),
            "cscore/soft_mean": train["cscore_soft"].mean(),
            "cscore/stderr_mean": train["stderr"].mean(),
            "cscore/share_at_1": (train["cscore"] == 1).mean(),
            "cscore/missing": int(train["cscore"].isna().sum()),
            "consensus/consistency_mean": train["consensus_consistency"].mean(),
            "consensus/wrong_share": (train["consensus"] != train["label"])[train["consensus"] >= 0].mean(),
            "memorization/mean": train["memorization"].mean(),
            "reliability/half": halves.hard.value,
            "reliability/half_soft": halves.soft.value,
            "reliability/full": halves.hard_full,
            "reliability/full_soft": halves.soft_full,
            "members/diverged": profile.diverged,
        }
    )


def _accuracy(profile: Profile, rows: slice) -> np.ndarray:
    """(s,) share of correct held-out answers at each subset ratio."""
    return cscore.consistency(
        profile.correct[:, :, rows].sum(axis=(1, 2)), profile.held_out[:, :, rows].sum(axis=(1, 2))
    )
