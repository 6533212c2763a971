"""Small test sets that rank classifiers (Z-testset).  in: a single run, a zoo   out: a test set, its agreement"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis import StudyRuns
from study.analysis.by_epoch import trajectory
from study.data import Dataset
from study.errors import AnalysisError
from study.random_streams import random_stream
from study.scores.rank_statistics import midranks
from study.scores.regularity_plane import representation
from study.scores.test_sets import angle_bins, balanced_rows, ranking_precision

BINS = 10  # the paper's, and the two half-axes
PER_BIN = (2, 5, 10, 20, 30)
MEASURES = ("spearman", "precision")


@dataclass(frozen=True)
class SmallTestSets:
    """How well small test sets rank classifiers as the whole one does.

    table: a row per size and way of drawing: `drawn` (balanced or random) `per_bin` `n` | `spearman` `precision`, means
        over the draws, each with `_low` and `_high`, the 2.5 and 97.5 percentiles of the draws.
    accuracies: a row per classifier: `classifier` | `whole`, and `balanced`, the mean over draws of the largest size.
    gains: a row per size: `per_bin` | of each measure the mean of balanced less random, with `_low` and `_high` of its
        mean over the draws, and `_share`, of pairs of draws in which the balanced one is better, ties counting half.
    chosen: ids and bins of one balanced draw of the largest size: `example` `bin`.
    bins: (bins + 2,) how many test examples each bin has, the hardest first.
    """

    table: pd.DataFrame
    accuracies: pd.DataFrame
    gains: pd.DataFrame
    chosen: pd.DataFrame
    bins: np.ndarray


def small_test_sets(
    runs: StudyRuns,
    dataset: Dataset,
    right: pd.DataFrame,
    *,
    per_bin: Sequence[int] = PER_BIN,
    bins: int = BINS,
    draws: int = 200,
    seed: int = 0,
) -> SmallTestSets:
    """Draw balanced test sets and random ones of the same size, and rank classifiers on them.

    Args:
        runs: with single runs, whose first places the test examples in the plane.
        dataset: that they were trained on.
        right: (n_test, m) bool, a column per classifier; see `zoo.right_on_test`.
        per_bin: examples that are drawn from each bin.
        bins: of equal angle.
        draws: of each size and kind.
        seed: of the draws.

    Raises:
        AnalysisError: no test split, no single run.
    """
    if not dataset.n_test or not runs.singles:
        raise AnalysisError("a small test set needs a test split and a finished single run; run `study single` first")
    places = angle_bins(*representation(trajectory(runs.singles[0])["correct"][:, dataset.rows("test")]), bins)
    counts = np.bincount(places, minlength=bins + 2)
    values, whole = right.to_numpy(dtype=bool), right.mean().to_numpy(dtype=float)
    rows, gains, accuracies = [], [], np.empty(0)
    for size in per_bin:
        measured = {}
        for drawn in ("balanced", "random"):
            rng = random_stream(seed, "test set", drawn, size)
            sets = list(_draws(places, size, draws, rng, balanced=drawn == "balanced"))
            ranked = np.array([_measures(whole, values[each].mean(axis=0)) for each in sets])
            measured[drawn] = ranked
            row: dict[str, object] = {"drawn": drawn, "per_bin": size, "n": len(sets[0])}
            for name, column in zip(MEASURES, ranked.T, strict=True):
                low, high = np.percentile(column, [2.5, 97.5])
                row |= {name: column.mean(), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
            if drawn == "balanced":
                accuracies = np.mean([values[each].mean(axis=0) for each in sets], axis=0)
        gains.append({"per_bin": size} | _gain(measured["balanced"], measured["random"]))
    chosen = balanced_rows(places, max(per_bin), random_stream(seed, "test set", "chosen"))
    ids = dataset.ids[dataset.rows("test")]
    table = pd.DataFrame({"classifier": list(right), "whole": whole, "balanced": accuracies})
    return SmallTestSets(
        pd.DataFrame(rows),
        table.sort_values(by="whole", ascending=False, ignore_index=True),
        pd.DataFrame(gains),
        pd.DataFrame({"example": ids[chosen], "bin": places[chosen]}),
        counts,
    )


def _draws(
    places: np.ndarray, size: int, draws: int, rng: np.random.Generator, *, balanced: bool
) -> Iterator[np.ndarray]:
    n = len(balanced_rows(places, size, rng))
    for _ in range(draws):
        yield balanced_rows(places, size, rng) if balanced else rng.choice(len(places), n, replace=False)


def _measures(whole: np.ndarray, small: np.ndarray) -> tuple[float, float]:
    rho = float(np.corrcoef(midranks(whole), midranks(small))[0, 1]) if np.ptp(small) else 0.0
    return rho, ranking_precision(whole, small)


def _gain(balanced: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Balanced less random, of each measure, and in how many pairs of draws the balanced one is better."""
    gains: dict[str, float] = {}
    for name, first, second in zip(MEASURES, balanced.T, drawn.T, strict=True):
        value = float(first.mean() - second.mean())
        margin = 1.96 * float(np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)))
        pairs = np.sign(first[:, None] - second)
        better = float((pairs > 0).mean() + (pairs == 0).mean() / 2)
        gains |= {name: value, f"{name}_low": value - margin, f"{name}_high": value + margin, f"{name}_share": better}
    return gains
