"""How well proxies stand in for the C-score.  in: finished runs, by querying MLflow   out: joined tables, correlations

Tables join on `example`; runs on other data, or with other labels, are refused.  Every number is oriented: positive
means that the proxy agrees with "high C-score = consistent".
"""

from study.analysis.by_epoch import curves, trajectory
from study.analysis.corrections import Correction, correction
from study.analysis.correlations import correlations, correlations_by_ratio, parts, references
from study.analysis.difficulty import Difficulty, difficulty
from study.analysis.facts import facts
from study.analysis.influence import Influences, influences
from study.analysis.label_errors import LabelErrors, known_errors, label_errors, planted_images
from study.analysis.leaderboard import leaderboard, proxy_matrix, within_class
from study.analysis.load import StudyRuns, load_runs
from study.analysis.results import Results, compute_results
from study.analysis.single_run import (
    PredictionDepths,
    depth_and_margins,
    mean_class_sensitivity,
    planes,
    probe_curves,
    sensitivity_series,
    single_run_depths,
)
from study.analysis.suspects import Review, editable, ranked_by, review, suspects

__all__ = [
    "Correction",
    "Difficulty",
    "Influences",
    "LabelErrors",
    "PredictionDepths",
    "Results",
    "Review",
    "StudyRuns",
    "compute_results",
    "correction",
    "correlations",
    "correlations_by_ratio",
    "curves",
    "depth_and_margins",
    "difficulty",
    "editable",
    "facts",
    "influences",
    "known_errors",
    "label_errors",
    "leaderboard",
    "load_runs",
    "mean_class_sensitivity",
    "parts",
    "planes",
    "planted_images",
    "probe_curves",
    "proxy_matrix",
    "ranked_by",
    "references",
    "review",
    "sensitivity_series",
    "single_run_depths",
    "suspects",
    "trajectory",
    "within_class",
]
