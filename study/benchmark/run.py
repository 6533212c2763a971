"""The benchmark.  in: protocols, a folder of data, a store   out: what each measured here, beside the published figures

What is trained goes into the store as any other run and is found again: a second launch only measures.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from study.benchmark.baselines import cleanlab_installed
from study.benchmark.measures import RULES, measure
from study.benchmark.protocols import LABEL_ERRORS, PRUNING, Protocol
from study.data import Dataset, open_data
from study.errors import DataError
from study.progress import Bar, quiet
from study.recipe import Recipe
from study.runs.cross_validation import FOLDS, finished_cross_validation
from study.runs.jobs import runtime_of, template_of
from study.runs.speed import seconds_per_example
from study.tracking import Store
from study.training.autotune import place_network
from study.training.placement import device_name
from study.workflows.plan import plan_study

COLUMNS = ("score", "label", "measure", "value", "low", "high", "published", "published_scale", "source", "reading")


@dataclass(frozen=True)
class Prepared:
    """A protocol whose data are there; `seconds` is about what its trainings will take, those of parts at most."""

    protocol: Protocol
    recipe: Recipe
    dataset: Dataset
    seconds: float
    device: str

    @property
    def scale(self) -> str:
        """Data, examples, network and length, such as `mnist, 5,000 images, mlp, 20 epochs`."""
        changed = int((self.dataset.labels != self.dataset.clean_labels)[: self.dataset.n_train].sum())
        wrong = f", {changed / self.dataset.n_train:.1%} wrong" if changed else ""
        kind = "rows" if self.dataset.is_features else "images"
        size = "" if self.dataset.is_features else f" of {self.dataset.shape[1]} x {self.dataset.shape[2]}"
        return (
            f"{self.dataset.name}, {self.dataset.n_train:,} {kind}{size}{wrong}, {self.recipe.model.name}, "
            f"{self.recipe.train.epochs} epochs"
        )


@dataclass(frozen=True)
class Result:
    """What one protocol measured.

    table: a row per score and measure, ours and the published ones of the same names joined: COLUMNS; missing numbers
        are NaN, missing texts "".
    seconds: that this launch took; little where the store had the runs.
    """

    prepared: Prepared
    table: pd.DataFrame
    seconds: float


def prepare(chosen: Sequence[Protocol], folder: Path, store: Store) -> tuple[list[Prepared], list[str]]:
    """Open the data of each protocol and estimate its cost.

    Returns:
        Those that can run, and for each that cannot a line that says why.
    """
    ready, left_out = [], []
    for protocol in chosen:
        try:
            recipe = protocol.recipe(folder)
            dataset = open_data(recipe.data.model_copy(update={"download": False}), recipe.noise, seed=recipe.seed)
        except DataError as error:
            left_out.append(f"{protocol.name}: left out, {error}")
            continue
        seconds, device = _cost(protocol, recipe, dataset, store)
        ready.append(Prepared(protocol, recipe, dataset, seconds, device))
    return ready, left_out


def run(
    ready: Sequence[Prepared], store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> Iterator[Result]:
    """Measure the protocols one after the other; what is trained is found again.

    Raises:
        Stopped: `stop` was set.
    """
    for each in ready:
        begun = time.perf_counter()
        table = measure(each.protocol, each.recipe, each.dataset, store, stop=stop, bar=bar)
        yield Result(each, beside_published(table, each.protocol), time.perf_counter() - begun)


def beside_published(table: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Join ours with the published figures of the same score and measure; those that only others have come last."""
    published = pd.DataFrame(
        [
            {"score": each.score, "measure": each.measure, "published": each.value}
            | {"published_scale": each.scale, "source": each.source, "reading": each.reading}
            for each in protocol.published
        ],
        columns=["score", "measure", "published", "published_scale", "source", "reading"],
    )
    joined = table.merge(published.astype({"published": float}), on=["score", "measure"], how="outer", sort=False)
    order = {key: place for place, key in enumerate(zip(table["score"], table["measure"], strict=True))}
    places = [order.get(key, len(order)) for key in zip(joined["score"], joined["measure"], strict=True)]
    joined = joined.iloc[pd.Series(places).argsort(kind="stable")].reset_index(drop=True)
    joined["label"] = joined["label"].fillna(joined["score"])
    texts = ["published_scale", "source", "reading"]
    joined[texts] = joined[texts].fillna("")
    return joined[list(COLUMNS)]


def _cost(protocol: Protocol, recipe: Recipe, dataset: Dataset, store: Store) -> tuple[float, str]:
    """Seconds of what is missing, and the device."""
    seconds = sum(cost.seconds for cost in plan_study(recipe, dataset, store).values())
    part = recipe.part("ensemble")
    template = template_of(part)
    examples = 0
    validated = cleanlab_installed() and (protocol.measure == LABEL_ERRORS or "self_confidence" in protocol.by)
    if validated and finished_cross_validation(store, recipe, dataset) is None:
        examples += FOLDS * template.training.seen(round(dataset.n_train * (1 - 1 / FOLDS)))
    examples += _reduced_examples(protocol, recipe, dataset)
    placement = place_network(template, dataset, runtime_of(part), max(examples, 1), alone=protocol.measure == PRUNING)
    if examples:
        seconds += seconds_per_example(template, dataset, placement)[0] * examples
    return seconds, device_name(placement.device)


def _reduced_examples(protocol: Protocol, recipe: Recipe, dataset: Dataset) -> int:
    """How many examples the trainings on parts of the data take in, at most: some may be finished."""
    if protocol.measure == LABEL_ERRORS:
        return 0
    whole = recipe.part("single").train.seen(dataset.n_train)
    trainings = protocol.repeats * len(protocol.by)
    if protocol.measure != PRUNING:
        return protocol.repeats * whole + trainings * len(protocol.shares) * whole
    longer = [1.0 if settings["same_steps"] else share for settings in RULES.values() for share in protocol.shares]
    return round(len(RULES) * protocol.repeats * whole + trainings * sum(longer) * whole)
