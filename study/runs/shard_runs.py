"""A trained shard as arrays, and its run.  in: a TrainedShard   out: a ShardResult, a child run of the ensemble

Whoever trains a shard, here or elsewhere, makes a ShardResult; whoever holds the ensemble's lock writes its run.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from study.data import Dataset
from study.recipe import Recipe, flatten
from study.runs.members import Shard, TrainedShard
from study.runs.shards import keys, shard_profile_of
from study.scores.cscore import SUMS, Profile
from study.tracking import Run, Store, descriptions
from study.training.placement import Placement, like_tags


@dataclass(frozen=True)
class ShardResult:
    """What is kept of a trained shard.

    arrays: of `members.npz`, see `write_shard`.
    losses: (m,) mean loss of the last epoch's batches of each member.
    like: tags that say on what the bits depend, see `placement.like_tags`.
    started: seconds since 1970.
    seconds: from then until it was trained.
    host: where, when that is not the machine that writes the run.
    """

    arrays: Mapping[str, np.ndarray]
    losses: np.ndarray
    like: Mapping[str, str] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0
    host: str = ""

    @property
    def shard(self) -> Shard:
        """Which members it holds."""
        return Shard(float(self.arrays["ratio"]), tuple(int(member) for member in self.arrays["member"]))

    @property
    def profile(self) -> Profile:
        """Its sums."""
        return shard_profile_of(self.arrays)


def shard_result(
    trained: TrainedShard, dataset: Dataset, placement: Placement, started: float, host: str = ""
) -> ShardResult:
    """Keep of a trained shard what is written, in the smallest types that hold it."""
    shard, outcomes, masks, profile = trained.shard, trained.outcomes, trained.masks, trained.profile
    prediction = np.stack([outcome.prediction for outcome in outcomes]).astype(np.int64)
    miss = np.mod(prediction - dataset.labels, dataset.n_classes)
    arrays = {
        "subset": np.packbits(masks[:, : dataset.n_train], axis=1),
        "miss": miss.astype(np.uint8 if dataset.n_classes <= 256 else np.uint16),
        "ratio": np.float64(shard.ratio),
        "member": np.array(shard.members),
        "seconds": np.array([outcome.seconds for outcome in outcomes]),
        "diverged": np.array([outcome.diverged for outcome in outcomes]),
        "predicted": _small(profile.predicted),
        **{name: _small(getattr(profile, name)) for name in SUMS},
        **trained.depths,
    }
    losses = np.array([outcome.losses[-1] for outcome in outcomes])
    return ShardResult(arrays, losses, like_tags(placement.tags()), started, time.time() - started, host)


def write_shard(store: Store, parent: Run, recipe: Recipe, dataset: Dataset, result: ShardResult) -> None:
    """One child run: its members' bits, their series, its sums.

    members.npz: subset (m, n_train) packed bits, members train on these; miss (m, n) (prediction - label) mod c, 0
    where right, which packs ten times better than the prediction; ratio, member (m,), seconds (m,), diverged (m,);
    and the sums of `cscore.Profile`.  With `subset.depth` also depth (m, n) in layers, -1 where undefined, and final
    (m, n), the class that it goes by: the member's prediction in the master precision; and where l x n x c is at most
    128 million the sums probe_votes and probe_class (l, n, c), see `signals.member_depths`.
    """
    shard, arrays = result.shard, result.arrays
    first, last = shard.members[0], shard.members[-1]
    params = flatten(recipe) | {"ratio": str(shard.ratio), "members": f"{first}-{last}"}
    run = store.start(
        parent.experiment,
        descriptions.shard_name(shard.ratio, first, last),
        params=params,
        parent=parent,
        started=result.started,
        description=descriptions.shard_note(shard.ratio, first, last),
        tags=keys(recipe, dataset)
        | {"study.kind": "shard", "study.trained_on": result.host or None}
        | dict(result.like),
    )
    with run:
        run.arrays("members.npz", **arrays)
        _log_members(run, result, dataset)


def _log_members(run: Run, result: ShardResult, dataset: Dataset) -> None:
    """The series of a shard's members, and their means."""
    arrays = result.arrays
    masks = np.zeros(arrays["miss"].shape, dtype=bool)
    masks[:, : dataset.n_train] = np.unpackbits(arrays["subset"], axis=1, count=dataset.n_train)
    train = slice(0, dataset.n_train)
    right, held_out = arrays["miss"] == 0, ~masks
    held_out_right = (right & held_out)[:, train].sum(axis=1) / held_out[:, train].sum(axis=1)
    test_right = right[:, dataset.n_train :].mean(axis=1) if dataset.n_test else None
    run.curves(
        {
            "member/holdout_accuracy": held_out_right,
            "member/train_accuracy": (right & masks).sum(axis=1) / masks.sum(axis=1),
            **({"member/test_accuracy": test_right} if test_right is not None else {}),
            "member/loss": result.losses,
        },
        result.shard.members,
    )
    run.log(
        ({"test/accuracy": float(test_right.mean())} if test_right is not None else {})
        | {
            "holdout/accuracy": float(held_out_right.mean()),
            "members/diverged": int(arrays["diverged"].sum()),
            "time/train_s": result.seconds,
        }
        | ({"depth/undefined": int(np.count_nonzero(arrays["depth"] < 0))} if "depth" in arrays else {})
    )


def _small(counts: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them."""
    top = int(counts.max(initial=0))
    return counts.astype(next(kind for kind in (np.uint8, np.uint16, np.uint32, np.int64) if top <= np.iinfo(kind).max))
