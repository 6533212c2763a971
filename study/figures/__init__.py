"""One function per figure of the papers.  in: arrays, tables   out: matplotlib Figure, drawn without pyplot

Every function runs under one look (`style.py`) and gives a Figure that keeps it when saved. Drawing holds a lock, so
threads may call them at the same time. Column names are those of the tables `cscore`, `curves`, `correlations`.
"""

from study.figures.classes import class_statistics, class_table
from study.figures.distribution import bin_profile, consistency_profile, histograms_by_ratio
from study.figures.epochs import (
    confidence_by_epoch,
    grouped_accuracy,
    hidden_density_by_epoch,
    learning_curves_by_score,
)
from study.figures.pictures import choose_examples, example_grid, suspects
from study.figures.ranking import density_table, mean_over_repeats, point_estimates, proxy_ranking
from study.figures.style import FAMILY_COLOURS

__all__ = [
    "FAMILY_COLOURS",
    "bin_profile",
    "choose_examples",
    "class_statistics",
    "class_table",
    "confidence_by_epoch",
    "consistency_profile",
    "density_table",
    "example_grid",
    "grouped_accuracy",
    "hidden_density_by_epoch",
    "histograms_by_ratio",
    "learning_curves_by_score",
    "mean_over_repeats",
    "point_estimates",
    "proxy_ranking",
    "suspects",
]
