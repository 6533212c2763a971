"""What analyses read and give.  in: groups of finished runs, a Store   out: data sets; figures, tables, numbers"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from study.analysis.by_epoch import trajectory
from study.data import Dataset
from study.errors import AnalysisError
from study.experiments.select import Group
from study.experiments.sweep import CellData
from study.recipe import Recipe, parse
from study.tracking import Run, Store


@dataclass(frozen=True)
class FinishedRuns:
    """Finished runs that an analysis reads.

    groups: as of `study.experiments.select.group_runs`.
    store: that the runs are in, for further ones on the same data.
    data: opens the data set of a recipe; the last one is kept.
    """

    groups: Sequence[Group]
    store: Store
    data: CellData = field(default_factory=CellData)

    def of_kind(self, kind: str, *, repeats: int = 1) -> list[Group]:
        """The groups of ensembles or of single runs, of at least so many runs.

        Raises:
            AnalysisError: there are none.
        """
        chosen = [group for group in self.groups if group.kind == kind and len(group.runs) >= repeats]
        if not chosen:
            runs = {"ensemble": "an ensemble", "single": "single runs"}[kind]
            more = f" with at least {repeats} repeats (single.repeats={repeats})" if repeats > 1 else ""
            raise AnalysisError(f"needs {runs}{more} among the runs compared; `study run` trains them")
        return chosen

    def dataset(self, group: Group) -> Dataset:
        """The examples that the runs of a group were trained on.

        Raises:
            AnalysisError: the data set has changed since.
            DataError: it cannot be opened.
        """
        dataset = self.data(recipe_of(group.runs[0]))
        if dataset.digest != group.data:
            raise AnalysisError(f"{dataset.name} has changed since {group.runs[0].name} was trained on it; train again")
        return dataset


@dataclass(frozen=True)
class Finding:
    """One result of an analysis.

    name: of its files, without their ending.
    title: what is shown, in one line.
    note: how to read it.
    png: a figure; nothing where there is none.
    table: rows; None where there are none.
    numbers: headline numbers, metrics of the sweep's run.
    """

    name: str
    title: str
    note: str = ""
    png: bytes = b""
    table: pd.DataFrame | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def numbered(name: str, groups: Sequence[Group]) -> Iterator[tuple[str, Group]]:
    """Each group with a name for its findings: the name alone for a single group, `Z-fig6-2` for the second of many."""
    for number, group in enumerate(groups, 1):
        yield (name if len(groups) == 1 else f"{name}-{number}"), group


def title_of(title: str, group: Group) -> str:
    """A title that names the group where it differs from others."""
    return f"{title}: {group.label}" if group.differing else title


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run was trained with."""
    return parse(tomllib.loads(run.read("recipe.toml").read_text(encoding="utf-8")), f"recipe of {run.name}")


def mean_over_repeats(group: Group, column: str) -> pd.Series:
    """A column of `scores.parquet` by example, averaged over the runs of a group; NaN where one of them has none."""
    columns = [run.read_table("scores.parquet").set_index("example")[column] for run in group.runs]
    return pd.concat(columns, axis=1).mean(axis=1, skipna=False)


def correct_of(run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The epochs (e,) after which a single run was evaluated, and by split `train` and `test` correct (e, n) bool."""
    arrays, split = trajectory(run), run.read_table("scores.parquet")["split"].to_numpy()
    parts = {name: arrays["correct"][:, split == name] for name in ("train", "test")}
    return arrays["epochs"], {name: correct for name, correct in parts.items() if correct.shape[1]}
