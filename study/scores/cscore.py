"""C-scores from hold-out validation.  in: masks, predictions, confidences of members   out: profile, C-scores, errors

A member trains on a random subset of the training rows and is judged on all others; the test rows are always held out.
Everything is kept as integer sums, so that shards fold in any order to the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.scores.consensus import consensus_columns
from study.scores.rank_statistics import Correlation, spearman, spearman_brown
from study.scores.subsets import half_of, percent

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNIT = 65535  # confidences are summed as multiples of 1 / UNIT
SUMS = ("held_out", "correct", "confidence", "confidence_sq", "trained", "trained_correct")


@dataclass(frozen=True, eq=False)
class Profile:
    """Sums over members, per subset ratio, half (`half_of`) and example; `a + b` folds, in any order.

    ratios: (s,) ascending.
    held_out: (s, 2, n) members that held the example out and have seen its class.
    correct: (s, 2, n) of these, how many classified it right.
    confidence: (s, 2, n) sum of the held-out probability of the true class, in units of 1 / 65535.
    confidence_sq: (s, 2, n) sum of the squares of these integers.
    trained: (s, 2, n) members that trained on the example.
    trained_correct: (s, 2, n) of these, how many classified it right after the training.
    predicted: (n, c) held-out predictions per class over all ratios; (n, 0) when read back from a table.
    diverged: members left out because a confidence was not finite.

    >>> masks = np.array([[True, False], [False, True]])  # of two members
    >>> predicted, labels = np.array([[0, 1], [1, 1]]), np.array([0, 1])
    >>> profile = shard_profile(masks, predicted, np.full((2, 2), 0.9), labels, 0.5, [0, 1], 2)
    >>> (profile + profile).held_out.sum(axis=1)
    array([[2, 2]])
    """

    ratios: tuple[float, ...]
    held_out: IntArray
    correct: IntArray
    confidence: IntArray
    confidence_sq: IntArray
    trained: IntArray
    trained_correct: IntArray
    predicted: NDArray[np.integer]
    diverged: int = 0

    def __add__(self, other: Self) -> "Profile":
        folded = ProfileSum()
        folded.add(self)
        folded.add(other)
        return cast(Profile, folded.total())

    def columns(self) -> dict[str, NDArray[Any]]:
        """Long form of profile.parquet without `example` and `label`: s * 2 * n rows, ratio by ratio, half by half.

        ratio float64 | half int8 | the sums of `SUMS`, int64 (see the class).
        """
        s, _, n = self.held_out.shape
        keys = {
            "ratio": np.repeat(np.array(self.ratios, dtype=np.float64), 2 * n),
            "half": np.tile(np.repeat(np.arange(2, dtype=np.int8), n), s),
        }
        return keys | {name: getattr(self, name).ravel() for name in SUMS}

    @classmethod
    def from_columns(cls, columns: Mapping[str, ArrayLike], n: int) -> "Profile":
        """Read back what `columns` wrote: rows in its order; the prediction counts are not part of the table."""
        ratio = np.asarray(columns["ratio"])
        if len(ratio) % (2 * n):
            raise ValueError(f"{len(ratio)} rows are not two halves of {n} examples per ratio")
        sums: dict[str, Any] = {name: np.asarray(columns[name], dtype=np.int64).reshape(-1, 2, n) for name in SUMS}
        return cls(tuple(ratio[:: 2 * n].tolist()), **sums, predicted=np.zeros((n, 0), dtype=np.int32))


class ProfileSum:
    """The sum of many profiles, `a + b + ...`; an addition costs what the part holds, not what the sum holds.

    >>> folded, (predicted, labels) = ProfileSum(), (np.array([[0, 1]]), np.array([0, 1]))
    >>> for ratio in (0.9, 0.5):
    ...     masks = np.array([[True, False]])
    ...     folded.add(shard_profile(masks, predicted, np.full((1, 2), 0.9), labels, ratio, [0], 2, min_class=0))
    >>> folded.total().ratios
    (0.5, 0.9)
    """

    def __init__(self) -> None:
        self.sums: dict[float, dict[str, IntArray]] = {}
        self.predicted: NDArray[np.int32] | None = None
        self.diverged = 0

    def add(self, part: Profile) -> None:
        """Add a profile; its arrays may be of any integers."""
        if self.predicted is None:
            self.predicted = np.zeros(part.predicted.shape, dtype=np.int32)
        if self.predicted.shape != part.predicted.shape:
            raise ValueError(f"profiles of {self.predicted.shape} and {part.predicted.shape} (n, c) do not add")
        for index, ratio in enumerate(part.ratios):
            shape = getattr(part, SUMS[0])[index].shape
            sums = self.sums.setdefault(ratio, {name: np.zeros(shape, dtype=np.int64) for name in SUMS})
            for name in SUMS:
                sums[name] += getattr(part, name)[index]
        self.predicted += part.predicted
        self.diverged += part.diverged

    def total(self) -> Profile | None:
        """The sum; None of no profiles."""
        if self.predicted is None:
            return None
        ratios = tuple(sorted(self.sums))
        sums: dict[str, Any] = {name: np.stack([self.sums[ratio][name] for ratio in ratios]) for name in SUMS}
        return Profile(ratios, **sums, predicted=self.predicted.copy(), diverged=self.diverged)


def shard_profile(
    masks: BoolArray,
    predictions: IntArray,
    confidence: NDArray[np.floating],
    labels: IntArray,
    ratios: float | Sequence[float],
    members: Sequence[int],
    n_classes: int,
    *,
    design: str = "uniform",
    min_class: int = 0,
) -> Profile:
    """Fold the members of one shard; one at a time, so nothing larger than (n, c) is made.

    Args:
        masks: (m, n) True where the member trained on the example; False on all test rows.
        predictions: (m, n) predicted classes.
        confidence: (m, n) probability of the true class.  A member with a value that is not finite has diverged.
        labels: (n,) classes 0..c-1.
        ratios: subset ratio of all members, or (m,) one per member.
        members: (m,) their numbers within the ratio; they decide the half (see `half_of`).
        n_classes: c.
        design: how the masks were drawn.
        min_class: a member counts for an example that it holds out if it has trained on so many of the example's class;
            0: always, which gives the only example of a class the score 0.

    Raises:
        ValueError: shapes that do not fit, predictions outside 0..c-1, confidences outside 0..1.

    >>> masks = np.array([[True, False], [False, True]])  # of two members
    >>> predicted, labels = np.array([[0, 1], [1, 1]]), np.array([0, 1])
    >>> profile = shard_profile(masks, predicted, np.full((2, 2), 0.9), labels, 0.5, [0, 1], 2)
    >>> profile.held_out.sum(axis=1), profile.correct.sum(axis=1)
    (array([[1, 1]]), array([[0, 1]]))
    """
    masks, predictions = np.asarray(masks), np.asarray(predictions)
    confidence, labels = np.asarray(confidence), np.asarray(labels)
    if not masks.shape == predictions.shape == confidence.shape == (len(members), len(labels)):
        shapes = f"{masks.shape}, {predictions.shape}, {confidence.shape}"
        raise ValueError(f"masks, predictions, confidence are {shapes}, not {(len(members), len(labels))} (m, n)")
    ratio_of = np.broadcast_to(np.asarray(ratios, dtype=np.float64), len(members)).tolist()
    profile = _empty_profile(tuple(sorted(set(ratio_of))), len(labels), n_classes)
    diverged = 0
    for index, (ratio, member) in enumerate(zip(ratio_of, members, strict=True)):
        if np.isfinite(confidence[index]).all():
            place = profile.ratios.index(ratio), half_of(int(member), ratio, design)
            fold_member(profile, place, masks[index], predictions[index], confidence[index], labels, min_class)
        else:
            diverged += 1
    return replace(profile, diverged=diverged)


def fold_member(
    profile: Profile,
    place: tuple[int, int],
    mask: BoolArray,
    predictions: IntArray,
    confidence: NDArray[np.floating],
    labels: IntArray,
    min_class: int = 0,
) -> None:
    """Add one member to the arrays of `profile` in place; `place` is (index of the ratio, half), the rest are (n,).

    See `shard_profile` for `min_class`: an example held out whose class the member does not know counts nowhere.

    >>> mask, predicted, labels = np.array([[True, False]]), np.array([[0, 1]]), np.array([0, 1])
    >>> profile = shard_profile(mask, predicted, np.full((1, 2), 0.9), labels, 0.5, [0], 2)
    >>> fold_member(profile, (0, 1), ~mask[0], predicted[0], np.full(2, 0.9), labels)
    >>> profile.held_out.sum(axis=1)
    array([[1, 1]])
    """
    if confidence.min() < -1e-3 or confidence.max() > 1 + 1e-3:
        raise ValueError(f"a confidence is a probability, not {confidence.min():.4g} to {confidence.max():.4g}")
    if predictions.min() < 0 or predictions.max() >= profile.predicted.shape[1]:
        raise ValueError(
            f"predictions from {predictions.min()} to {predictions.max()} of {profile.predicted.shape[1]} classes"
        )
    seen = np.bincount(labels[mask], minlength=profile.predicted.shape[1])
    held_out, right = ~mask & (seen[labels] >= min_class), predictions == labels
    share = np.rint(np.clip(confidence.astype(np.float64), 0.0, 1.0) * UNIT).astype(np.int64) * held_out
    profile.held_out[place] += held_out
    profile.correct[place] += held_out & right
    profile.confidence[place] += share
    profile.confidence_sq[place] += share * share
    profile.trained[place] += mask
    profile.trained_correct[place] += mask & right
    rows = np.flatnonzero(held_out)
    profile.predicted[rows, predictions[rows]] += 1  # a row occurs once, so this adds to each


def _empty_profile(ratios: tuple[float, ...], n: int, n_classes: int) -> Profile:
    sums: dict[str, Any] = {name: np.zeros((len(ratios), 2, n), dtype=np.int64) for name in SUMS}
    return Profile(ratios, **sums, predicted=np.zeros((n, n_classes), dtype=np.int32))


def consistency(correct: ArrayLike, held_out: ArrayLike) -> FloatArray:
    """Share of the members that held an example out and classified it right (J-alg1); never held out is NaN, not 0.

    Args:
        correct: (..., n) counts.
        held_out: (..., n) counts.

    Returns:
        (..., n) 0 to 1.  The authors' demo turns 0/0 into 0, the hardest score; here it is missing.

    >>> consistency([3, 0], [4, 0])
    array([0.75,  nan])
    """
    correct, held_out = np.asarray(correct), np.asarray(held_out)
    return np.divide(correct, held_out, out=np.full(held_out.shape, np.nan), where=held_out > 0)


def soft_consistency(confidence: IntArray, held_out: IntArray) -> FloatArray:
    """Mean held-out probability of the true class, from the integer sums; (..., n), never held out is NaN.

    >>> soft_consistency([UNIT], [2])
    array([0.5])
    """
    return consistency(confidence, held_out) / UNIT


def integral(per_ratio: FloatArray) -> FloatArray:
    """Integral C-score: mean over the subset ratios (J-integral); (s, n) to (n,), NaN where any ratio is missing.

    >>> integral(np.array([[0.5, 1.0], [1.0, 1.0]]))
    array([0.75, 1.  ])
    """
    return np.mean(per_ratio, axis=0)


def stderr(correct: ArrayLike, held_out: ArrayLike) -> FloatArray:
    """Standard error of the integral C-score: sqrt(sum over ratios of p (1 - p) / (k - 1)) / s.

    Args:
        correct: (s, n) counts.
        held_out: (s, n) counts, k.

    Returns:
        (n,), NaN where a ratio has fewer than two held-out members.  0 where all members agree: the score is then sure
        to about 1 / k, not exactly.  Members of a balanced block are taken as independent.

    >>> stderr([[5, 10]], [[10, 10]]).round(3)
    array([0.167, 0.   ])
    """
    share, counts = consistency(correct, held_out), np.asarray(held_out, dtype=np.int64)
    return _stderr_of_mean(share * (1 - share) * counts, counts)


def stderr_soft(confidence: IntArray, confidence_sq: IntArray, held_out: IntArray) -> FloatArray:
    """Standard error of the soft integral C-score, from the sample variance of the confidences; see `stderr`.

    Exact in integers up to 46,000 held-out members of one ratio.

    >>> stderr_soft([[UNIT]], [[UNIT**2]], [[2]])  # confidences 0 and 1
    array([0.5])
    """
    held_out = np.asarray(held_out)
    squares = (
        np.asarray(confidence_sq) * held_out - np.asarray(confidence) ** 2
    )  # k times the sum of squared deviations
    return _stderr_of_mean(consistency(squares, held_out) / UNIT**2, held_out)


def variance_of_mean(squared_deviations: FloatArray, counts: IntArray) -> FloatArray:
    """Estimate the variance of a mean of k values from the sum of their squared deviations; NaN where k < 2.

    >>> variance_of_mean(np.array([2.0, 0.0]), np.array([2, 1]))
    array([ 1., nan])
    """
    pairs = counts * (counts - 1)
    return np.divide(squared_deviations, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def _stderr_of_mean(squared_deviations: FloatArray, held_out: IntArray) -> FloatArray:
    """Standard error of the mean over ratios of one mean per ratio, both (s, n); NaN where a ratio has k < 2."""
    return np.sqrt(variance_of_mean(squared_deviations, held_out).sum(axis=0)) / len(held_out)


class Reliability(NamedTuple):
    """Split-half reliability: rank correlation of the C-scores of the two halves of the members, hard and soft.

    lengths: of the halves as shares of the whole, in precision; an odd number of balanced blocks gives unequal ones.
    """

    hard: Correlation
    soft: Correlation
    lengths: tuple[float, float]

    @property
    def hard_full(self) -> float:
        """Spearman-Brown estimate for the score of all members; approximate with ties."""
        return spearman_brown(self.hard.value, *self.lengths)

    @property
    def soft_full(self) -> float:
        """Spearman-Brown estimate for the soft score of all members."""
        return spearman_brown(self.soft.value, *self.lengths)


def half_scores(profile: Profile, rows: BoolArray | slice = slice(None)) -> tuple[FloatArray, FloatArray]:
    """Integral C-scores of the two halves of the members, hard and soft: (2, n) each, NaN where one is missing.

    >>> profile = shard_profile(np.zeros((2, 1), bool), [[0], [1]], np.ones((2, 1)), [0], 0.5, range(2), 2, min_class=0)
    >>> half_scores(profile)[0].tolist()
    [[1.0], [0.0]]
    """
    hard = np.mean(consistency(profile.correct, profile.held_out), axis=0)[:, rows]
    return hard, np.mean(soft_consistency(profile.confidence, profile.held_out), axis=0)[:, rows]


def half_lengths(profile: Profile, rows: BoolArray | slice = slice(None)) -> tuple[float, float]:
    """Precision of each half's score as a share of that of all members, from the numbers of held-out members.

    The variance of an integral score goes as the mean over the ratios of 1 / k.  (.5, .5) where a half is empty.

    >>> profile = shard_profile(np.zeros((3, 1), bool), [[0]] * 3, np.ones((3, 1)), [0], 0.5, range(3), 2)
    >>> [round(length, 3) for length in half_lengths(profile)]
    [0.667, 0.333]
    """
    counts = profile.held_out[:, :, rows]
    counts = counts[:, :, (counts > 0).all(axis=(0, 1))].astype(np.float64)
    if not counts.size:
        return 0.5, 0.5
    variances = (1 / counts).sum(axis=0).mean(axis=-1)
    whole = (1 / counts.sum(axis=1)).sum(axis=0).mean()
    return float(whole / variances[0]), float(whole / variances[1])


def reliability(profile: Profile, rows: BoolArray | slice = slice(None)) -> Reliability:
    """Spearman between the integral C-scores of the two halves, over the examples where both are defined.

    Args:
        profile: of at least two members per ratio.
        rows: (n,) bool or slice, the examples that count (the training rows, those below 1).

    >>> rng = np.random.default_rng(0)
    >>> labels, chance = rng.integers(0, 2, 200), np.linspace(0, 1, 200)  # of being right
    >>> masks = rng.random((40, 200)) < 0.5
    >>> predictions = np.where(rng.random((40, 200)) < chance, labels, 1 - labels)
    >>> halves = reliability(shard_profile(masks, predictions, np.full((40, 200), 0.9), labels, 0.5, range(40), 2))
    >>> 0.7 < halves.hard.value < halves.hard_full
    True
    """
    hard, soft = half_scores(profile, rows)
    return Reliability(spearman(*hard), spearman(*soft), half_lengths(profile, rows))


def cscore_columns(profile: Profile, labels: IntArray) -> dict[str, NDArray[Any]]:
    """Make the columns of cscore.parquet, without `example`, `label` and `split`; all (n,).

    cscore, cscore_soft: integral C-score, hard and soft, 0 to 1.  stderr, stderr_soft: their standard errors.
    held_out: members that held the example out, all ratios.
    consensus, consensus_consistency, prediction_entropy: of these members' predictions, all ratios together.
    cscore_10, held_out_10, ...: one pair of columns per subset ratio, named by `percent`.

    >>> masks = np.array([[True, False], [False, True]])  # of two members
    >>> predicted, labels = np.array([[0, 1], [1, 1]]), np.array([0, 1])
    >>> profile = shard_profile(masks, predicted, np.full((2, 2), 0.9), labels, 0.5, [0, 1], 2)
    >>> cscore_columns(profile, np.array([0, 1]))["cscore"]
    array([0., 1.])
    """
    held_out, correct, confidence, confidence_sq = (getattr(profile, name).sum(axis=1) for name in SUMS[:4])
    per_ratio = consistency(correct, held_out)
    columns = {
        "cscore": integral(per_ratio),
        "cscore_soft": integral(soft_consistency(confidence, held_out)),
        "stderr": stderr(correct, held_out),
        "stderr_soft": stderr_soft(confidence, confidence_sq, held_out),
        "held_out": held_out.sum(axis=0),
    }
    columns |= consensus_columns(profile.predicted, labels)
    columns |= {f"cscore_{percent(ratio)}": per_ratio[index] for index, ratio in enumerate(profile.ratios)}
    return columns | {f"held_out_{percent(ratio)}": held_out[index] for index, ratio in enumerate(profile.ratios)}
