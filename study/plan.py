"""What a study will cost, before it begins.  in: a recipe, a Dataset, a Store   out: networks, FLOPs, time, disk"""

import time
from dataclasses import dataclass, replace

import numpy as np

from study import ensemble, networks, single
from study.data import Dataset
from study.display import duration, number
from study.evidence import look_epochs
from study.recipe import Recipe
from study.tracking import Store
from study.training import Member, fit
from study.training.placement import Placement
from study.training.probing import measured_rate, place_network

PROBE_S = 0.5  # a trial of this length is long enough to extrapolate from
MISS_BYTES = 0.1  # of compressed predictions, per example and member (measured on MNIST at 95 % accuracy: 0.06)

DEPTH_BYTES = 0.5  # of compressed depths (.06 on the digits) and classes (10 alike: .43), per example and member


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a study; `examples` and `looks` are forward passes with and without a backward one.

    beyond: what the estimate leaves out, in words.
    """

    networks: int
    done: int
    epochs: int
    examples: int
    looks: int
    flops: float
    seconds: float
    disk: float
    beyond: str = ""


def plan_study(recipe: Recipe, dataset: Dataset, store: Store) -> dict[str, Cost]:
    """Estimate each part that the recipe's kind names; what is finished in the store costs nothing more."""
    costs = {}
    if recipe.kind in ("study", "ensemble"):
        part = recipe.part("ensemble")
        _, done, _ = ensemble.finished_shards(store, part, dataset)
        shards = ensemble.plan(part, done)
        members = len(part.subset.ratios) * part.subset.members
        examples = sum(ensemble.examples(part, dataset, shard) for shard in shards)
        looks = sum(len(shard.members) for shard in shards) * dataset.n
        each = 1 / 8 + MISS_BYTES + (DEPTH_BYTES if part.subset.depth else 0)
        disk = members * dataset.n * each + dataset.n * len(part.subset.ratios) * 12
        cost = _cost(part, dataset, members, len(done), examples, looks, disk)
        costs["ensemble"] = replace(cost, beyond="the prediction depths" if part.subset.depth else "")
    if recipe.kind in ("study", "single"):
        part = recipe.part("single")
        repeats, looks = part.single.repeats, len(look_epochs(part, dataset.n_train))
        done = len(single.finished_repeats(store, part, dataset))
        left = repeats - done
        disk = repeats * looks * dataset.n * 16
        costs["single"] = _cost(
            part,
            dataset,
            repeats,
            done,
            left * part.train.length(dataset.n_train)[0] * dataset.n_train,
            left * (looks + 1) * dataset.n,
            disk,
        )
    return costs


def _cost(part: Recipe, dataset: Dataset, members: int, done: int, examples: int, looks: int, disk: float) -> Cost:
    forward = networks.flops(part.model, dataset.shape, dataset.n_classes)
    placement = place_network(part, dataset, examples, alone=part.kind == "single")
    train_s, look_s = seconds_per_example(part, dataset, placement) if examples else (0.0, 0.0)
    return Cost(
        members,
        done,
        part.train.length(dataset.n_train)[0],
        examples,
        looks,
        forward * (3.0 * examples + looks),
        train_s * examples + look_s * looks,
        disk,
    )


def seconds_per_example(part: Recipe, dataset: Dataset, placement: Placement) -> tuple[float, float]:
    """Measure (training, looking) seconds per example with as many networks as train side by side.

    Where a probe has chosen the placement, its rates are taken.  Else from two batches on, four times as many, until a
    trial takes PROBE_S or has seen all training examples; the first trial is not counted, since the first convolutions
    of a process take seconds.  A look is then taken as a third of a step, by its FLOPs.  Of several devices one is
    measured.
    """
    known = measured_rate(part, dataset, placement)
    placement, *others = placement.split()
    devices = 1 + len(others)
    if known:
        return known.train / devices, known.look / devices
    one_epoch = part.model_copy(update={"train": part.train.model_copy(update={"epochs": 1, "steps": None})})
    size, warm = 2 * part.train.batch_size or dataset.n_train, False
    while True:
        rows = np.arange(min(size, dataset.n_train))
        small = replace(
            dataset, images=dataset.images[rows], labels=dataset.labels[rows], ids=dataset.ids[rows], n_train=len(rows)
        )
        members = [Member(("plan", index), rows) for index in range(placement.threads * placement.stack)]
        start = time.perf_counter()
        list(fit(members, small, one_epoch, placement))
        seconds = time.perf_counter() - start
        if warm and (seconds > PROBE_S or len(rows) == dataset.n_train):
            break
        size, warm = size * 4 if seconds <= PROBE_S else size, True
    per_example = seconds / (len(members) * len(rows) * 4 / 3) / devices
    return per_example, per_example / 3


def describe(costs: dict[str, Cost]) -> list[str]:
    """One line per part, as a person plans."""
    lines = []
    for name, cost in costs.items():
        left = cost.networks - cost.done
        if not left:
            lines.append(f"{name}: all {cost.networks} networks were trained before")
            continue
        before = f", {cost.done} done before" if cost.done else ""
        lines.append(
            f"{name}: {left} networks of {cost.networks} to train{before}, {cost.epochs} epochs, "
            f"{number(cost.examples)} examples, {number(cost.flops, 'FLOP')}, about {duration(cost.seconds)}, "
            f"{number(cost.disk, 'B')} on disk" + (f"; beyond this, {cost.beyond}" if cost.beyond else "")
        )
    return lines
