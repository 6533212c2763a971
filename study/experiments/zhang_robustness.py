"""Does another network or optimizer change what is regular?  in: groups of single runs   out: correlations, planes

Zhang et al. average every statistic over the repeats of a training, then correlate trainings with each other.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from study.errors import AnalysisError
from study.experiments.compare import correlated
from study.experiments.findings import Finding, FinishedRuns, correct_of
from study.experiments.select import Group
from study.experiments.zhang import densities_of, mean_planes
from study.figures.regularity_repeats import agreement_matrices, planes_by_training
from study.figures.style import png_bytes
from study.scores.regularity_plane import representation

STATISTICS = {  # in the order of the paper's Table 2
    ("right", "train"): "CBTL",
    ("right", "test"): "CBGL",
    ("events", "train"): "forgetting events",
    ("events", "test"): "mal-generalizing events",
    ("density", "train"): "density, training examples",
    ("density", "test"): "density, test examples",
}


def mean_statistics(group: Group) -> dict[str, np.ndarray]:
    """Every statistic of Zhang's Table 2 by its name there, (n of its split,), means over the repeats.

    Densities are counted run by run and averaged; those of a split whose examples all lie at one point are left out.
    """
    statistics: dict[tuple[str, str], list[np.ndarray]] = {}
    for run in group.runs:
        for split, correct in correct_of(run)[1].items():
            right, events = representation(correct)
            statistics.setdefault(("right", split), []).append(right)
            statistics.setdefault(("events", split), []).append(events)
        for split, density in densities_of(run, run.read_table("scores.parquet")).items():
            statistics.setdefault(("density", split), []).append(density.to_numpy())
    complete = {key: of_runs for key, of_runs in statistics.items() if len(of_runs) == len(group.runs)}
    return {name: np.mean(complete[key], axis=0) for key, name in STATISTICS.items() if key in complete}


def agreement_of_statistics(groups: Sequence[Group]) -> pd.DataFrame:
    """Pearson of every statistic and of the densities between every two trainings on the same data (Z-tab2).

    Returns:
        statistic | a, b (labels) | pearson, with its 95 % interval pearson_low, pearson_high | n examples.
    """
    means, rows = [mean_statistics(group) for group in groups], []
    for (a, left), (b, right) in itertools.combinations(zip(groups, means, strict=True), 2):
        if a.data == b.data:
            for name in (name for name in STATISTICS.values() if name in left and name in right):
                row = correlated(left[name], right[name])
                kept = {key: row[key] for key in ("pearson", "pearson_low", "pearson_high", "n")}
                rows.append({"statistic": name, "a": a.label, "b": b.label} | kept)
    return pd.DataFrame(rows, columns=["statistic", "a", "b", "pearson", "pearson_low", "pearson_high", "n"])


def statistics_between_trainings(runs: FinishedRuns) -> Iterator[Finding]:
    """Pearson of statistics and densities over networks or optimizers, as a table and as matrices (Z-tab2)."""
    groups = _several(runs)
    table = agreement_of_statistics(groups)
    lowest: dict[str, float] = {}
    for row in table.to_dict("records"):
        lowest[row["statistic"]] = min(row["pearson"], lowest.get(row["statistic"], 1.0))
    yield Finding(
        "Z-tab2",
        "Do other networks or optimizers find the same examples regular?",
        "Pearson between trainings, means over their repeats.  Between four networks on CIFAR-10 the paper has .88 or "
        "more, between optimizers .66 to .89 for the densities.",
        png_bytes(agreement_matrices(table, {group.label: group.short for group in groups})),
        table,
        {f"Z-tab2/lowest_pearson_{name.replace(', ', ' ').replace(' ', '_')}": value for name, value in lowest.items()},
    )


def planes_between_trainings(runs: FinishedRuns) -> Iterator[Finding]:
    """The plane of regularity of each network or optimizer, and Pearson of the densities (Z-fig11; Zhang, Fig. 10)."""
    groups = _several(runs)
    rows = agreement_of_statistics(groups).to_dict("records")
    density = pd.DataFrame([row for row in rows if row["statistic"].startswith("density")])
    yield Finding(
        "Z-fig11",
        "Regularity in two dimensions under other networks or optimizers",
        "Between SGD and AdaGrad, SGD and AdaMax, AdaGrad and AdaMax the densities of training examples correlate by "
        ".8914, .6877 and .6962 in the paper (ResNet-110, CIFAR-10).",
        png_bytes(planes_by_training({group.short: mean_planes(group) for group in groups})),
        density,
    )


def _several(runs: FinishedRuns) -> list[Group]:
    groups = runs.of_kind("single")
    if len(groups) < 2:
        raise AnalysisError("needs two trainings that differ in more than their repeats, such as two networks")
    return groups
