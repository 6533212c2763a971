"""Sources of signals.  in: a checkpoint of one training   out: {signal: array}, what proxies read

A source is a function of a Checkpoint; its keyword-only parameters are settings that a recipe's [signals.<source>] may
change.  A launch runs the sources that its proxies need and no others, each at the checkpoints that it declares.
"""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study import plugins
from study.code_hash import code_hash
from study.data import Dataset
from study.errors import RecipeError, did_you_mean
from study.models.spec import NetworkSpec
from study.proxies.registry import SIGNALS, Signal, declare_signal
from study.training.evaluation import Snapshot

CHECKPOINTS = {
    "data": "once, of the data alone: `snapshot` is None",
    "first": "before the first step, epoch 0",
    "epoch": "at every evaluation: after every so many passes (`single.evaluate_every`), and after the last",
    "due": "after every so many passes (`single.signals_every`), of those that are evaluated, and after the last",
    "last": "after the last pass",
}
Setting = bool | int | float | str


@dataclass
class Checkpoint:
    """One checkpoint of one training, as a source sees it.

    epoch: passes made so far.
    snapshot: the network and its logits on all examples; None for sources of the data alone.
    device: where to compute.
    stream: named random numbers of the recipe, `checkpoint.stream("projection", ...)`; the same for every checkpoint.
    progress: hears the share done, 0 to 1; may raise to end the work.
    memory: of this source alone, empty at first, kept from checkpoint to checkpoint of one training.  Of it the run
        keeps "metrics", see `log`, and "arrays", see `keep`.
    spec: what the network is built from.
    last: whether no other checkpoint of this training follows.
    """

    dataset: Dataset
    epoch: int
    snapshot: Snapshot | None
    device: str
    stream: Callable[..., np.random.Generator]
    progress: Callable[[float], None] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    spec: NetworkSpec | None = None
    last: bool = True

    def log(self, name: str, value: float) -> None:
        """Say a number about this checkpoint, `group/name`; the run logs it as a metric with step = epoch."""
        self.memory.setdefault("metrics", {}).setdefault(self.epoch, {})[name] = float(value)

    def keep(self, name: str, array: np.ndarray) -> None:
        """Keep what no proxy reads but somebody may draw; the run writes <source>.npz, under each name the last."""
        self.memory.setdefault("arrays", {})[name] = array


@dataclass(frozen=True, kw_only=True)
class SignalSource:
    """What is declared about a source.

    signals: the names, of `proxies.SIGNALS`, that it gives.  An array is over all n examples, or over the n_train
        training examples where the signal is defined on these alone.
    when: a key of CHECKPOINTS.
    version: of what it computes; to be raised when its code changes and other arrays come out.
    keep: "last", what it gave last; "all", one array per checkpoint, stacked on a first axis.
    """

    name: str
    function: Callable[..., Any]
    signals: tuple[str, ...]
    when: str
    keep: str = "last"
    settings: Mapping[str, Setting] = field(default_factory=dict)
    version: int = 1

    @property
    def code(self) -> str | None:
        """What a run notes of its code: None for version 1 of a source of this package, a hash for a plugin's."""
        if self.function.__module__.split(".")[0] == "study":
            return None if self.version == 1 else f"version {self.version}"
        return code_hash(self.function)


SOURCES: dict[str, SignalSource] = {}


def source(
    *names: str, when: str, keep: str = "last", signals: Mapping[str, Signal] | None = None, version: int = 1
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function under its name.

    It gives an array for one signal, or {signal: array}, which may lack signals before the last checkpoint if no proxy
    of one checkpoint reads them.

    Args:
        names: the signals that it gives, declared in `proxies.registry.SIGNALS`.
        when, keep, version: see `SignalSource`.
        signals: further signals that it gives, with their declarations; proxies may read them from then on.

    Raises:
        ValueError: a name or signal twice, an unknown signal or checkpoint; at import, as only its author can mend it.

    A source in a plugin:

        @source(when="last", signals={"image_mean": Signal(("n",), "mean of the pixels")})
        def image_means(checkpoint):
            return checkpoint.dataset.images.mean(axis=(1, 2, 3))
    """
    declared = signals or {}
    given = (*names, *declared)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        taken = {signal for other in SOURCES.values() for signal in other.signals}
        if name in SOURCES or taken & set(given) or when not in CHECKPOINTS or keep not in ("last", "all"):
            raise ValueError(f"source {name!r}: defined twice, signals given twice, or an unknown checkpoint")
        for signal, declaration in declared.items():
            declare_signal(signal, declaration)
        unknown = set(given) - set(SIGNALS)
        if unknown or not given:
            raise ValueError(f"source {name!r}: declare its signals {', '.join(sorted(unknown))} by signals={{...}}")
        parameters = inspect.signature(function).parameters.values()
        settings = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
        SOURCES[name] = SignalSource(
            name=name,
            function=function,
            signals=given,
            when=when,
            keep=keep,
            settings=types.MappingProxyType(settings),
            version=version,
        )
        return function

    return register


def sources_of(signals: Iterable[str]) -> list[SignalSource]:
    """The sources that give these signals, in the order of their registration."""
    return [each for each in SOURCES.values() if set(each.signals) & set(signals)]


def settings_of(origin: SignalSource, given: Mapping[str, Any]) -> dict[str, Setting]:
    """Fill the settings of a source: those given, checked against the defaults' types, and the defaults for the rest.

    Raises:
        RecipeError: a setting that it does not have, or one of another type; an int does for a float.
    """
    for name, value in given.items():
        if name not in origin.settings:
            raise RecipeError(f"signals.{origin.name} has no setting {name!r}{did_you_mean(name, origin.settings)}")
        wanted = type(origin.settings[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise RecipeError(f"signals.{origin.name}.{name} is {value!r}; it must be of type {wanted.__name__}")
    filled = {**origin.settings, **given}
    return {name: float(value) if isinstance(origin.settings[name], float) else value for name, value in filled.items()}


def check_signals(given: Mapping[str, Mapping[str, Any]]) -> None:
    """A recipe's [signals] names sources that there are, with settings that they have.

    Raises:
        RecipeError: one line that says what there is instead.
    """
    for name, settings in given.items():
        if name not in SOURCES:
            raise RecipeError(f"unknown signal source {name!r}{did_you_mean(name, SOURCES)} ({plugins.CURE})")
        settings_of(SOURCES[name], settings)


def collect(origin: SignalSource, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Run one source at one checkpoint."""
    arrays = origin.function(checkpoint, **settings)
    return arrays if isinstance(arrays, dict) else {origin.signals[0]: arrays}
