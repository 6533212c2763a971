"""How well proxies stand in for the C-score.  in: finished runs, by querying MLflow   out: joined tables, correlations

Tables join on `example`; runs on other data, or with other labels, are refused.  Every number is oriented: positive
means that the proxy agrees with "high C-score = consistent".
"""

from study.analysis.by_epoch import curves, trajectory
from study.analysis.correlations import correlations, parts, point_estimates, references
from study.analysis.difficulty import Difficulty, difficulty
from study.analysis.facts import facts
from study.analysis.findings import Findings, findings
from study.analysis.influence import Influences, influences
from study.analysis.leaderboard import leaderboard, proxy_matrix, within_class
from study.analysis.load import Gathered, gather
from study.analysis.single_run import (
    Depths,
    class_sensitivity,
    depth_and_margins,
    depths,
    planes,
    probe_curves,
    sensitivity_series,
)

__all__ = [
    "Depths",
    "Difficulty",
    "Findings",
    "Gathered",
    "Influences",
    "class_sensitivity",
    "correlations",
    "curves",
    "depth_and_margins",
    "depths",
    "difficulty",
    "facts",
    "findings",
    "gather",
    "influences",
    "leaderboard",
    "parts",
    "planes",
    "point_estimates",
    "probe_curves",
    "proxy_matrix",
    "references",
    "sensitivity_series",
    "trajectory",
    "within_class",
]
