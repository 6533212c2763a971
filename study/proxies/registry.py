"""Every proxy and what is declared about it.  in: {signal: array}, settings   out: finite scores (n,)

A proxy is a function whose signature is its specification: positional parameters are signals, keyword-only
parameters are settings with defaults.  `compute` is the one gate, `oriented` the one place that turns signs.
"""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from study import plugins
from study.code_hash import code_hash
from study.errors import AnalysisError, RecipeError, did_you_mean

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Setting = bool | int | float | str


class Signal(NamedTuple):
    """One array that proxies read: its axes and what it holds.

    axes: letters; n examples, e evaluations, t evaluations and the untrained network, w epochs with costly signals, c
        classes, k neighbours, l layers; any other letter belongs to that signal alone.
    """

    axes: tuple[str, ...]
    meaning: str


SIGNALS = {
    "labels": Signal(("n",), "class of each example, 0..c-1, as trained on"),
    "correct": Signal(("e", "n"), "whether the example is classified correctly at the end of each epoch"),
    "confidence": Signal(("e", "n"), "probability of the labelled class (p_L) at the end of each epoch"),
    "top_confidence": Signal(("e", "n"), "largest probability of any class (p_max) at the end of each epoch"),
    "loss": Signal(("e", "n"), "cross-entropy of the label at the end of each epoch, nats"),
    "margin": Signal(("e", "n"), "logit of the label minus the largest other logit at the end of each epoch"),
    "error_norm": Signal(("e", "n"), "Euclidean norm of softmax minus one-hot label at the end of each epoch"),
    "predicted": Signal(
        ("t", "n"), "class predicted before the first step and at the end of each epoch, or see single.evaluate_steps"
    ),
    "online_correct": Signal(("e", "n"), "whether the example is classified correctly online, before the step on it"),
    "target_confidence_now": Signal(("n",), "probability of the labelled class (p_L) at one checkpoint"),
    "top_confidence_now": Signal(("n",), "largest probability of any class (p_max) at one checkpoint"),
    "output_margin_now": Signal(("n",), "largest logit minus the second largest at one checkpoint"),
    "softmax_margin_now": Signal(("n",), "largest probability minus the second largest at one checkpoint"),
    "input_density": Signal(("n", "c"), "kernel sums over the training examples of each class, over N, on inputs"),
    "hidden_density": Signal(("n", "c"), "the same on one layer, the penultimate by default, at one checkpoint"),
    "local_density": Signal(("n",), "local reachability density among the k nearest on one layer, at the end"),
    "neighbor_density": Signal(("n", "k"), "local reachability densities of the k nearest"),
    "probe_class": Signal(("l", "n"), "class that the k-NN probe after each layer predicts, input first, softmax last"),
    "probe_confidence": Signal(("l", "n"), "share of the k neighbours after each layer that have the labelled class"),
    "final_class": Signal(("n",), "class that the trained network predicts"),
    "linear_probe_class": Signal(("l", "n"), "the same of the logistic-regression probe after each layer"),
    "loss_sensitivity": Signal(("w", "n"), "L1 norm of the loss's gradient in the input, at each due epoch"),
    "critical_steps": Signal(("n",), "steps of an adversarial search until the class changes, at the end"),
    "adversarial_margin_now": Signal(("n",), "linear estimate of the distance to another class, at one checkpoint"),
    "logit_gradient_variance": Signal(("w", "n"), "variance so far of the input gradient of the label's logit"),
    "gradient_norm_first": Signal(("n",), "norm of the loss's gradient in the weights, before the first step"),
    "gradient_norm": Signal(("n",), "the same at one checkpoint"),
    "last_layer_gradient_density": Signal(("n", "c"), "kernel sums on the last layer's gradients of the loss"),
    "gradient_density": Signal(("n", "c"), "kernel sums on the gradients of the loss in all weights, at the end"),
    "tangent_density_first": Signal(("n", "c"), "kernel sums on the gradients of the logits, before the first step"),
    "tangent_density_last": Signal(("n", "c"), "kernel sums on the gradients of the logits, at the end"),
}
PLANTS = {
    "flip": "an example of a tidy class under the label of another",
    "stray": "an example far from its class, under its label",
    "duplicate": "an exact copy of a tidy example; unlike the others it must score as easy",
}
COSTS = {
    "free": "read from the evaluations at epoch ends, or from the training itself",
    "pass": "one more evaluation of all examples",
    "n x n": "distances between all pairs of training examples",
    "gradients": "a backward pass for every example, or several",
    "probes": "nearest neighbours in every layer",
}
USUAL = ("free", "pass", "n x n")
"""Costs of the proxies that run where a recipe names none."""
OPPOSITE = {"high": "low", "low": "high"}
ALL = "all"
"""In [proxies], every proxy that is registered."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is declared about a proxy.

    name: registry name, column of scores.parquet and key in a recipe.
    function: takes signals by name and settings by keyword, gives (n,) float64.
    signals: the names of what it reads (keys of SIGNALS).
    settings: names and defaults.
    family: density, confidence or learning speed.
    easy: "high" or "low", whichever means easy, that is consistent.
    unit, label: for axes and table heads.
    source: paper and id in the inventory.
    on: "train" or "test", the rows that it is defined on.
    ties: how ties come about and what is done with them.
    never_learned: what an example gets that was never classified correctly.
    blind_to: the PLANTS that it cannot see by construction.
    stage_dependent: the direction holds once the network has learned every example by heart, and turns before that;
        tables say so.
    single_checkpoint: computed from one checkpoint of training, so that there is a score after each epoch; of the epoch
        that the setting `epoch` names where the proxy has one, else of the last.
    cost: a key of COSTS; what it came to is measured in each run.
    version: of what it computes; to be raised when its code changes and other scores come out.
    """

    name: str
    function: Callable[..., FloatArray]
    signals: tuple[str, ...]
    settings: Mapping[str, Setting]
    family: str
    easy: str
    unit: str
    label: str
    source: str
    on: Literal["train", "test"] = "train"
    ties: str = "rare"
    never_learned: str = "no special case"
    blind_to: tuple[str, ...] = ()
    stage_dependent: bool = False
    single_checkpoint: bool = False
    cost: str = "free"
    version: int = 1

    @property
    def direction(self) -> str:
        """What means easy, for tables."""
        return (
            f"{self.easy} once all is learned, before that {OPPOSITE[self.easy]}" if self.stage_dependent else self.easy
        )

    @property
    def code(self) -> str | None:
        """What a run notes of its code: None for version 1 of a proxy of this package, a hash for a plugin's."""
        if self.function.__module__.split(".")[0] == "study":
            return None if self.version == 1 else f"version {self.version}"
        return code_hash(self.function)


