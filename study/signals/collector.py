"""What proxies read, collected while one network trains.  in: a look at all examples per epoch   out: {word: array}"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from study.data import Dataset
from study.errors import RecipeError
from study.proxies import SIGNALS, Spec, at_epoch, bind, chosen, compute, words
from study.recipe import Recipe
from study.signals.costs import Cost
from study.signals.logit_statistics import NOW, SERIES
from study.signals.registry import Checkpoint, SignalSource, collect, settings_of, sources_of
from study.training.evaluation import Snapshot

OUTCOME = ("correct", "confidence", "top_confidence")
"""Kept of every look, whatever proxies there are: figures read them."""
LAST = {"target_confidence_now": "confidence", "top_confidence_now": "top_confidence"}
"""Words of one moment that are the last look of a series."""
LOOKED = {*OUTCOME, *LAST, *SERIES, *NOW, "predicted"}
"""Words that a look at all examples gives."""


def wanted(named: Mapping[str, Any], dataset: Dataset) -> list[Spec]:
    """The proxies of a recipe's [proxies] table, see `proxies.chosen`.

    Proxies on test rows are left out where there are none, unless the recipe names them.

    Raises:
        RecipeError: a proxy that is not registered, or one on test rows without a test split.
    """
    specs = chosen(named)
    homeless = [spec for spec in specs if spec.on == "test" and not dataset.n_test]
    for spec in homeless:
        if spec.name in named:
            raise RecipeError(f"proxies.{spec.name} looks at test examples, and {dataset.name} has none; leave it out")
    return [spec for spec in specs if spec not in homeless]


def look_epochs(recipe: Recipe, n_train: int) -> list[int]:
    """The epochs, 1-based, after which all examples are evaluated (`single.evaluate_every`), the last included."""
    return _every(recipe.single.evaluate_every, recipe, n_train)


def due_epochs(recipe: Recipe, n_train: int) -> list[int]:
    """The epochs, 1-based, after which sources that are "due" run (`single.signals_every`), the last included.

    Only those with a look: with `evaluate_every = 3` and `signals_every = 2` every sixth.
    """
    return _every(math.lcm(recipe.single.evaluate_every, recipe.single.signals_every), recipe, n_train)


def _every(step: int, recipe: Recipe, n_train: int) -> list[int]:
    last = recipe.train.length(n_train)[0]
    return sorted({*range(step, last + 1, step), last})


def curved(specs: list[Spec]) -> list[Spec]:
    """The proxies of one moment that are scored at every due epoch.

    Those on the confidences alone are not: the trajectory tells them.
    """
    by_epoch = [each for each in sources_of(words(specs)) if each.when in ("first", "epoch", "due")]
    given = {"labels"} | LOOKED | {word for each in by_epoch for word in each.words}
    retold = {"labels"} | set(LAST)
    return [spec for spec in specs if spec.moment and set(spec.evidence) <= given and not set(spec.evidence) <= retold]


def conditions(spec: Spec, recipe: Recipe, n_train: int) -> dict[str, Any]:
    """What of a recipe decides a proxy's numbers, beside the training: a run that has it otherwise is another.

    settings: of the proxy.  evidence: of the sources that it reads.  due: the epochs that it accumulates, None for a
    proxy that does not.  code: of the proxy and of these sources, where a name alone does not say it.
    """
    sources = sources_of(spec.evidence)
    gathers = any(each.when == "due" and each.keep == "all" for each in sources)
    code = {"proxy": spec.code} | {each.name: each.code for each in sources}
    code = {name: each for name, each in code.items() if each}
    return ({"code": code} if code else {}) | {
        "settings": bind(spec, recipe.proxies.get(spec.name, {})),
        "evidence": {each.name: settings_of(each, recipe.signals.get(each.name, {})) for each in sources},
        "due": due_epochs(recipe, n_train) if gathers else None,
    }


@dataclass
class Shared:
    """Evidence of the data alone and what it cost, kept by the caller for all runs on this data."""

    words: dict[str, np.ndarray] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)


@dataclass
class Collector:
    """Takes looks at epoch ends; gives the trajectory, the moments' scores and the final evidence.

    looked: the epochs of the looks so far, that before the first step not among them.
    series: {word: one array per look so far}, (n,) of all examples, train rows then test rows; `online_correct`
        (n_train,); `predicted` begins with the untrained network.
    latest: {word: array} of what has no series.
    moments: {proxy: one (n of its split) array per epoch in `epochs`}, see `curved`.
    kept: the series that the run keeps; those of sources are not among them.
    progress: hears the source that is being gathered and the share done, 0 to 1; may raise to end the work.
    memories: of the sources, by name; see `Checkpoint`.
    network: the nn.Module after the last epoch, in evaluation mode.
    costs: by source, those of the data alone in `shared`; "looks" are those at all examples.
    """

    dataset: Dataset
    specs: list[Spec]
    recipe: Recipe
    device: str
    progress: Callable[[str, float], None] | None = None
    shared: Shared = field(default_factory=Shared)
    looked: list[int] = field(default_factory=list)
    series: dict[str, list[np.ndarray]] = field(default_factory=dict)
    latest: dict[str, np.ndarray] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    moments: dict[str, list[np.ndarray]] = field(default_factory=dict)
    network: Any = None
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.words = words(self.specs)
        self.due = due_epochs(self.recipe, self.dataset.n_train)
        self.looks = frozenset(look_epochs(self.recipe, self.dataset.n_train))
        self.sources = sources_of(self.words)
        self.measures = {word: formula for word, formula in (SERIES | NOW).items() if word in self.words}
        self.kept = [*OUTCOME, *(word for word in (*SERIES, "predicted", "online_correct") if word in self.words)]
        self.series = {word: [] for word in self.kept}

    @property
    def online(self) -> bool:
        """Whether looks must say what was right in passing."""
        return "online_correct" in self.series

    def take(self, epoch: int, look: Snapshot) -> bool:
        """Keep what one epoch says; epoch 0 is the moment before the first step.

        Returns:
            False, and nothing is kept, after an epoch that is not evaluated, and where the network has left the finite
            numbers.
        """
        if (epoch and epoch not in self.looks) or not self._look(epoch, look):
            return False
        moments = {"first": epoch == 0, "epoch": epoch > 0, "due": epoch in self.due, "last": epoch == self.due[-1]}
        for source in self.sources:
            if moments.get(source.when):
                self._collect(source, epoch, look)
        if epoch == self.due[-1]:
            self.network = look.network()
        if epoch in self.due:
            self.epochs.append(epoch)
            self._score_moments()
        return True

    def data(self) -> None:
        """Collect what is read of the data alone, unless it is there."""
        for source in self.sources:
            if source.when == "data" and not set(source.words) <= set(self.shared.words):
                self.shared.words |= self._run(source, 0, None)
        self.latest |= self.shared.words

    def of(self, spec: Spec) -> dict[str, np.ndarray]:
        """The evidence that a proxy reads, restricted to the rows on which it is defined, as of the last look."""
        return evidence(spec, self.dataset, self.series, self.latest)

    def cost(self, spec: Spec) -> Cost:
        """What the evidence of a proxy cost beyond the steps of the training.

        All moments together for a proxy that reads them all, one of them for a proxy of one moment.  Evidence that
        several proxies read counts whole for each, so costs of proxies do not add up; the features of one look are made
        once, for the source that asks first.
        """
        known = self.costs | self.shared.costs
        names = [source.name for source in sources_of(spec.evidence)] + ["looks"] * bool(LOOKED & set(spec.evidence))
        found = [known.get(name, Cost()) for name in names]
        return sum((cost.once() if spec.moment else cost for cost in found), Cost())

    def _look(self, epoch: int, look: Snapshot) -> bool:
        if not epoch and "predicted" not in self.words:
            return True
        with self.costs.setdefault("looks", Cost()).measured():
            measured = look.measure(self.measures if epoch else {})
        outcome = look.outcome()
        if outcome.diverged:
            return False
        found = {
            "correct": outcome.prediction == self.dataset.labels,
            "confidence": outcome.confidence,
            "top_confidence": outcome.top_confidence,
            "online_correct": self._online(epoch, look),
            **measured,
        }
        if epoch:
            self.looked.append(epoch)
        if "predicted" in self.series:
            self.series["predicted"].append(outcome.prediction)
        for word, array in found.items():
            if epoch and word in NOW:
                self.latest[word] = array
            elif epoch and word in self.series and array is not None:
                self.series[word].append(array)
        return True

    def _online(self, epoch: int, look: Snapshot) -> np.ndarray | None:
        """(n_train,) bool; None for a last pass that is cut short, which has not seen everyone."""
        n = self.dataset.n_train
        per_pass, steps = len(self.recipe.train.edges(n)) - 1, self.recipe.train.length(n)[1]
        return None if look.online is None or epoch * per_pass > steps else look.online[:n].cpu().numpy()

    def _run(self, source: SignalSource, epoch: int, look: Snapshot | None) -> dict[str, np.ndarray]:
        memory = self.memories.setdefault(source.name, {})
        progress = self.progress and partial(self.progress, source.name)
        heard = (self.device, self.recipe.stream, progress, memory, self.recipe.model.spec())
        moment = Checkpoint(self.dataset, epoch, look, *heard, last=epoch == self.due[-1])
        costs = self.shared.costs if source.when == "data" else self.costs
        if progress:
            progress(0.0)
        with costs.setdefault(source.name, Cost()).measured():
            return collect(source, moment, settings_of(source, self.recipe.signals.get(source.name, {})))

    def _collect(self, source: SignalSource, epoch: int, look: Snapshot) -> None:
        for word, array in self._run(source, epoch, look).items():
            if source.when == "epoch":
                self.series.setdefault(word, []).append(array)
            elif source.keep == "all":
                before = self.latest.get(word)
                self.latest[word] = array[None] if before is None else np.concatenate([before, array[None]])
            else:
                self.latest[word] = array

    def _score_moments(self) -> None:
        for spec in curved(self.specs):
            settings = at_epoch(spec, self.recipe.proxies.get(spec.name, {}), len(self.looked))
            self.moments.setdefault(spec.name, []).append(compute(spec, self.of(spec), settings).astype(np.float32))


def evidence(
    spec: Spec, dataset: Dataset, series: Mapping[str, Any], latest: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Arrange series, one array per look, and the latest arrays as one proxy reads them.

    The axis of length n is restricted to the rows of `spec.on`; arrays over the n_train training rows stay as they are.
    """
    rows = dataset.rows(spec.on)
    found: dict[str, np.ndarray] = {}
    for word in spec.evidence:
        if word == "labels":
            found[word] = dataset.labels[rows]
        elif word in series:
            n = len(dataset.labels[rows])
            found[word] = np.stack([each[rows] for each in series[word]]) if len(series[word]) else np.empty((0, n))
        elif word in LAST:
            found[word] = list(series[LAST[word]])[-1][rows]
        elif word in latest:
            found[word] = _restricted(word, latest[word], dataset, rows)
    return found


def _restricted(word: str, array: np.ndarray, dataset: Dataset, rows: slice) -> np.ndarray:
    axis = SIGNALS[word].axes.index("n")
    if array.shape[axis] != dataset.n:
        return array
    return array[(slice(None),) * axis + (rows,)]
