"""What proxies read, collected while one network trains.  in: a look at all examples per epoch   out: {word: array}

Only the words that the recipe's proxies name are collected.  Features are reduced to kernel sums at once, so no epoch's
features are kept.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study.data import Dataset
from study.errors import RecipeError
from study.proxies import PROXIES, Spec, compute, get, words
from study.proxies.neighbors import class_kernel_sums
from study.training import Outcome

MOMENT_WORDS = {"target_confidence_now", "top_confidence_now", "hidden_density"}


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


def input_density(dataset: Dataset, device: str, progress: Callable[[float], None] | None = None) -> np.ndarray:
    """(n_train, c) kernel sums in the input space (J-kde-input); the same for every run on this data."""
    train = dataset.rows("train")
    sums, _ = class_kernel_sums(
        dataset.images[train], dataset.labels[train], dataset.n_classes, device=device, progress=progress
    )
    return sums


@dataclass
class Collector:
    """Takes one Outcome after each epoch; gives the trajectory, the moments' scores and the final evidence.

    correct, confidence, top_confidence: (e, n) so far, all n examples, train rows then test rows.
    moments: {proxy: one (n of its split) array per epoch in `epochs`}, of the proxies on hidden densities.
    """

    dataset: Dataset
    specs: list[Spec]
    due: list[int]  # epochs after which hidden densities are taken
    device: str
    progress: Callable[[float], None] | None = None  # hears how far the densities of an epoch are; may end the work
    correct: list[np.ndarray] = field(default_factory=list)
    confidence: list[np.ndarray] = field(default_factory=list)
    top_confidence: list[np.ndarray] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    moments: dict[str, list[np.ndarray]] = field(default_factory=dict)
    bandwidths: list[float] = field(default_factory=list)
    hidden: np.ndarray | None = None

    def needs_features(self, epoch: int) -> bool:
        """Whether the look after this epoch (1-based) has to bring the penultimate layer."""
        return epoch in self.due and "hidden_density" in words(self.specs)

    def take(self, epoch: int, outcome: Outcome) -> None:
        """Keep what one epoch says."""
        self.correct.append(outcome.prediction == self.dataset.labels)
        self.confidence.append(outcome.confidence)
        self.top_confidence.append(outcome.top_confidence)
        if outcome.features is None:
            return
        train = self.dataset.rows("train")
        self.hidden, bandwidth = class_kernel_sums(
            outcome.features[train],
            self.dataset.labels[train],
            self.dataset.n_classes,
            device=self.device,
            progress=self.progress,
        )
        self.bandwidths.append(bandwidth)
        self.epochs.append(epoch)
        for spec in self.specs:
            if spec.moment and "hidden_density" in spec.evidence:
                scores = compute(spec, self.of(spec)).astype(np.float32)
                self.moments.setdefault(spec.name, []).append(scores)

    def of(self, spec: Spec, inputs: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The evidence that a proxy reads, restricted to the rows on which it is defined, as of the last epoch."""
        return evidence(
            spec,
            self.dataset,
            self.correct,
            self.confidence,
            self.top_confidence,
            {"input_density": inputs, "hidden_density": self.hidden},
        )


def evidence(
    spec: Spec,
    dataset: Dataset,
    correct: Iterable[np.ndarray],
    confidence: Iterable[np.ndarray],
    top_confidence: Iterable[np.ndarray],
    densities: Mapping[str, np.ndarray | None],
) -> dict[str, np.ndarray]:
    """Arrange a trajectory, (e, n) each, and densities, (n_train, c) each, as one proxy reads them."""
    rows = dataset.rows(spec.on)
    series = {"correct": correct, "confidence": confidence, "top_confidence": top_confidence}
    found: dict[str, np.ndarray] = {}
    for word in spec.evidence:
        if word == "labels":
            found[word] = dataset.labels[rows]
        elif word in series:
            found[word] = np.stack([epoch[rows] for epoch in series[word]])
        elif word in ("target_confidence_now", "top_confidence_now"):
            last = list(confidence if word.startswith("target") else top_confidence)[-1]
            found[word] = last[rows]
        elif densities.get(word) is not None:
            found[word] = densities[word]
    return found
