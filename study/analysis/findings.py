"""Everything that a report tells.  in: the runs of a study   out: its tables and facts, computed once"""

import threading
from dataclasses import dataclass

import pandas as pd

from study.analysis.by_epoch import curves
from study.analysis.correlations import correlations, point_estimates
from study.analysis.difficulty import Difficulty, difficulty
from study.analysis.facts import facts
from study.analysis.influence import Influences, influences
from study.analysis.leaderboard import leaderboard, proxy_matrix
from study.analysis.load import Gathered
from study.analysis.single_run import depth_and_margins
from study.data import Dataset
from study.recipe import Recipe
from study.tracking import Store


@dataclass(frozen=True)
class Findings:
    """What was read, and the tables made of it; each is documented where it is made."""

    gathered: Gathered
    dataset: Dataset
    correlations: pd.DataFrame
    points: pd.DataFrame
    curves: pd.DataFrame
    leaderboard: pd.DataFrame
    matrix: pd.DataFrame
    influences: Influences | None
    difficulty: Difficulty | None
    facts: dict[str, str]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that a report keeps as parquet, by name."""
        names = ("correlations", "points", "curves", "leaderboard", "matrix")
        kept = {name: getattr(self, name) for name in names}
        if self.influences:
            kept["influence"] = self.influences.table
        if self.difficulty:
            kept |= {"difficulty": self.difficulty.table, "corners": self.difficulty.corners}
        return kept


def findings(
    gathered: Gathered, recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None
) -> Findings:
    """Compute the tables and facts of a report.

    Raises:
        Stopped: `stop` was set.
    """
    table = correlations(gathered)
    points = point_estimates(gathered.cscores)
    found = influences(gathered, recipe, dataset, store, stop=stop)
    hard = difficulty(gathered, recipe, dataset, store)
    return Findings(
        gathered=gathered,
        dataset=dataset,
        correlations=table,
        points=points,
        curves=curves(gathered, dataset),
        leaderboard=leaderboard(gathered, dataset, table),
        matrix=proxy_matrix(gathered, dataset),
        influences=found,
        difficulty=hard,
        facts=facts(gathered, dataset, points)
        | depth_and_margins(gathered, dataset)
        | ({"influence": found.told} if found else {})
        | ({"four forms of difficulty": hard.told} if hard else {}),
    )
