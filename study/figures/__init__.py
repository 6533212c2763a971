"""One function per figure of the papers.  in: arrays, tables   out: matplotlib Figure, drawn without pyplot

Every function runs in one style (`style.py`) and gives a Figure that keeps it when saved. Drawing holds a lock, so
threads may call them at the same time. Column names are those of the tables `cscore`, `curves`, `correlations`.
"""

from study.figures.classes import class_statistics, class_table
from study.figures.consensus import consensus_and_memorization, difficulty_plane, influence_grid
from study.figures.depth import (
    accuracy_by_depth,
    cscore_by_depth,
    depth_distribution,
    inference_learning_curve,
    probe_confidence,
)
from study.figures.distribution import bin_profile, consistency_profile, histograms_by_ratio
from study.figures.epochs import (
    confidence_by_epoch,
    grouped_accuracy,
    hidden_density_by_epoch,
    learning_curves_by_score,
)
from study.figures.images import choose_examples, example_grid, suspect_grid
from study.figures.label_errors import inspection_curves, noise_matrices
from study.figures.leaderboard import correlation_matrix, proxies_by_epoch, quality_by_cost
from study.figures.ranking import density_table, mean_over_repeats, point_estimates, proxy_ranking
from study.figures.regularity_plane import regularity_planes
from study.figures.search import search_history, search_importance, search_slices
from study.figures.sensitivity import class_sensitivity, sensitivity_by_epoch
from study.figures.side_by_side import learning_curves_side_by_side
from study.figures.style import FAMILY_COLOURS, class_names

__all__ = [
    "FAMILY_COLOURS",
    "accuracy_by_depth",
    "bin_profile",
    "choose_examples",
    "class_names",
    "class_sensitivity",
    "class_statistics",
    "class_table",
    "confidence_by_epoch",
    "consensus_and_memorization",
    "consistency_profile",
    "correlation_matrix",
    "cscore_by_depth",
    "density_table",
    "depth_distribution",
    "difficulty_plane",
    "example_grid",
    "grouped_accuracy",
    "hidden_density_by_epoch",
    "histograms_by_ratio",
    "inference_learning_curve",
    "influence_grid",
    "inspection_curves",
    "learning_curves_by_score",
    "learning_curves_side_by_side",
    "mean_over_repeats",
    "noise_matrices",
    "point_estimates",
    "probe_confidence",
    "proxies_by_epoch",
    "proxy_ranking",
    "quality_by_cost",
    "regularity_planes",
    "search_history",
    "search_importance",
    "search_slices",
    "sensitivity_by_epoch",
    "suspect_grid",
]