PROXIES: dict[str, Spec] = {}


def declare_signal(name: str, signal: Signal) -> None:
    """Add a signal to those that proxies may read; sources declare the ones that they give.

    Raises:
        ValueError: declared before otherwise, or no axis n.
    """
    if "n" not in signal.axes:
        raise ValueError(f"signal {name!r}: its axes {signal.axes} lack n, the examples")
    if SIGNALS.setdefault(name, signal) != signal:
        raise ValueError(f"signal {name!r} is declared twice")


def check_signals_of(spec: Spec) -> None:
    """Check that every signal that a proxy reads is declared; when it is used, as its source may be registered later.

    Raises:
        RecipeError: names the nearest signal, or all that there are.
    """
    for name in spec.signals:
        if name not in SIGNALS:
            raise RecipeError(f"proxy {spec.name!r} reads an unknown signal {name!r}{did_you_mean(name, SIGNALS)}")


def proxy(**declared: Any) -> Callable[[Callable[..., FloatArray]], Callable[..., FloatArray]]:
    """Register the decorated function under its name; `declared` are the fields of Spec from `family` on.

    Raises:
        ValueError: a name twice, an unknown plant, no docstring, a direction other than high or low;
            at import, since only the author of a proxy can mend it.
    """

    def register(function: Callable[..., FloatArray]) -> Callable[..., FloatArray]:
        spec = specify(function, **declared)
        if spec.name in PROXIES:
            raise ValueError(f"proxy {spec.name!r} is defined twice")
        PROXIES[spec.name] = spec
        return function

    return register


def specify(function: Callable[..., FloatArray], **declared: Any) -> Spec:
    """Read the signature of a proxy and check what is declared about it; see `proxy`."""
    parameters = inspect.signature(function).parameters.values()
    signals = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    name = function.__name__
    try:
        spec = Spec(
            name=name, function=function, signals=signals, settings=types.MappingProxyType(settings), **declared
        )
    except TypeError as error:
        raise ValueError(f"proxy {name!r}: {error}") from error
    faults = {
        "no docstring": not (function.__doc__ or "").strip(),
        "no signals": not signals,
        f"parameters other than signals and settings in {inspect.signature(function)}": len(signals) + len(settings)
        != len(parameters),
        "a setting without a plain default": not all(isinstance(value, Setting) for value in settings.values()),
        f"easy is {spec.easy!r}, not 'high' or 'low'": spec.easy not in ("high", "low"),
        f"on is {spec.on!r}, not 'train' or 'test'": spec.on not in ("train", "test"),
        f"cost is {spec.cost!r}, not one of {', '.join(COSTS)}": spec.cost not in COSTS,
        f"unknown plants {sorted(set(spec.blind_to) - set(PLANTS))}": not set(spec.blind_to) <= set(PLANTS),
        "family, unit, label or source is empty": not all((spec.family, spec.unit, spec.label, spec.source)),
    }
    for fault, present in faults.items():
        if present:
            raise ValueError(f"proxy {name!r}: {fault}")
    return spec


def get(name: str) -> Spec:
    """Look a proxy up by name.

    Raises:
        RecipeError: unknown; names the nearest one.
    """
    if name not in PROXIES:
        raise RecipeError(f"unknown proxy {name!r}{did_you_mean(name, PROXIES)} ({plugins.CURE})")
    return PROXIES[name]


