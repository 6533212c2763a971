"""The finished shards of a subset ensemble.  in: a Store, a recipe, a Dataset   out: sums, subsets, predictions

A shard is found by its tags and counts whichever launch has trained it.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from study.data import Dataset
from study.errors import StoreError
from study.progress import say
from study.recipe import Recipe
from study.scores.cscore import SUMS, Profile, ProfileSum
from study.tracking import Run, Store
from study.training.placement import like_tags


def keys(recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """The tags by which runs of the same training on the same data know each other."""
    return {"study.digest": recipe.digest(), "study.data": dataset.digest}


def mark_damaged(store: Store, recipe: Recipe, dataset: Dataset) -> None:
    """End damaged shards as FAILED, when others were trained in their place."""
    for run in store.find("shard", tags=keys(recipe, dataset), status="FINISHED"):
        run.fail_damaged()


def finished_shards(
    store: Store, recipe: Recipe, dataset: Dataset, sizes: Mapping[float, int] | None = None
) -> tuple[Profile | None, set[tuple[float, int]], dict[str, str]]:
    """Fold the finished shards of this recipe on this data, whichever launch has trained them.

    Args:
        store, recipe, dataset: of the ensemble.
        sizes: members at each ratio that count; None: as the recipe says.

    Returns:
        The profile (None: there are none), the (ratio, member) in it, the tags that say how the first was trained: that
        is arrays.  A damaged shard is named and left out, so its members are trained again.
    """
    folded, done, like = ProfileSum(), set(), {}
    for run, arrays in _kept_shards(store, recipe, dataset, *SUMS, "predicted", "diverged", sizes=sizes):
        ratio = float(arrays["ratio"])
        like = like or like_tags(run.tags)
        done |= {(ratio, int(member)) for member in arrays["member"]}
        folded.add(shard_profile_of(arrays))
    return folded.total(), done, like


def shard_profile_of(arrays: Mapping[str, np.ndarray]) -> Profile:
    """The sums that a shard's file holds."""
    sums = (arrays[name] for name in SUMS)
    return Profile((float(arrays["ratio"]),), *sums, arrays["predicted"], int(arrays["diverged"].sum()))


def _kept_shards(
    store: Store, recipe: Recipe, dataset: Dataset, *names: str, sizes: Mapping[float, int] | None = None
) -> Iterator[tuple[Run, dict[str, np.ndarray]]]:
    """The finished shards with members that the recipe asks for, each member once; the first launch's come first.

    Of their arrays `ratio`, `member` and those that are named: a shard's predictions are most of its file.
    """
    done, without, ratios = set(), set(), {str(ratio) for ratio in recipe.subset.ratios}
    sizes = sizes or dict.fromkeys(recipe.subset.ratios, recipe.subset.members)
    wanted = {(ratio, member) for ratio, size in sizes.items() for member in range(size)}
    shards = store.find("shard", tags=keys(recipe, dataset), status="FINISHED")
    for run in sorted(shards, key=lambda run: run.started):
        if run.params.get("ratio", "") not in ratios:
            continue
        try:
            arrays, kept = run.read_some_arrays("members.npz", "ratio", "member", *names)
        except StoreError as error:
            say(f"{error}: its members are trained again")
            continue
        if not {*SUMS, "predicted"} <= kept:
            say(f"shard {run.id} ({run.name}) lacks some of its sums: its members are trained again")
            continue
        members = {(float(arrays["ratio"]), int(member)) for member in arrays["member"]}
        if recipe.subset.depth and "depth" not in kept:
            without |= members
            continue
        if members <= wanted and not members & done:
            done |= members
            yield run, arrays
    again = (without & wanted) - done
    if again:
        say(f"{len(again)} members have no prediction depths, which subset.depth asks for: they are trained again")


def predictions_on_test(store: Store, recipe: Recipe, dataset: Dataset, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """What the members of one ratio were trained on and which test examples they get right, the diverged left out.

    Returns:
        (m, ceil(n_train / 8)) packed bits of the subsets, (m, n_test) bool; m is 0 where no shard can be read.
    """
    subsets = [np.zeros((0, -(-dataset.n_train // 8)), dtype=np.uint8)]
    right = [np.zeros((0, dataset.n_test), dtype=bool)]
    part = recipe.part("ensemble")
    part = part.model_copy(update={"subset": part.subset.model_copy(update={"ratios": (ratio,)})})
    for _, arrays in _kept_shards(store, part, dataset, "subset", "miss", "diverged"):
        sound = ~arrays["diverged"].astype(bool)
        subsets.append(arrays["subset"][sound])
        right.append(arrays["miss"][sound, dataset.n_train :] == 0)
    return np.concatenate(subsets), np.concatenate(right)


def held_out_predictions(
    store: Store, recipe: Recipe, dataset: Dataset
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """What members say of examples that they hold out, shard by shard, the diverged left out.

    Yields:
        The subset ratio; (m, n) True where a member is right; (m, n) True where it holds the example out.
    """
    for _, arrays in _kept_shards(store, recipe.part("ensemble"), dataset, "subset", "miss", "diverged"):
        sound = ~arrays["diverged"].astype(bool)
        yield float(arrays["ratio"]), arrays["miss"][sound] == 0, ~_inside(arrays, dataset)[sound]


def depths(store: Store, recipe: Recipe, dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prediction depths in the members of one shard after the other, for a recipe that asks for them (`subset.depth`).

    Yields:
        (m, n) depths in layers, -1 where undefined, as everywhere in a member that diverged; (m, n) True where the
        member trained on the example, never on a test row.  All members together would be m x n bytes, twice.
    """
    for _, arrays in _kept_shards(store, recipe.part("ensemble"), dataset, "subset", "depth"):
        yield arrays["depth"], _inside(arrays, dataset)


def depths_and_predictions(
    store: Store, recipe: Recipe, dataset: Dataset
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `depths`, with the class (m, n) that each depth goes by: the member's prediction; without diverged members."""
    names = ("subset", "depth", "final", "diverged")
    for _, arrays in _kept_shards(store, recipe.part("ensemble"), dataset, *names):
        sound = ~arrays["diverged"].astype(bool)
        yield arrays["depth"][sound], _inside(arrays, dataset)[sound], arrays["final"][sound].astype(np.int64)


def probe_sums(store: Store, recipe: Recipe, dataset: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """What the k-NN probes of all members predict of the examples in their validation splits.

    Returns:
        (l, n, c) votes of the neighbours, summed over members; (l, n, c) members whose probe predicts the class.  None
        where no shard keeps them: of an older version, or of many classes and layers.
    """
    total = None
    for _, arrays in _kept_shards(store, recipe.part("ensemble"), dataset, "probe_votes", "probe_class"):
        if "probe_votes" not in arrays:
            continue
        part = np.stack([arrays["probe_votes"].astype(np.int64), arrays["probe_class"].astype(np.int64)])
        total = part if total is None else total + part
    return None if total is None else (total[0], total[1])


def _inside(arrays: dict[str, np.ndarray], dataset: Dataset) -> np.ndarray:
    """(m, n) True where a member trained on the example."""
    inside = np.zeros((len(arrays["member"]), dataset.n), dtype=bool)
    inside[:, : dataset.n_train] = np.unpackbits(arrays["subset"], axis=1, count=dataset.n_train)
    return inside
