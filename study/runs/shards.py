"""The finished shards of a subset ensemble.  in: a Store, a recipe, a Dataset   out: their sums; subsets and answers

A shard is found by its tags and counts whichever launch has trained it.
"""

from collections.abc import Iterator

import numpy as np

from study.data import Dataset
from study.errors import StoreError
from study.progress import say
from study.recipe import Recipe
from study.scores.cscore import SUMS, Profile
from study.tracking import Run, Store


def keys(recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """The tags by which runs of the same training on the same data know each other."""
    return {"study.digest": recipe.digest(), "study.data": dataset.digest}


def finished_shards(
    store: Store, recipe: Recipe, dataset: Dataset
) -> tuple[Profile | None, set[tuple[float, int]], dict[str, str]]:
    """Fold the finished shards of this recipe on this data, whichever launch has trained them.

    Returns:
        The profile (None: there are none), the (ratio, member) in it, the tags that say in which precision the first
        was trained: it is kept.  A damaged shard is named and left out, so its members are trained again.
    """
    profile, done, like = None, set(), {}
    for run, kept in _kept_shards(store, recipe, dataset):
        ratio = float(kept["ratio"])
        like = like or placed(run)
        done |= {(ratio, int(member)) for member in kept["member"]}
        part = Profile(
            (ratio,),
            *(kept[name].astype(np.int64) for name in SUMS),
            kept["predicted"].astype(np.int32),
            int(kept["diverged"].sum()),
        )
        profile = part if profile is None else profile + part
    return profile, done, like


def _kept_shards(store: Store, recipe: Recipe, dataset: Dataset) -> Iterator[tuple[Run, dict[str, np.ndarray]]]:
    """The finished shards with members that the recipe asks for, each member once; the first launch's come first."""
    done, without = set(), set()
    wanted = {(ratio, member) for ratio in recipe.subset.ratios for member in range(recipe.subset.members)}
    shards = store.find("shard", tags=keys(recipe, dataset), status="FINISHED")
    for run in sorted(shards, key=lambda run: run.started):
        try:
            kept = run.read_arrays("members.npz")
        except StoreError as error:
            say(f"{error}: its members are trained again")
            continue
        if not {*SUMS, "predicted"} <= kept.keys():
            say(f"shard {run.id} ({run.name}) lacks some of its sums: its members are trained again")
            continue
        members = {(float(kept["ratio"]), int(member)) for member in kept["member"]}
        if recipe.subset.depth and "depth" not in kept:
            without |= members
            continue
        if members <= wanted and not members & done:
            done |= members
            yield run, kept
    again = (without & wanted) - done
    if again:
        say(f"{len(again)} members have no prediction depths, which subset.depth asks for: they are trained again")


def answers(store: Store, recipe: Recipe, dataset: Dataset, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """What the members of one ratio were trained on and which test examples they get right, the diverged left out.

    Returns:
        (m, ceil(n_train / 8)) packed bits of the subsets, (m, n_test) bool; m is 0 where no shard can be read.
    """
    subsets = [np.zeros((0, -(-dataset.n_train // 8)), dtype=np.uint8)]
    right = [np.zeros((0, dataset.n_test), dtype=bool)]
    for _, kept in _kept_shards(store, recipe.part("ensemble"), dataset):
        if float(kept["ratio"]) == ratio:
            sound = ~kept["diverged"].astype(bool)
            subsets.append(kept["subset"][sound])
            right.append(kept["miss"][sound, dataset.n_train :] == 0)
    return np.concatenate(subsets), np.concatenate(right)


def depths(store: Store, recipe: Recipe, dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prediction depths in the members of one shard after the other, for a recipe that asks for them (`subset.depth`).

    Yields:
        (m, n) depths in layers, -1 where undefined, as everywhere in a member that diverged; (m, n) True where the
        member trained on the example, never on a test row.  All members together would be m x n bytes, twice.
    """
    for _, kept in _kept_shards(store, recipe.part("ensemble"), dataset):
        inside = np.zeros(kept["depth"].shape, dtype=bool)
        inside[:, : dataset.n_train] = np.unpackbits(kept["subset"], axis=1, count=dataset.n_train)
        yield kept["depth"], inside


def placed(run: Run) -> dict[str, str]:
    """The tags that say how a run was trained, those on which bits depend."""
    told = ("study.matmul", "study.precision", "study.layout", "study.side_by_side")
    return {key: run.tags[key] for key in told if key in run.tags}
