"""The members of a subset ensemble, without a store.  in: an EnsemblePlan, a Dataset   out: shards, a Profile

Members are trained in shards of one subset ratio.  `runs.ensemble` writes each shard down; the Python API folds them.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from study.data import Dataset
from study.kernels.kde import exact_routing
from study.progress import Bar, quiet
from study.runs.jobs import EnsemblePlan
from study.scores import cscore
from study.scores.cscore import Profile, ProfileSum
from study.scores.memorization import memorization_columns
from study.signals import MemberDepths
from study.training.autotune import place_network, review
from study.training.fit import fit
from study.training.placement import Placement
from study.training.results import Hooks, Outcome
from study.training.types import Job, RuntimeSpec


@dataclass(frozen=True)
class Shard:
    """Members of one subset ratio that are trained and written together."""

    ratio: float
    members: tuple[int, ...]


@dataclass(frozen=True)
class TrainedShard:
    """What came of a shard.

    outcomes: (m,) one for each member, in order.
    masks: (m, n) bool, the rows that each trained on.
    profile: its sums.
    depths: `depth` and `final` (m, n) where the plan asks for prediction depths, else empty.
    """

    shard: Shard
    outcomes: Sequence[Outcome]
    masks: np.ndarray
    profile: Profile
    depths: dict[str, np.ndarray]


def plan_shards(
    plan: EnsemblePlan,
    done: AbstractSet[tuple[float, int]] = frozenset(),
    size: int = 10,
    sizes: Mapping[float, int] | None = None,
) -> list[Shard]:
    """Shards for the members that are still missing, the first shard of every ratio before the second of any.

    An ensemble that is stopped half way then has members at every ratio.

    Args:
        plan: of the ensemble.
        done: (ratio, member) that need no training.
        size: members in a shard.
        sizes: members at each ratio; None: as the plan says.
    """
    per_ratio = []
    for ratio in plan.ratios:
        members = range(plan.members if sizes is None else sizes[ratio])
        missing = [member for member in members if (ratio, member) not in done]
        per_ratio.append([Shard(ratio, tuple(missing[low : low + size])) for low in range(0, len(missing), size)])
    rounds = itertools.zip_longest(*per_ratio)
    return [shard for each in rounds for shard in each if shard is not None]


def by_size(shards: Sequence[Shard], placement: Placement) -> tuple[list[Shard], Placement]:
    """For a placement in stacks: shards of one ratio together, as many as fill a stack, and a stack of that size.

    A stack holds jobs of one subset size.  Blocks of the ratios follow one another, so that an ensemble that is stopped
    has members at several ratios, and the last block of a ratio is not much smaller than the others.
    """
    if placement.stack == 1 or not shards:
        return list(shards), placement
    ratios = dict.fromkeys(shard.ratio for shard in shards)
    members = {ratio: sum(len(shard.members) for shard in shards if shard.ratio == ratio) for ratio in ratios}
    most = max(members.values())
    stack = max(2, -(-most // -(-most // placement.stack)))
    blocks: dict[float, list[list[Shard]]] = {}
    for ratio in ratios:
        block: list[Shard] = []
        blocks[ratio] = [block]
        for shard in (each for each in shards if each.ratio == ratio):
            if block and sum(len(each.members) for each in block) + len(shard.members) > stack:
                block = []
                blocks[ratio].append(block)
            block.append(shard)
    rounds = itertools.zip_longest(*blocks.values())
    ordered = [shard for each in rounds for block in each if block for shard in block]
    return ordered, replace(placement, stack=stack)


def place_ensemble(
    plan: EnsemblePlan,
    dataset: Dataset,
    runtime: RuntimeSpec,
    shards: Sequence[Shard],
    like: Mapping[str, str] | None = None,
) -> Placement:
    """Choose device, precision and how many train at a time, by a short measurement where one pays.

    Args:
        plan: of the ensemble.
        dataset: n examples.
        runtime: what is asked for.
        shards: that are to be trained.
        like: tags of a run of this ensemble; what its bits depend on is taken over.

    Raises:
        RecipeError: a device that is not there.
    """
    seen = sum(plan.examples(shard.ratio, shard.members, dataset.n_train) for shard in shards)
    placement = place_network(plan.template, dataset, runtime, seen, like=like, snapshots=plan.depth)
    if plan.depth:  # an evaluation is of one network; its searches set the routing for those beside it too
        placement = replace(placement, stack=1, matmul=exact_routing(placement.device))
    return placement


def train_shards(
    plan: EnsemblePlan, shards: Iterable[Shard], dataset: Dataset, placement: Placement, hooks: Hooks
) -> Generator[TrainedShard]:
    """Train the members of these shards, and give each shard in order as soon as its last member is done.

    Args:
        plan: of the ensemble.
        shards: see `plan_shards`; one that comes late is asked for when there is room to train it.
        dataset: train rows are drawn from, test rows are always held out.
        placement: see `place_ensemble`.
        hooks: progress in examples, stop.

    Raises:
        Stopped: `hooks.stop` was set.
    """
    masks: dict[tuple[float, int], np.ndarray] = {}
    depths = MemberDepths(plan.template, dataset, placement.device, hooks.stop) if plan.depth else None
    begun: deque[Shard] = deque()

    def jobs() -> Iterator[Job]:
        for shard in shards:
            begun.append(shard)
            for member in shard.members:
                mask = masks[shard.ratio, member] = plan.mask(shard.ratio, member, dataset)
                yield plan.job(shard.ratio, member, mask)

    if depths:
        hooks = replace(hooks, after_epoch=depths.take)
    start, count, seen = time.perf_counter(), 0, 0
    with closing(fit(jobs(), dataset, placement, hooks)) as outcomes:
        for first in outcomes:
            shard = begun.popleft()
            trained = [first, *itertools.islice(outcomes, len(shard.members) - 1)]
            of_shard = np.stack([masks.pop((shard.ratio, member)) for member in shard.members])
            deep = depths.pop([(shard.ratio, member) for member in shard.members]) if depths else {}
            count += len(trained)
            seen += plan.examples(shard.ratio, shard.members, dataset.n_train)
            yield TrainedShard(shard, trained, of_shard, fold(plan, shard, trained, of_shard, dataset), deep)
    if not depths and count >= 2 * placement.threads:  # fewer do not fill the machine
        review(plan.template, dataset, placement, seen, count * dataset.n, time.perf_counter() - start)


def fold(plan: EnsemblePlan, shard: Shard, outcomes: Sequence[Outcome], masks: np.ndarray, dataset: Dataset) -> Profile:
    """The sums of one shard."""
    return cscore.shard_profile(
        masks,
        np.stack([outcome.prediction for outcome in outcomes]).astype(np.int64),
        np.stack([outcome.confidence for outcome in outcomes]),
        dataset.labels,
        shard.ratio,
        shard.members,
        dataset.n_classes,
        design=plan.design,
        min_class=plan.min_class,
    )


def train_ensemble(
    plan: EnsemblePlan,
    dataset: Dataset,
    runtime: RuntimeSpec | None = None,
    *,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> Profile:
    """Train a whole ensemble and fold it; nothing is written anywhere.

    Args:
        plan: `EnsemblePlan(JobTemplate(network, optimizer, schedule, training, seed), ratios, members)`.
        dataset: train rows are drawn from, test rows are always held out.
        runtime: device, precision, threads; by default whatever is fast here.
        stop: set to end after the step under way.
        bar: display of the progress.

    Returns:
        The profile; `score_table` makes the table of C-scores of it.

    Raises:
        Stopped: `stop` was set.
        RecipeError: a ratio that leaves nothing to train on, a device that is not there, a network that cannot be.
    """
    shards = plan_shards(plan)
    shards, placement = by_size(shards, place_ensemble(plan, dataset, runtime or RuntimeSpec(), shards))
    total = sum(plan.examples(shard.ratio, shard.members, dataset.n_train) for shard in shards)
    count = sum(len(shard.members) for shard in shards)
    folded = ProfileSum()
    with bar(f"ensemble, {count} networks", total, unit="examples") as advance:
        hooks = Hooks(progress=advance, stop=stop or threading.Event())
        for trained in train_shards(plan, shards, dataset, placement, hooks):
            folded.add(trained.profile)
    profile = folded.total()
    if profile is None:
        raise ValueError("an ensemble without members has no scores")
    return profile


def score_table(profile: Profile, dataset: Dataset) -> pd.DataFrame:
    """The columns of cscore.parquet, a row for each of the n examples, train rows then test rows."""
    frame = pd.DataFrame({"example": dataset.ids, **dataset.label_columns, "split": dataset.split()})
    return frame.assign(**cscore.cscore_columns(profile, dataset.labels), **memorization_columns(profile))


def profile_table(profile: Profile, dataset: Dataset) -> pd.DataFrame:
    """The columns of profile.parquet, a row for each example at each subset ratio."""
    long = pd.DataFrame(profile.columns())
    repeats = len(long) // dataset.n
    long.insert(0, "example", np.tile(dataset.ids, repeats))
    long.insert(1, "label", np.tile(dataset.labels, repeats))
    return long
