"""What a study will cost, before it begins.  in: a recipe, a Dataset, a Store   out: networks, FLOPs, time, disk"""

import math
from dataclasses import dataclass, replace

from study.data import Dataset
from study.experiments.cells import cells, parts
from study.experiments.sweep import CellData, check_cells
from study.models import build
from study.progress import duration, number
from study.recipe import Recipe
from study.runs import ensemble, single
from study.runs.jobs import ensemble_plan, runtime_of, template_of
from study.runs.members import plan_shards
from study.runs.rounds import members_of, predicted_sizes
from study.runs.speed import seconds_per_example
from study.signals import evaluation_epochs
from study.tracking import Store
from study.training.autotune import place_network
from study.workflows.preflight import check_data

MISS_BYTES = 0.1  # of compressed predictions, per example and member (measured on MNIST at 95 % accuracy: 0.06)

DEPTH_BYTES = 0.5  # of compressed depths (.06 on the digits) and classes (10 alike: .43), per example and member


@dataclass(frozen=True)
class Cost:
    """Cost of one part of a study; `examples` and `evaluations` are forward passes with and without a backward one.

    beyond: what the estimate leaves out, in words.
    note: what else there is to say of it.
    """

    networks: int
    done: int
    epochs: int
    examples: int
    evaluations: int
    flops: float
    seconds: float
    disk: float
    beyond: str = ""
    note: str = ""

    def __add__(self, other: "Cost") -> "Cost":
        """Both together; of different trainings the longer one names the epochs."""
        summed = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("networks", "done", "examples", "evaluations", "flops", "seconds", "disk")
        }
        return Cost(**summed, epochs=max(self.epochs, other.epochs), beyond=self.beyond or other.beyond)


def plan_study(recipe: Recipe, dataset: Dataset, store: Store) -> dict[str, Cost]:
    """Estimate each part that the recipe's kind names; what is finished in the store costs nothing more."""
    costs = {}
    if recipe.kind in ("study", "ensemble"):
        part = recipe.part("ensemble")
        plan = ensemble_plan(part)
        sizes, done, note = _members(store, part, dataset)
        shards = plan_shards(plan, done, part.runtime.shard, sizes)
        members = sum(sizes.values())
        examples = sum(plan.examples(shard.ratio, shard.members, dataset.n_train) for shard in shards)
        evaluations = sum(len(shard.members) for shard in shards) * dataset.n
        each = 1 / 8 + MISS_BYTES + (DEPTH_BYTES if part.subset.depth else 0)
        disk = members * dataset.n * each + dataset.n * len(part.subset.ratios) * 12
        cost = _cost(part, dataset, members, len(done), examples, evaluations, disk)
        costs["ensemble"] = replace(cost, beyond="the prediction depths" if part.subset.depth else "", note=note)
    if recipe.kind in ("study", "single"):
        part = recipe.part("single")
        repeats, evaluations = part.single.repeats, len(evaluation_epochs(part, dataset.n_train))
        done = len(single.finished_repeats(store, part, dataset))
        left = repeats - done
        disk = repeats * evaluations * dataset.n * 16
        costs["single"] = _cost(
            part,
            dataset,
            repeats,
            done,
            left * part.train.length(dataset.n_train)[0] * dataset.n_train,
            left * (evaluations + 1) * dataset.n,
            disk,
        )
    return costs


def _members(store: Store, part: Recipe, dataset: Dataset) -> tuple[dict[float, int], set[tuple[float, int]], str]:
    """Members at each ratio, those that need no training, and where the numbers come from if networks decide them.

    Those of a finished ensemble are not counted shard by shard.
    """
    sizes, until = dict.fromkeys(part.subset.ratios, part.subset.members), part.subset.until
    run = ensemble.finished_ensemble(store, part, dataset)
    if run:
        sizes = dict(zip(sizes, members_of(run), strict=True))
        return sizes, {(ratio, member) for ratio, size in sizes.items() for member in range(size)}, ""
    folded, done, _ = ensemble.finished_shards(store, part, dataset)
    if not until.active:
        return sizes, done, ""
    there = {ratio: sum(each == ratio for each, _ in done) for ratio in sizes}
    if folded is None or min(there.values()) < 2:
        return sizes, done, "at most: subset.until stops before that; once some are trained, this predicts how many"
    sizes = predicted_sizes(part, dataset, folded, there, growth=math.inf)
    return sizes, done, f"predicted for subset.until from the {len(done)} networks that are there"


def plan_sweep(recipe: Recipe, store: Store) -> dict[str, Cost]:
    """Estimate the cells of a sweep together; a part that several cells share counts once.

    Raises:
        StudyError: the first cell at fault, in one line.
    """
    listed, data = cells(recipe), CellData()
    check_cells(listed, data, check_data)
    costs: dict[str, Cost] = {}
    seen = set()
    for cell in listed:
        dataset = data(cell.recipe)
        for part in parts(cell.recipe):
            key = (part.digest(), dataset.digest, part.subset.model_dump_json(), part.single.repeats)
            if key not in seen:
                seen.add(key)
                cost = plan_study(part, dataset, store)[part.kind]
                costs[part.kind] = costs[part.kind] + cost if part.kind in costs else cost
    return costs


def _cost(
    part: Recipe, dataset: Dataset, members: int, done: int, examples: int, evaluations: int, disk: float
) -> Cost:
    epochs = part.train.length(dataset.n_train)[0]
    if not examples and not evaluations:
        return Cost(members, done, epochs, 0, 0, 0.0, 0.0, disk)
    forward = build.flops(part.model.spec(), dataset.shape, dataset.n_classes)
    template = template_of(part)
    alone, depth = part.kind == "single", part.subset.depth
    placement = place_network(template, dataset, runtime_of(part), examples, alone=alone, snapshots=depth)
    train_s, evaluation_s = seconds_per_example(template, dataset, placement) if examples else (0.0, 0.0)
    return Cost(
        members,
        done,
        epochs,
        examples,
        evaluations,
        forward * (3.0 * examples + evaluations),
        train_s * examples + evaluation_s * evaluations,
        disk,
    )


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
            f"{number(cost.disk, 'B')} on disk"
            + (f"; beyond this, {cost.beyond}" if cost.beyond else "")
            + (f"; {cost.note}" if cost.note else "")
        )
    return lines
