"""Which classes more data would help.  in: an ensemble   out: accuracy by class and size of the data, extrapolated"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis import StudyRuns
from study.data import Dataset
from study.errors import AnalysisError
from study.random_streams import random_stream
from study.scores.cscore import Profile
from study.scores.learning_curves import fit_power_law

LEAST = 3  # subset ratios
RESAMPLES = 300
ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class Collection:
    """What more data would bring, class by class.

    table: a row per class, the largest gain first: `class` `n` (training examples) `exponent` (of the power law) |
        `now` `more` `gain`: held-out accuracy extrapolated to all training examples and to `times` as many, and the
        difference, each with `_low` and `_high`, percentiles over examples of the class drawn anew | `last`, the
        accuracy at the largest subset ratio, and `last_predicted` with `_low` and `_high`, from the smaller ratios.
    curves: `class` `ratio` `accuracy` `held_out` (predictions).
    times: how much larger the training set would be.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    times: float

    @property
    def covered(self) -> int:
        """Classes whose accuracy at the largest ratio lies in the interval predicted from the smaller ones."""
        names = ("last", "last_predicted_low", "last_predicted_high")
        last, low, high = (self.table[name].to_numpy(dtype=float) for name in names)
        return int(((last >= low) & (last <= high)).sum())


def more_data(runs: StudyRuns, dataset: Dataset, *, times: float = 2.0, seed: int = 0) -> Collection:
    """Extrapolate the held-out accuracy of each class over the size of the training set.

    The mean C-score of a class at a subset ratio is the accuracy of networks that were trained on so much of the data.
    Every class grows with the others: the curve says what more data of all classes would do for this one.

    Args:
        runs: with an ensemble of three subset ratios at least.
        dataset: that it was trained on.
        times: how much larger the training set would be, above 1.
        seed: of the resampled examples.

    Raises:
        AnalysisError: no ensemble, or too few ratios.
    """
    profile = runs.profile
    if profile is None or len(profile.ratios) < LEAST:
        raise AnalysisError(
            f"needs an ensemble of {LEAST} subset ratios or more; set subset.ratios = [0.2, 0.4, 0.6, 0.8]"
        )
    rows, curves = [], []
    for label, name in enumerate(dataset.classes):
        members = np.flatnonzero(dataset.labels[: dataset.n_train] == label)
        held_out, correct = (sums.sum(axis=1)[:, members] for sums in (profile.held_out, profile.correct))
        rows.append({"class": name, "n": len(members)} | _row(profile, held_out, correct, dataset.n_train, times, seed))
        shares = correct.sum(axis=1) / np.maximum(held_out.sum(axis=1), 1)
        curves += [
            {"class": name, "ratio": ratio, "accuracy": share, "held_out": int(count)}
            for ratio, share, count in zip(profile.ratios, shares, held_out.sum(axis=1), strict=True)
        ]
    table = pd.DataFrame(rows).sort_values(by="gain", ascending=False, kind="stable", ignore_index=True)
    return Collection(table, pd.DataFrame(curves), times)


def _row(
    profile: Profile, held_out: np.ndarray, correct: np.ndarray, n_train: int, times: float, seed: int
) -> dict[str, float]:
    """The extrapolations of one class; held_out and correct (s, n of the class)."""
    sizes = np.array(profile.ratios) * n_train
    rng = random_stream(seed, "collection")
    n = held_out.shape[1]
    draws = [_extrapolated(sizes, held_out, correct, np.ones(n), n_train, times)]
    draws += [
        _extrapolated(sizes, held_out, correct, np.bincount(rng.integers(n, size=n), minlength=n), n_train, times)
        for _ in range(RESAMPLES)
    ]
    row: dict[str, float] = {}
    for name in draws[0]:
        values = np.array([draw[name] for draw in draws])
        row[name] = float(values[0])
        if name in ("now", "more", "gain", "last_predicted"):
            low, high = np.percentile(values[1:], ENDS)
            row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return row


def _extrapolated(
    sizes: np.ndarray, held_out: np.ndarray, correct: np.ndarray, weights: np.ndarray, n_train: int, times: float
) -> dict[str, float]:
    counts, wrong = held_out @ weights, (held_out - correct) @ weights
    law, earlier = fit_power_law(sizes, wrong, counts), fit_power_law(sizes[:-1], wrong[:-1], counts[:-1])
    now, more = 1 - law.error(n_train), 1 - law.error(times * n_train)
    return {
        "exponent": law.exponent,
        "now": now,
        "more": more,
        "gain": more - now,
        "last": 1 - float(wrong[-1] / max(counts[-1], 1)),
        "last_predicted": 1 - earlier.error(float(sizes[-1])),
    }
