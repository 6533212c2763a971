"""Four forms of difficulty (B-fig7).  in: prediction depths of an ensemble's members   out: tables, a summary"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from study.analysis.load import StudyRuns
from study.data import Dataset
from study.recipe import Recipe
from study.runs.shards import depths
from study.scores.difficulty_types import TYPES, corner_distances, difficulty_types, nearest_to_corners, split_depths
from study.tracking import Store

NEAREST = 100  # of each corner, as B-fig8 takes them


class Difficulty(NamedTuple):
    """Where examples lie between the corners of the plane of both mean depths.

    table: example label split | depth_train depth_validation, in layers, NaN where there is none; test rows have no
        depth_train | distance_0 to distance_3, of the corners in the order of `difficulty_types.TYPES`, axes scaled to
        [0, 1] | type, name of the nearest corner, "" where unknown.  A row per example.
    corners: type rank example label | depth_train depth_validation distance: the 100 training examples nearest to each
        corner, the nearest of all corners first.
    summary: in words.
    """

    table: pd.DataFrame
    corners: pd.DataFrame
    summary: str


def difficulty(runs: StudyRuns, recipe: Recipe, dataset: Dataset, store: Store) -> Difficulty | None:
    """Mean prediction depths of each example as part of the training split and as part of the validation split.

    Returns:
        None without an ensemble whose members keep depths (`subset.depth`), or where no shard can be read.

    Source: Baldock et al. 2021, Sec. 4 and Fig. 7, who have 250 members at one ratio.  With several ratios the means
        are over the members of all, more of which have an example in training the larger the ratio is.
    """
    if runs.ensemble is None or not recipe.subset.depth:
        return None
    inside, outside, undefined = split_depths(depths(store, recipe, dataset), dataset.n)
    if np.isnan(undefined):
        return None
    distances = corner_distances(inside, outside)
    types = difficulty_types(distances)
    table = pd.DataFrame(
        {
            "example": dataset.ids,
            "label": dataset.labels,
            "split": dataset.split(),
            "depth_train": inside,
            "depth_validation": outside,
            **{f"distance_{place}": distances[:, place] for place in range(len(TYPES))},
            "type": np.array([*TYPES, ""])[types],
        }
    )
    shares = (f"{name} {share:.1%}" for name, share in zip(TYPES, _shares(types), strict=True))
    summary = (
        f"mean depth {np.nanmean(inside):.2f} layers in the training split, "
        f"{np.nanmean(outside[: dataset.n_train]):.2f} in the validation split; nearest corner: {', '.join(shares)}; "
        f"undefined {undefined:.2%}"
        if (types >= 0).any()
        else "no example was seen in both splits with a depth that is defined"
    )
    return Difficulty(table, _corners(table, distances), summary)


def _shares(types: np.ndarray) -> np.ndarray:
    """Of the examples that have a type, the share of each."""
    return np.bincount(types[types >= 0], minlength=len(TYPES)) / np.count_nonzero(types >= 0)


def _corners(table: pd.DataFrame, distances: np.ndarray) -> pd.DataFrame:
    parts = []
    for place, (name, rows) in enumerate(nearest_to_corners(distances, NEAREST).items()):
        part = table.loc[rows, ["example", "label", "depth_train", "depth_validation"]]
        part.insert(0, "type", name)
        part.insert(1, "rank", np.arange(1, len(rows) + 1))
        parts.append(part.assign(distance=distances[rows, place]))
    return pd.concat(parts).sort_values("rank", kind="stable", ignore_index=True)
