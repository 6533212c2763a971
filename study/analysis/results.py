"""All tables and facts of a report.  in: the runs of a study   out: Results, computed once"""

import threading
from dataclasses import dataclass

import pandas as pd

from study.analysis.by_epoch import curves
from study.analysis.corrections import Correction, correction
from study.analysis.correlations import correlations, correlations_by_ratio
from study.analysis.difficulty import Difficulty, difficulty
from study.analysis.facts import facts
from study.analysis.influence import Influences, influences
from study.analysis.label_errors import LabelErrors, label_errors, planted_images, wrong_labels
from study.analysis.leaderboard import leaderboard, proxy_matrix
from study.analysis.load import StudyRuns
from study.analysis.single_run import depth_and_margins, planes
from study.data import Dataset
from study.recipe import Recipe
from study.tracking import Store


@dataclass(frozen=True)
class Results:
    """The runs of a study and the tables computed from them; each is documented where it is computed."""

    runs: StudyRuns
    dataset: Dataset
    correlations: pd.DataFrame
    points: pd.DataFrame
    curves: pd.DataFrame
    leaderboard: pd.DataFrame
    matrix: pd.DataFrame
    influences: Influences | None
    difficulty: Difficulty | None
    label_errors: LabelErrors | None
    planted: pd.DataFrame
    correction: Correction | None
    facts: dict[str, str]
    planes: dict[str, pd.DataFrame]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that a report keeps as parquet, by name."""
        names = ("correlations", "points", "curves", "leaderboard", "matrix")
        tables = {name: getattr(self, name) for name in names}
        if self.influences:
            tables["influence"] = self.influences.table
        if self.difficulty:
            tables |= {"difficulty": self.difficulty.table, "corners": self.difficulty.corners}
        if self.label_errors:
            tables |= {"label_errors": self.label_errors.table}
        if len(self.planted):
            tables |= {"planted_images": self.planted}
        return tables


def compute_results(
    runs: StudyRuns, recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None
) -> Results:
    """Compute the tables and facts of a report.

    Raises:
        Stopped: `stop` was set.
    """
    table = correlations(runs)
    points = correlations_by_ratio(runs.cscores)
    influential = influences(runs, recipe, dataset, store, stop=stop)
    difficulties = difficulty(runs, recipe, dataset, store)
    corrected = correction(runs, dataset)
    return Results(
        runs=runs,
        dataset=dataset,
        correlations=table,
        points=points,
        curves=curves(runs, dataset),
        leaderboard=leaderboard(runs, dataset, table),
        matrix=proxy_matrix(runs, dataset) if runs.scores else pd.DataFrame(columns=["proxy", "label", "family"]),
        influences=influential,
        difficulty=difficulties,
        planes=planes(runs.singles[0], dataset, recipe.single.density_radius) if runs.singles else {},
        label_errors=label_errors(runs, dataset) if wrong_labels(dataset).any() else None,
        planted=planted_images(runs, dataset),
        correction=corrected,
        facts=facts(runs, dataset, points)
        | ({"decisions": corrected.sentence()} if corrected else {})
        | depth_and_margins(runs, dataset)
        | ({"influence": influential.summary} if influential else {})
        | ({"four forms of difficulty": difficulties.summary} if difficulties else {}),
    )
