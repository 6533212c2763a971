"""What proxies read, collected while one network trains.  in: a look at all examples per epoch   out: {word: array}

Only the words that the recipe's proxies name are collected.  Sources reduce features and gradients to a few numbers per
example at once, so none of them is kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study.data import Dataset
from study.errors import RecipeError
from study.evidence import densities  # noqa: F401  registers its sources
from study.evidence.sources import SOURCES, Moment, Source, check_evidence, collect, settings_of, sources_of
from study.proxies import PROXIES, WORDS, Spec, compute, get, words
from study.recipe import Recipe
from study.training import Look, Outcome

__all__ = ["SOURCES", "Collector", "check_evidence", "due_epochs", "evidence", "wanted"]

SERIES = ("correct", "confidence", "top_confidence")


def wanted(named: Mapping[str, Any], dataset: Dataset) -> list[Spec]:
    """The proxies of a recipe's [proxies] table, all registered ones when it names none.

    Proxies on test rows are left out where there are none, unless the recipe names them.

    Raises:
        RecipeError: a proxy that is not registered, or one on test rows without a test split.
    """
    specs = [get(name) for name in named] if named else list(PROXIES.values())
    homeless = [spec for spec in specs if spec.on == "test" and not dataset.n_test]
    if homeless and named:
        raise RecipeError(
            f"proxies.{homeless[0].name} looks at test examples, and {dataset.name} has none; leave it out"
        )
    return [spec for spec in specs if spec not in homeless]


def due_epochs(recipe: Recipe, n_train: int) -> list[int]:
    """The epochs, 1-based, after which sources that are "due" run: every so many, and the last."""
    last, every = recipe.train.length(n_train)[0], recipe.single.every
    return sorted({*range(every, last + 1, every), last})


@dataclass
class Collector:
    """Takes a look after each epoch; gives the trajectory, the moments' scores and the final evidence.

    series: {word: one (n,) array per epoch so far}, all n examples, train rows then test rows.
    moments: {proxy: one (n of its split) array per epoch in `epochs`}, of the proxies on evidence that is due.
    shared: evidence of the data alone, kept by the caller for all runs on this data.
    """

    dataset: Dataset
    specs: list[Spec]
    recipe: Recipe
    device: str
    progress: Callable[[float], None] | None = None
    shared: dict[str, np.ndarray] = field(default_factory=dict)
    series: dict[str, list[np.ndarray]] = field(default_factory=lambda: {word: [] for word in SERIES})
    epochs: list[int] = field(default_factory=list)
    moments: dict[str, list[np.ndarray]] = field(default_factory=dict)
    latest: dict[str, np.ndarray] = field(default_factory=dict)
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    bandwidths: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.due = due_epochs(self.recipe, self.dataset.n_train)
        self.sources = sources_of(words(self.specs))

    def take(self, epoch: int, look: Look, outcome: Outcome) -> None:
        """Keep what one epoch says; epoch 0 is the moment before the first step."""
        if epoch:
            self.series["correct"].append(outcome.prediction == self.dataset.labels)
            self.series["confidence"].append(outcome.confidence)
            self.series["top_confidence"].append(outcome.top_confidence)
        moments = {"first": epoch == 0, "epoch": epoch > 0, "due": epoch in self.due, "last": epoch == self.due[-1]}
        for source in self.sources:
            if moments.get(source.when):
                self._collect(source, epoch, look)
        if epoch in self.due:
            self.epochs.append(epoch)
            self._score_moments()

    def data(self) -> None:
        """Collect what is read of the data alone, unless it is there."""
        for source in self.sources:
            if source.when == "data" and not set(source.words) <= set(self.shared):
                self.shared |= self._run(source, 0, None)
        self.latest |= self.shared

    def of(self, spec: Spec) -> dict[str, np.ndarray]:
        """The evidence that a proxy reads, restricted to the rows on which it is defined, as of the last epoch."""
        return evidence(spec, self.dataset, self.series, self.latest)

    def _run(self, source: Source, epoch: int, look: Look | None) -> dict[str, np.ndarray]:
        memory = self.memories.setdefault(source.name, {})
        moment = Moment(self.dataset, epoch, look, self.device, self.recipe.stream, self.progress, memory)
        return collect(source, moment, settings_of(source, self.recipe.evidence.get(source.name, {})))

    def _collect(self, source: Source, epoch: int, look: Look) -> None:
        for word, array in self._run(source, epoch, look).items():
            if source.when == "epoch":
                self.series.setdefault(word, []).append(array)
            elif source.keep == "all":
                before = self.latest.get(word)
                self.latest[word] = array[None] if before is None else np.concatenate([before, array[None]])
            else:
                self.latest[word] = array

    def _score_moments(self) -> None:
        if "hidden_density" in self.memories:
            self.bandwidths.append(self.memories["hidden_density"]["bandwidth"])
        given = {word for source in self.sources if source.when == "due" for word in source.words}
        for spec in self.specs:
            if spec.moment and given & set(spec.evidence):
                scores = compute(spec, self.of(spec), self.recipe.proxies.get(spec.name, {})).astype(np.float32)
                self.moments.setdefault(spec.name, []).append(scores)


def evidence(
    spec: Spec, dataset: Dataset, series: Mapping[str, Any], latest: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Arrange series, (n,) per epoch, and the latest arrays as one proxy reads them.

    The axis of length n is restricted to the rows of `spec.on`; arrays over the n_train training rows stay as they are.
    """
    rows = dataset.rows(spec.on)
    found: dict[str, np.ndarray] = {}
    for word in spec.evidence:
        if word == "labels":
            found[word] = dataset.labels[rows]
        elif word in series:
            found[word] = np.stack([epoch[rows] for epoch in series[word]])
        elif word in ("target_confidence_now", "top_confidence_now"):
            last = list(series["confidence" if word.startswith("target") else "top_confidence"])[-1]
            found[word] = last[rows]
        elif word in latest:
            found[word] = _restricted(word, latest[word], dataset, rows)
    return found


def _restricted(word: str, array: np.ndarray, dataset: Dataset, rows: slice) -> np.ndarray:
    axis = WORDS[word].axes.index("n")
    if array.shape[axis] != dataset.n:
        return array
    return array[(slice(None),) * axis + (rows,)]
