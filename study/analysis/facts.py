"""Facts about the runs, for a reader.  in: joined tables   out: {name: sentence}"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from study.analysis.correlations import kendall_value, true_order
from study.analysis.load import StudyRuns
from study.data import Dataset
from study.proxies import PROXIES
from study.runs.rounds import members_of
from study.scores.ceilings import rank_correlation
from study.scores.cscore import Profile
from study.scores.rank_statistics import spearman, tie_ceiling
from study.scores.subsets import percent
from study.tracking import Run

TRUST = (  # the least share of the way from chance to 1, and what suspects are worth from there on
    (0.8, "the first suspects are likely to be mislabeled or odd"),
    (0.3, "many suspects are mislabeled, others are only hard for these networks"),
    (-np.inf, "suspects are mostly guesses; train longer, or take a better network or larger images"),
)


def facts(runs: StudyRuns, dataset: Dataset, points: pd.DataFrame) -> dict[str, str]:
    """Describe the runs in words: {name: sentence}, in the order of the report."""
    train = runs.cscores[runs.cscores["split"] == "train"]
    described = {
        "trust": trust(runs, dataset),
        "data": f"{dataset.name}: {dataset.n_train:,} train, {dataset.n_test:,} test examples, "
        f"{dataset.n_classes} classes (digest {dataset.digest})",
    }
    if runs.ensemble and runs.profile:
        described |= _ensemble_facts(runs.ensemble, runs.profile, dataset, train)
    if np.any(pd.notna(train["cscore"])):
        described["C-scores"] = f"mean {train['cscore'].mean():.4f}, {(train['cscore'] == 1).mean():.1%} at exactly 1"
        described["ceiling"] = _ceiling(runs, train["cscore"].to_numpy(dtype=float))
    if points.shape[0] and points["spearman"].notna().any():
        best = points.loc[points["spearman"].idxmax()]
        described["best single ratio"] = (
            f"{best['percent']:g} % (Spearman {best['spearman']:.3f} with the integral C-score)"
        )
    if runs.singles:
        described |= {"single runs": _accuracies(runs.singles)} | _online_statistics(runs.singles[0])
    if runs.reference and runs.ensemble:
        hard, soft = (spearman(train[name], train["published"]).value for name in ("cscore", "cscore_soft"))
        described["published C-scores"] = (
            f"Spearman {hard:.3f} with this study's C-score, {soft:.3f} with its soft C-score"
        )
    elif runs.reference:
        described["published C-scores"] = f"{runs.reference.name}; this study has no ensemble"
    if runs.reference and (changed := int(runs.cscores["published_changed"].notna().sum())):
        described["published C-scores"] += (
            f"; they are of the clean labels, so the {changed:,} examples whose label was changed are compared apart"
        )
    machine = (runs.ensemble or runs.singles[0]).tags
    described["machine"] = f"{machine['study.device']}, {machine['study.precision']} matrix products"
    return described


def _ceiling(runs: StudyRuns, train: np.ndarray) -> str:
    """What a proxy without ties can reach with these ties, and with these ties and the noise of the members."""
    ties = f"ties alone allow a proxy without ties Spearman {tie_ceiling(train):.3f}"
    mask = np.zeros(len(runs.cscores), dtype=bool)
    mask[: len(train)] = np.isfinite(train)
    truth = true_order(runs, runs.main, mask)
    if truth is None:
        return ties
    spearman_reached, kendall_reached = truth.reach(rank_correlation), truth.reach(kendall_value)
    return f"a perfect proxy reaches Spearman {spearman_reached:.3f}, Kendall {kendall_reached:.3f}; {ties}"


def trust(runs: StudyRuns, dataset: Dataset) -> str:
    """How many unseen examples the networks get right, and what that means for the suspects.

    Of an ensemble at its largest subset ratio, of single runs on the test split, means over the repeats.  Bounds are of
    the share between chance and 1.
    """
    accuracy = np.nan
    if runs.profile:
        last = int(np.argmax(runs.profile.ratios))
        sums = (sums[last, :, : dataset.n_train].sum() for sums in (runs.profile.correct, runs.profile.held_out))
        accuracy = np.divide(*sums)
    elif all("test/accuracy" in run.metrics for run in runs.singles):
        accuracy = np.mean([run.metrics["test/accuracy"] for run in runs.singles])
    if not np.isfinite(accuracy):
        return "Held-out accuracy is unknown without a test split or an ensemble: check some suspects first."
    chance = 1 / dataset.n_classes
    share = (accuracy - chance) / (1 - chance)
    meaning = next(text for bound, text in TRUST if share >= bound)
    return f"Networks get {accuracy:.0%} of unseen images right: {meaning}."


def _accuracies(singles: Sequence[Run]) -> str:
    """Accuracies at the last epoch: means over the repeats, and how far these lie apart."""
    parts = []
    for split in ("train", "test"):
        values = [run.metrics[f"{split}/accuracy"] for run in singles if f"{split}/accuracy" in run.metrics]
        if values:
            between = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
            parts.append(f"{split} {np.mean(values):.4f}{between}")
    first = singles[0].params
    mean = ", means over the repeats" if len(singles) > 1 else ""
    return (
        f"{len(singles)}, {first['model.name']}, {first['train.epochs']} epochs; "
        f"accuracy at the last epoch{mean}: {', '.join(parts)}"
    )


def _counts(members: list[int]) -> str:
    """`40`, or `20 to 80` where the ratios have different numbers."""
    return f"{min(members)}" + (f" to {max(members)}" if max(members) > min(members) else "")


def _ensemble_facts(ensemble: Run, profile: Profile, dataset: Dataset, train: pd.DataFrame) -> dict[str, str]:
    held_out, right = (sums[:, :, : dataset.n_train].sum(axis=(1, 2)) for sums in (profile.held_out, profile.correct))
    shares = zip(profile.ratios, right / held_out, strict=True)
    diverged = int(ensemble.metrics["members/diverged"])
    half, half_soft = (ensemble.metrics.get(f"reliability/{name}", np.nan) for name in ("half", "half_soft"))
    return {
        "ensemble": f"{_counts(members_of(ensemble))} networks at each of {len(profile.ratios)} subset ratios, "
        f"{ensemble.params['subset.design']} subsets, {ensemble.params['model.name']}"
        + (f"; {diverged} diverged and are left out" if diverged else ""),
        "held-out accuracy": ", ".join(f"{share:.3f} at {percent(ratio)} %" for ratio, share in shares),
        "reliability": "Spearman between the C-scores of two halves of the networks "
        f"{half:.3f} (soft C-score {half_soft:.3f})"
        if np.isfinite(half_soft)
        else "unknown: too few members for two halves",
        "standard error": "mean over the examples: C-score "
        f"{train['stderr'].mean():.3f}, soft C-score {train['stderr_soft'].mean():.3f}",
    } | _votes(train)


def _votes(train: pd.DataFrame) -> dict[str, str]:
    """Consensus and memorization, where the ensemble's table has them."""
    described = {}
    if "consensus_consistency" in train:
        predicted = train[train["consensus"] >= 0]
        described["consensus"] = (
            f"for {(predicted['consensus'] != predicted['label']).mean():.2%} of the training examples most networks "
            f"predict another class than the label; mean agreement {predicted['consensus_consistency'].mean():.3f}, "
            f"mean entropy {predicted['prediction_entropy'].mean():.3f} nats"
        )
    if "memorization" in train:
        described["memorization"] = (
            f"mean {train['memorization'].mean():.4f}, above .25 for {(train['memorization'] > 0.25).mean():.2%}; "
            f"standard error of one score {train['memorization_stderr'].mean():.3f}"
        )
    return described


def _online_statistics(run: Run) -> dict[str, str]:
    """How online statistics (before the update) agree with those at epoch ends (Z-online), where a run has both."""
    agreements = []
    for name in ("cbtl", "forgetting_events"):
        pearson = run.metrics.get(f"online/{name}_pearson")
        error = run.metrics.get(f"online/{name}_mean_absolute_error")
        if pearson is not None and error is not None:
            agreements.append(f"{PROXIES[name].label} Pearson {pearson:.4f}, mean absolute error {error:.4f}")
    return {"online statistics": f"with those at epoch ends: {'; '.join(agreements)}"} if agreements else {}
