"""What proxies read, collected while one network trains.  in: an evaluation per epoch   out: {signal: array}"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from study.data import Dataset
from study.errors import RecipeError
from study.proxies import SIGNALS, Spec, at_epoch, bind, chosen, compute, signals_of
from study.recipe import Recipe
from study.signals.costs import Cost
from study.signals.logit_statistics import NOW, SERIES
from study.signals.registry import Checkpoint, SignalSource, collect, settings_of, sources_of
from study.training.evaluation import Measure, Snapshot

OUTCOME = ("correct", "confidence", "top_confidence")
"""Kept of every evaluation, whatever proxies there are: figures read them."""
LAST = {"target_confidence_now": "confidence", "top_confidence_now": "top_confidence"}
"""Signals of one checkpoint that are the last array of a series."""
EVALUATED = {*OUTCOME, *LAST, *SERIES, *NOW, "predicted"}
"""Signals that an evaluation of all examples gives."""


def wanted(named: Mapping[str, Any], dataset: Dataset) -> list[Spec]:
    """The proxies of a recipe's [proxies] table, see `proxies.chosen`.

    Proxies on test rows are left out where there are none, unless the recipe names them.

    Raises:
        RecipeError: a proxy that is not registered, or one on test rows without a test split.
    """
    specs = chosen(named)
    unplaced = [spec for spec in specs if spec.on == "test" and not dataset.n_test]
    for spec in unplaced:
        if spec.name in named:
            raise RecipeError(f"proxies.{spec.name} needs test examples, and {dataset.name} has none; leave it out")
    return [spec for spec in specs if spec not in unplaced]


def evaluation_epochs(recipe: Recipe, n_train: int) -> list[int]:
    """The epochs, 1-based, after which all examples are evaluated (`single.evaluate_every`), the last included."""
    return _every(recipe.single.evaluate_every, recipe, n_train)


def due_epochs(recipe: Recipe, n_train: int) -> list[int]:
    """The epochs, 1-based, after which sources that are "due" run (`single.signals_every`), the last included.

    Only those that are evaluated: with `evaluate_every = 3` and `signals_every = 2` every sixth.
    """
    return _every(math.lcm(recipe.single.evaluate_every, recipe.single.signals_every), recipe, n_train)


def _every(step: int, recipe: Recipe, n_train: int) -> list[int]:
    last = recipe.train.length(n_train)[0]
    return sorted({*range(step, last + 1, step), last})


def curved(specs: list[Spec]) -> list[Spec]:
    """The proxies of one checkpoint that are scored at every due epoch.

    Those on the confidences alone are not: they follow from the trajectory.
    """
    by_epoch = [each for each in sources_of(signals_of(specs)) if each.when in ("first", "epoch", "due")]
    available = {"labels"} | EVALUATED | {name for each in by_epoch for name in each.signals}
    confidences = {"labels"} | set(LAST)
    scored = [spec for spec in specs if spec.single_checkpoint and set(spec.signals) <= available]
    return [spec for spec in scored if not set(spec.signals) <= confidences]


def conditions(spec: Spec, recipe: Recipe, n_train: int) -> dict[str, Any]:
    """What of a recipe decides a proxy's numbers, beside the training: a run that has it otherwise is another.

    settings: of the proxy.  signals: of the sources that it reads.  due: the epochs that it accumulates, None for a
    proxy that does not.  code: of the proxy and of these sources, where a name alone does not say it.
    """
    sources = sources_of(spec.signals)
    gathers = any(each.when == "due" and each.keep == "all" for each in sources)
    code = {"proxy": spec.code} | {each.name: each.code for each in sources}
    code = {name: each for name, each in code.items() if each}
    due = due_epochs(recipe, n_train) if gathers else None
    return ({"code": code} if code else {}) | scored_with(spec, recipe) | {"due": due}


def scored_with(spec: Spec, recipe: Recipe) -> dict[str, Any]:
    """The part of `conditions` that a recipe says alone: settings of the proxy, and of the sources that it reads."""
    return {
        "settings": bind(spec, recipe.proxies.get(spec.name, {})),
        "signals": {
            each.name: settings_of(each, recipe.signals.get(each.name, {})) for each in sources_of(spec.signals)
        },
    }


@dataclass
class Shared:
    """Signals of the data alone and what they cost, kept by the caller for all runs on this data."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)


