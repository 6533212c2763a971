"""How well each score finds changed labels.  in: joined tables of a study's runs   out: a row per score, curves, noise

Only for data whose labels before the change are known: noise planted by the recipe, or human labels beside clean ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from study.analysis.load import StudyRuns
from study.data import Dataset
from study.errors import AnalysisError
from study.proxies import PROXIES, oriented
from study.scores.detection import (
    UNDEFINED,
    Estimate,
    auroc,
    average_precision,
    confident_joint,
    hits_within,
    precision_at,
    recall_within,
    wilson,
)

RECALLS = {f"recall_{percent}": percent / 100 for percent in (1, 2, 5, 10)}  # columns, and shares that are inspected
STEPS = 200  # points of an inspection curve
LABELS = {
    "cscore_soft": "soft C-score",
    "cscore": "C-score",
    "consensus_disagreement": "votes for another class",
}


@dataclass(frozen=True)
class LabelErrors:
    """What the scores of a study find of the labels that are known to be wrong.

    table: one row per score, the highest average precision first: `score` `label` `family` `n` | `auroc`
        `average_precision` `precision` (among the first as many as there are errors) `recall_1` `recall_2`
        `recall_5` `recall_10` (share of the errors among the first 1, 2, 5, 10 % of the examples), each with `_low` and
        `_high`, the ends of its 95 % interval.  Of proxies the means over the repeats, of the ends too.
    curves: inspection curves, `score` | `inspected` `recall`: shares of the examples and of the errors.
    n, errors: training examples, and those whose label was changed.
    joint: (c, c) of the confident joint, given label in rows, consensus in columns; None without an ensemble.
    true: (c, c), given label in rows, label before the change in columns.
    flagged: examples off the diagonal of the joint; their precision and recall are `flagged_precision`,
        `flagged_recall`.
    suggestions: share of the wrong labels whose consensus is the label before the change.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    n: int
    errors: int
    true: np.ndarray
    joint: np.ndarray | None
    flagged: int
    flagged_precision: Estimate
    flagged_recall: Estimate
    suggestions: Estimate

    def sentences(self) -> list[str]:
        """What the confident joint and the consensus are worth, a sentence each."""
        if self.joint is None:
            return []
        return [
            f"Off the diagonal of the confident joint: {self.flagged:,} examples; precision "
            f"{_text(self.flagged_precision)}, recall {_text(self.flagged_recall)}.",
            f"The consensus is the right class of {_text(self.suggestions)} of the wrong labels.",
        ]


def label_errors(runs: StudyRuns, dataset: Dataset, baselines: Mapping[str, np.ndarray] | None = None) -> LabelErrors:
    """Measure how well every score of these runs finds the changed labels among the training examples.

    Args:
        runs: of a study of these data.
        dataset: with labels that were changed.
        baselines: further scores by name, (n_train,) each, high where the label is suspect.

    Raises:
        AnalysisError: no label is known to have been changed.
    """
    wrong, rows = known_errors(dataset), dataset.rows("train")
    labels, before = dataset.labels[rows], dataset.clean_labels[rows]
    table, curves = [], []
    others = ((name, name, "baseline", [values]) for name, values in (baselines or {}).items())
    for name, label, family, repeats in chain(_suspicions(runs, rows), others):
        table.append({"score": name, "label": label, "family": family} | _measures(repeats, wrong))
        inspected = np.linspace(0, 1, STEPS + 1)
        recall = np.mean([_curve(values, wrong, inspected) for values in repeats], axis=0)
        curves.append(pd.DataFrame({"score": name, "inspected": inspected, "recall": recall}))
    ranked = pd.DataFrame(table).sort_values("average_precision", ascending=False, kind="stable", ignore_index=True)
    return LabelErrors(
        ranked,
        pd.concat(curves, ignore_index=True),
        len(labels),
        int(wrong.sum()),
        _counts(labels, before, dataset),
        **_votes(runs, rows, before, dataset.n_classes),
    )


def planted_images(runs: StudyRuns, dataset: Dataset) -> pd.DataFrame:
    """Measure how well every score finds the images that do not belong: of another data set, or replaced by noise.

    Returns:
        One row per kind and score, the highest AUROC of each kind first: `kind` and the columns of
        `LabelErrors.table`; empty where no image was put in.  Each kind is told from the examples that are left alone.
    """
    if dataset.planted is None:
        return pd.DataFrame()
    rows = dataset.rows("train")
    marks, untouched = dataset.planted[rows], (dataset.planted == "")[rows] & ~wrong_labels(dataset)
    table = []
    for kind in np.unique(marks[marks != ""]).tolist():
        counted = untouched | (marks == kind)
        for name, label, family, repeats in _suspicions(runs, rows):
            measured = _measures([values[counted] for values in repeats], (marks == kind)[counted])
            table.append({"kind": kind, "score": name, "label": label, "family": family} | measured)
    return pd.DataFrame(table).sort_values(["kind", "auroc"], ascending=[True, False], kind="stable", ignore_index=True)