def chosen(named: Mapping[str, Any]) -> list[Spec]:
    """The proxies of a recipe's [proxies] table: those that it names; `all` adds every one that is registered.

    None named: those whose cost is usual; gradients and probes are for who asks for them.

    Raises:
        RecipeError: unknown, settings of `all`, or a proxy that reads an unknown signal.
    """
    if named.get(ALL):
        raise RecipeError(
            f"proxies.{ALL} takes no settings, it stands for every proxy; write them under the proxy that they are for"
        )
    if not named:
        specs = [spec for spec in PROXIES.values() if spec.cost in USUAL]
    else:
        specs = [get(name) for name in named if name != ALL]
        specs = list(PROXIES.values()) if ALL in named else specs
    for spec in specs:
        check_signals_of(spec)
    return specs


def bind(spec: Spec, settings: Mapping[str, Any]) -> dict[str, Setting]:
    """Fill the settings of a proxy: those given, checked against the defaults' types, and the defaults for the rest.

    Raises:
        RecipeError: a setting that the proxy does not have, or one of another type; an int does for a float.
    """
    for name, value in settings.items():
        if name not in spec.settings:
            hint = did_you_mean(name, spec.settings) or "; it takes no settings, remove it"
            raise RecipeError(f"proxy {spec.name!r} has no setting {name!r}{hint}")
        wanted = type(spec.settings[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise RecipeError(f"proxies.{spec.name}.{name} is {value!r}; it must be of type {wanted.__name__}")
    filled = {**spec.settings, **settings}
    return {name: float(value) if isinstance(spec.settings[name], float) else value for name, value in filled.items()}


def at_epoch(spec: Spec, settings: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """The settings under which a proxy of one checkpoint is computed for the checkpoint after `epoch`."""
    return {**settings, "epoch": epoch} if "epoch" in spec.settings else dict(settings)


def signals_of(specs: Iterable[Spec]) -> set[str]:
    """Signals that these proxies read together, and nothing else."""
    return {name for spec in specs for name in spec.signals}


def compute(spec: Spec, signals: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> FloatArray:
    """Compute a proxy through the one gate: signals of fitting shapes in, (n,) finite float64 scores out.

    Args:
        spec: of the proxy.
        signals: arrays by name, at least those of the spec, restricted to the rows of `spec.on`.
        settings: as in `bind`.

    Raises:
        RecipeError: the proxy reads a signal that nobody declares.
        AnalysisError: the proxy refuses the signals (too few epochs), or a score is not finite (diverged training).
        ValueError: missing signals, axes that do not fit, a result of the wrong shape or type; an error of the caller
            or of the proxy's author.
    """
    check_signals_of(spec)
    missing = [name for name in spec.signals if name not in signals]
    if missing:
        raise ValueError(f"proxy {spec.name!r} lacks signals: {', '.join(missing)}")
    arrays = {name: np.asarray(signals[name]) for name in spec.signals}
    n = _axes(spec, arrays)["n"]
    filled = bind(spec, settings or {})
    try:
        scores = spec.function(**arrays, **filled)
    except ValueError as error:
        raise AnalysisError(f"proxy {spec.name!r}: {error}") from error
    if not isinstance(scores, np.ndarray) or scores.shape != (n,) or scores.dtype != np.float64:
        given = f"{getattr(scores, 'dtype', type(scores).__name__)} {np.shape(scores)}"
        raise ValueError(f"proxy {spec.name!r} gave {given} instead of float64 {(n,)}")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise AnalysisError(
            f"proxy {spec.name!r}: {len(wrong)} of {n} scores are not finite, first in {spec.on} row {wrong[0]}; "
            "has the training diverged? lower optimizer.lr"
        )
    return scores


def oriented(spec: Spec, scores: FloatArray) -> FloatArray:
    """Turn scores so that high means easy; the only place that knows about signs.  Any shape."""
    return scores if spec.easy == "high" else np.negative(scores)


def proxies_markdown(specs: Iterable[Spec] | None = None) -> str:
    """Table of all registered proxies for the README, one row each."""
    rows = [
        "| proxy | what | family | easy means | unit | on | cost | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for spec in PROXIES.values() if specs is None else specs:
        cells = (f"`{spec.name}`", spec.label, spec.family, spec.direction, spec.unit, spec.on, spec.cost, spec.source)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _axes(spec: Spec, arrays: Mapping[str, NDArray]) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        axes = SIGNALS[name].axes
        expected = tuple(lengths.get(axis, length) for axis, length in zip(axes, array.shape, strict=False))
        if array.ndim != len(axes) or array.shape != expected:
            others = ", ".join(f"{axis} = {length}" for axis, length in lengths.items()) or "nothing else given"
            raise ValueError(f"proxy {spec.name!r}: {name} is {array.shape}, not ({', '.join(axes)}) with {others}")
        lengths |= zip(axes, array.shape, strict=True)
    return lengths