@dataclass
class Collector:
    """Takes snapshots at epoch ends; gives the trajectory, the scores by epoch and the final signals.

    evaluated: the epochs evaluated so far, that before the first step not among them.
    series: {signal: one array per evaluation so far}, (n,) of all examples, train rows then test rows; `online_correct`
        (n_train,); `predicted` begins with the untrained network, and has an array per entry of `steps` where
        there are any.
    steps: numbers of steps after which predicted classes were recorded (`single.evaluate_steps`), 0 first.
    latest: {signal: array} of what has no series.
    epoch_scores: {proxy: one (n of its split) array per epoch in `epochs`}, see `curved`.
    kept: the series that the run keeps; those of sources are not among them.
    progress: hears the source that is being gathered and the share done, 0 to 1; may raise to end the work.
    memories: of the sources, by name; see `Checkpoint`.
    network: the nn.Module after the last due epoch so far, in evaluation mode.
    costs: by source, those of the data alone in `shared`; "evaluations" are those of all examples.
    """

    dataset: Dataset
    specs: list[Spec]
    recipe: Recipe
    device: str
    progress: Callable[[str, float], None] | None = None
    shared: Shared = field(default_factory=Shared)
    evaluated: list[int] = field(default_factory=list)
    series: dict[str, list[np.ndarray]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    latest: dict[str, np.ndarray] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    epoch_scores: dict[str, list[np.ndarray]] = field(default_factory=dict)
    network: Any = None
    memories: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wanted = signals_of(self.specs)
        self.due = due_epochs(self.recipe, self.dataset.n_train)
        self.evaluations = frozenset(evaluation_epochs(self.recipe, self.dataset.n_train))
        self.sources = sources_of(self.wanted)
        self.measures = {name: formula for name, formula in (SERIES | NOW).items() if name in self.wanted}
        self.kept = [*OUTCOME, *(name for name in (*SERIES, "predicted", "online_correct") if name in self.wanted)]
        self.series = {name: [] for name in self.kept}
        self.every_steps = (self.recipe.single.evaluate_steps or 0) if "predicted" in self.kept else 0

    @property
    def online(self) -> bool:
        """Whether snapshots must hold the online predictions."""
        return "online_correct" in self.series

    def take(self, epoch: int, snapshot: Snapshot) -> bool:
        """Keep what one epoch says; epoch 0 is the checkpoint before the first step.

        Returns:
            False, and nothing is kept, after an epoch that is not evaluated, and where the network has left the finite
            numbers.
        """
        if (epoch and epoch not in self.evaluations) or not self._evaluate(epoch, snapshot):
            return False
        checkpoints = {"first": epoch == 0, "epoch": epoch > 0, "due": epoch in self.due, "last": epoch == self.due[-1]}
        for source in self.sources:
            if checkpoints.get(source.when):
                self._collect(source, epoch, snapshot)
        if epoch in self.due:
            self.network = snapshot.network()
            self.epochs.append(epoch)
            self._score_epoch()
        return True

    def take_step(self, job: object, step: int, snapshot: Snapshot) -> None:
        """Keep the predicted classes between two steps; for `Hooks.after_steps`."""
        with self.costs.setdefault("evaluations", Cost()).measured():
            outcome = snapshot.outcome()
        if not outcome.diverged:
            self.series["predicted"].append(outcome.prediction)
            self.steps.append(step)

    def measure(self, measures: Mapping[str, Measure], snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Statistics of the logits of all examples, (n,) by name; empty, and no forward pass, where none is named."""
        if not measures:
            return {}
        with self.costs.setdefault("evaluations", Cost()).measured():
            return snapshot.measure(measures)

    def replay(self, epoch: int, snapshot: Snapshot) -> None:
        """Take a network that was kept at a due epoch, whose evaluations are in `series` already."""
        self.latest |= snapshot.measure({name: formula for name, formula in self.measures.items() if name in NOW})
        for source in self.sources:
            if source.when == "due" or (source.when == "last" and epoch == self.due[-1]):
                self._collect(source, epoch, snapshot)
        self.epochs.append(epoch)
        self._score_epoch()

    def data(self) -> None:
        """Collect what is read of the data alone, unless it is there."""
        for source in self.sources:
            if source.when == "data" and not set(source.signals) <= set(self.shared.arrays):
                self.shared.arrays |= self._run(source, 0, None)
        self.latest |= self.shared.arrays

    def of(self, spec: Spec) -> dict[str, np.ndarray]:
        """The signals that a proxy reads, restricted to the rows on which it is defined, as of the last snapshot."""
        return select_signals(spec, self.dataset, self.series, self.latest)

    def cost(self, spec: Spec) -> Cost:
        """What the signals of a proxy cost beyond the steps of the training.

        All checkpoints together for a proxy that reads them all, one of them for a proxy of one checkpoint.  Signals
        that several proxies read count whole for each, so costs of proxies do not add up; the features of one snapshot
        are computed once, for the source that asks first.
        """
        costs = self.costs | self.shared.costs
        names = [source.name for source in sources_of(spec.signals)] + ["evaluations"] * bool(
            EVALUATED & set(spec.signals)
        )
        read = [costs.get(name, Cost()) for name in names]
        return sum((cost.once() if spec.single_checkpoint else cost for cost in read), Cost())

    def _evaluate(self, epoch: int, snapshot: Snapshot) -> bool:
        if not epoch and "predicted" not in self.wanted:
            return True
        with self.costs.setdefault("evaluations", Cost()).measured():
            measured = snapshot.measure(self.measures if epoch else {})
        outcome = snapshot.outcome()
        if outcome.diverged:
            return False
        arrays = {
            "correct": outcome.prediction == self.dataset.labels,
            "confidence": outcome.confidence,
            "top_confidence": outcome.top_confidence,
            "online_correct": self._online(epoch, snapshot),
            **measured,
        }
        if epoch:
            self.evaluated.append(epoch)
        if self._records_predicted(epoch):
            self.series["predicted"].append(outcome.prediction)
        for name, array in arrays.items():
            if epoch and name in NOW:
                self.latest[name] = array
            elif epoch and name in self.series and array is not None:
                self.series[name].append(array)
        return True

    def _records_predicted(self, epoch: int) -> bool:
        """Whether the classes predicted after an epoch are kept; by steps those before the first and after the last."""
        if not self.every_steps:
            return "predicted" in self.series
        last = self.recipe.train.length(self.dataset.n_train)[1]
        step = {0: 0, self.due[-1]: last}.get(epoch)
        if step is None or step in self.steps:
            return False
        self.steps.append(step)
        return True

    def _online(self, epoch: int, snapshot: Snapshot) -> np.ndarray | None:
        """(n_train,) bool; None for a last pass that is cut short, which has not seen everyone."""
        n = self.dataset.n_train
        per_pass, steps = len(self.recipe.train.edges(n)) - 1, self.recipe.train.length(n)[1]
        return None if snapshot.online is None or epoch * per_pass > steps else snapshot.online[:n].cpu().numpy()

    def _run(self, source: SignalSource, epoch: int, snapshot: Snapshot | None) -> dict[str, np.ndarray]:
        memory = self.memories.setdefault(source.name, {})
        progress = self.progress and partial(self.progress, source.name)
        context = (self.device, self.recipe.stream, progress, memory, self.recipe.model.spec())
        checkpoint = Checkpoint(self.dataset, epoch, snapshot, *context, last=epoch == self.due[-1])
        costs = self.shared.costs if source.when == "data" else self.costs
        if progress:
            progress(0.0)
        with costs.setdefault(source.name, Cost()).measured():
            return collect(source, checkpoint, settings_of(source, self.recipe.signals.get(source.name, {})))

    def _collect(self, source: SignalSource, epoch: int, snapshot: Snapshot) -> None:
        for name, array in self._run(source, epoch, snapshot).items():
            if source.when == "epoch":
                self.series.setdefault(name, []).append(array)
            elif source.keep == "all":
                before = self.latest.get(name)
                self.latest[name] = array[None] if before is None else np.concatenate([before, array[None]])
            else:
                self.latest[name] = array

    def _score_epoch(self) -> None:
        for spec in curved(self.specs):
            settings = at_epoch(spec, self.recipe.proxies.get(spec.name, {}), len(self.evaluated))
            self.epoch_scores.setdefault(spec.name, []).append(
                compute(spec, self.of(spec), settings).astype(np.float32)
            )


def select_signals(
    spec: Spec, dataset: Dataset, series: Mapping[str, Any], latest: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Arrange series, one array per evaluation, and the latest arrays as one proxy reads them.

    The axis of length n is restricted to the rows of `spec.on`; arrays over the n_train training rows stay as they are.
    """
    rows = dataset.rows(spec.on)
    selected: dict[str, np.ndarray] = {}
    for name in spec.signals:
        if name == "labels":
            selected[name] = dataset.labels[rows]
        elif name in series:
            n = len(dataset.labels[rows])
            selected[name] = np.stack([each[rows] for each in series[name]]) if len(series[name]) else np.empty((0, n))
        elif name in LAST:
            selected[name] = list(series[LAST[name]])[-1][rows]
        elif name in latest:
            selected[name] = _restricted(name, latest[name], dataset, rows)
    return selected


def _restricted(name: str, array: np.ndarray, dataset: Dataset, rows: slice) -> np.ndarray:
    axis = SIGNALS[name].axes.index("n")
    if array.shape[axis] != dataset.n:
        return array
    return array[(slice(None),) * axis + (rows,)]
