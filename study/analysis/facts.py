"""What a reader has to know about the runs.  in: joined tables   out: facts in words"""

import numpy as np
import pandas as pd

from study.analysis.load import Gathered
from study.data import Dataset
from study.proxies import PROXIES
from study.scores.cscore import Profile
from study.scores.rank_statistics import spearman, tie_ceiling
from study.scores.subsets import percent
from study.tracking import Run


def facts(gathered: Gathered, dataset: Dataset, points: pd.DataFrame) -> dict[str, str]:
    """What a reader has to know about the runs, in words."""
    train = gathered.cscores[gathered.cscores["split"] == "train"]
    told = {
        "data": f"{dataset.name}: {dataset.n_train:,} train, {dataset.n_test:,} test examples, "
        f"{dataset.n_classes} classes (digest {dataset.digest})"
    }
    told |= _ensemble_facts(gathered.ensemble, gathered.profile, dataset, train) if gathered.ensemble else {}
    told["C-scores"] = f"mean {train['cscore'].mean():.4f}, {(train['cscore'] == 1).mean():.1%} at exactly 1"
    told["ties"] = f"a score without ties can reach Spearman {tie_ceiling(train['cscore']):.3f} at most"
    if points.shape[0] and points["spearman"].notna().any():
        best = points.loc[points["spearman"].idxmax()]
        told["best single ratio"] = f"{best['percent']:g} % (Spearman {best['spearman']:.3f} with the integral C-score)"
    final = gathered.singles[0]
    test = f", test {final.metrics['test/accuracy']:.4f}" if "test/accuracy" in final.metrics else ""
    told["single runs"] = (
        f"{len(gathered.singles)}, {final.params['model.name']}, {final.params['train.epochs']} epochs; "
        f"last one: train accuracy {final.metrics['train/accuracy']:.4f}{test}"
    )
    told |= _in_passing(final)
    if gathered.reference and gathered.ensemble:
        hard, soft = (spearman(train[name], train["published"]).value for name in ("cscore", "cscore_soft"))
        told["published C-scores"] = f"Spearman {hard:.3f} with ours, {soft:.3f} with our soft ones"
    elif gathered.reference:
        told["published C-scores"] = f"{gathered.reference.name}; this study has no ensemble of its own"
    machine = (gathered.ensemble or final).tags
    told["machine"] = f"{machine['study.device']}, {machine['study.precision']} products"
    return told


def _ensemble_facts(ensemble: Run, profile: Profile, dataset: Dataset, train: pd.DataFrame) -> dict[str, str]:
    held_out, right = (sums[:, :, : dataset.n_train].sum(axis=(1, 2)) for sums in (profile.held_out, profile.correct))
    shares = zip(profile.ratios, right / held_out, strict=True)
    diverged = int(ensemble.metrics["members/diverged"])
    return {
        "ensemble": f"{ensemble.params['subset.members']} networks at each of {len(profile.ratios)} subset ratios, "
        f"{ensemble.params['subset.design']} subsets, {ensemble.params['model.name']}"
        + (f"; {diverged} diverged and are left out" if diverged else ""),
        "held-out accuracy": ", ".join(f"{share:.3f} at {percent(ratio)} %" for ratio, share in shares),
        "reliability": "halves of the networks rank the examples alike to Spearman "
        f"{ensemble.metrics['reliability/half']:.3f} (soft score {ensemble.metrics['reliability/half_soft']:.3f})"
        if np.isfinite(ensemble.metrics["reliability/half_soft"])
        else "unknown: too few members for two halves",
        "standard error": "of one C-score "
        f"{train['stderr'].mean():.3f}, of a soft one {train['stderr_soft'].mean():.3f}",
    } | _votes(train)


def _votes(train: pd.DataFrame) -> dict[str, str]:
    """Consensus and memorization, where the ensemble's table has them."""
    told = {}
    if "consensus_consistency" in train:
        asked = train[train["consensus"] >= 0]
        told["consensus"] = (
            f"{(asked['consensus'] != asked['label']).mean():.2%} of the training examples get another class than "
            f"their label from most networks; mean agreement {asked['consensus_consistency'].mean():.3f}, "
            f"mean entropy {asked['prediction_entropy'].mean():.3f} nats"
        )
    if "memorization" in train:
        told["memorization"] = (
            f"mean {train['memorization'].mean():.4f}, above .25 for {(train['memorization'] > 0.25).mean():.2%}; "
            f"standard error of one score {train['memorization_stderr'].mean():.3f}"
        )
    return told


def _in_passing(run: Run) -> dict[str, str]:
    """How statistics taken in passing agree with those at the ends of epochs (Z-online), where a run has both."""
    found = []
    for name in ("cbtl", "forgetting_events"):
        pearson = run.metrics.get(f"online/{name}_pearson")
        error = run.metrics.get(f"online/{name}_mean_absolute_error")
        if pearson is not None and error is not None:
            found.append(f"{PROXIES[name].label} Pearson {pearson:.4f}, mean absolute error {error:.4f}")
    return {"taken in passing": "; ".join(found)} if found else {}