def wrong_labels(dataset: Dataset) -> np.ndarray:
    """The training examples whose label was changed, (n_train,) bool."""
    rows = dataset.rows("train")
    return dataset.labels[rows] != dataset.clean_labels[rows]


def known_errors(dataset: Dataset) -> np.ndarray:
    """The same, where there are some.

    Raises:
        AnalysisError: no label was changed.
    """
    wrong = wrong_labels(dataset)
    if not wrong.any():
        raise AnalysisError(
            "no label of these data is known to be wrong; plant errors (--set noise.labels=symmetric "
            "--set noise.share=0.1), or give human labels (noise.labels = 'human')"
        )
    return wrong


def _suspicions(runs: StudyRuns, rows: slice) -> Iterator[tuple[str, str, str, list[np.ndarray]]]:
    """Name, label, family and, of each repeat, the values (n_train,), high where the label is suspect."""
    cscores = runs.cscores[rows]
    if runs.ensemble or runs.reference:
        columns = [name for name in cscores if name in LABELS or str(name).removeprefix("cscore_").isdigit()]
        for name in map(str, columns):
            label = LABELS.get(name, f"C-score at {name.removeprefix('cscore_')} %")
            yield name, label, "C-score", [-np.asarray(cscores[name], dtype=float)]
    if {"consensus", "consensus_consistency"} <= set(cscores):
        share = np.asarray(cscores["consensus_consistency"], dtype=float)
        signed = np.where(cscores["consensus"] == cscores["label"], -share, share)
        yield "consensus_disagreement", LABELS["consensus_disagreement"], "C-score", [signed]
    for name, spec in PROXIES.items():
        if spec.on == "train" and runs.scores and all(name in scores for scores in runs.scores):
            repeats = [-oriented(spec, scores[name].to_numpy(dtype=float)[rows]) for scores in runs.scores]
            yield name, spec.label, spec.family, repeats


def _measures(repeats: list[np.ndarray], wrong: np.ndarray) -> dict[str, float]:
    """All measures of one score, means over the repeats."""
    errors = int(wrong.sum())
    rows = []
    for values in repeats:
        estimates = {
            "auroc": auroc(values, wrong),
            "average_precision": average_precision(values, wrong),
            "precision": precision_at(values, wrong, errors),
            **{name: recall_within(values, wrong, share) for name, share in RECALLS.items()},
        }
        row: dict[str, float] = {"n": int((~np.isnan(values)).sum())}
        for name, estimate in estimates.items():
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        rows.append(row)
    return pd.DataFrame(rows).mean().to_dict()


def _curve(values: np.ndarray, wrong: np.ndarray, inspected: np.ndarray) -> np.ndarray:
    scored = ~np.isnan(values)
    return hits_within(values, wrong, inspected * scored.sum()) / max(int(wrong[scored].sum()), 1)


def _votes(runs: StudyRuns, rows: slice, before: np.ndarray, n_classes: int) -> dict:
    """What the held-out predictions say: the confident joint, what it flags, how often the consensus is right."""
    nothing = {"joint": None, "flagged": 0}
    cscores = runs.cscores[rows]
    if runs.ensemble is None or not {"consensus", "consensus_consistency"} <= set(cscores):
        return nothing | dict.fromkeys(("flagged_precision", "flagged_recall", "suggestions"), UNDEFINED)
    labels, consensus = np.asarray(cscores["label"]), np.asarray(cscores["consensus"])
    joint, flagged = confident_joint(labels, cscores["cscore"], consensus, cscores["consensus_consistency"], n_classes)
    wrong = labels != before
    voted = wrong & (consensus >= 0)
    return {
        "joint": joint,
        "flagged": int(flagged.sum()),
        "flagged_precision": wilson(int(wrong[flagged].sum()), int(flagged.sum())),
        "flagged_recall": wilson(int(flagged[wrong].sum()), int(wrong.sum())),
        "suggestions": wilson(int((consensus == before)[voted].sum()), int(voted.sum())),
    }


def _counts(labels: np.ndarray, before: np.ndarray, dataset: Dataset) -> np.ndarray:
    counts = np.zeros((dataset.n_classes, dataset.n_classes), dtype=np.int64)
    np.add.at(counts, (labels, before), 1)
    return counts


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
