"""The leaderboard of proxies.  in: joined tables, what each proxy cost   out: a row per proxy, a correlation matrix"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from study.analysis.correlations import correlations, kendall_value, parts, references, true_order
from study.analysis.load import StudyRuns
from study.data import Dataset
from study.errors import StoreError
from study.progress import say
from study.proxies import PROXIES, Spec, oriented
from study.scores.ceilings import Truth, rank_correlation
from study.scores.rank_statistics import centred_ranks_by_group, distinct, midranks, spearman
from study.tracking import Run

KEYS = ["proxy", "label", "family", "easy", "on"]
MEASURES = ["spearman", "low", "high", "kendall", "ceiling", "n", "distinct"]
SHARES = ["share", "kendall_share", "within_class_share"]
AGREEMENT_AND_COST = ["within_class", *SHARES, "seeds", "architectures", "seconds", "flops"]


def leaderboard(runs: StudyRuns, dataset: Dataset, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Quality and cost of each proxy: one row per proxy, best first.

    Args:
        runs: proxies are compared with `runs.main`, over all examples with a score.
        dataset: that they were trained on.
        table: of `correlations`, where it has been computed already.

    Returns:
        proxy label family easy on cost | spearman low high kendall ceiling n distinct, means over the repeats (the ends
        of the interval too: that of a typical repeat) | within_class, see `within_class` | share, kendall_share,
        within_class_share: these three correlations, each as a share of what a perfect proxy with the ties of this one
        reaches (see `Truth.reach`) | seeds, the mean Spearman of
        all pairs of repeats | architectures, the mean Spearman with the newest run of each other network on this data |
        seconds, flops: what a run spent on the proxy beyond the training, mean over the repeats; signals that several
        proxies share count in full for each.  NaN where undefined: one repeat, no other network, no record.
    """
    table = correlations(runs) if table is None else table
    overall = table.loc[(table["reference"] == runs.main) & (table["part"] == "all")]
    means = overall.groupby(KEYS, sort=False)[MEASURES].mean().reset_index()
    if not references(runs):
        means = _unranked(runs, dataset)
    declared = [_read_mapping(run, "scores.json") for run in runs.singles]
    costs = [_read_costs(run) for run in runs.singles]
    values = references(runs).get(runs.main, np.full(dataset.n, np.nan))
    truths = {on: _truth(runs, dataset, values, on) for on in means["on"].unique()}
    rows = [
        _agreement_and_cost(PROXIES[name], runs, dataset, values, declared, costs, truths[PROXIES[name].on])
        for name in means["proxy"]
    ]
    joined = means.merge(pd.DataFrame(rows, columns=["proxy", "cost", *AGREEMENT_AND_COST]), on="proxy")
    return joined[[*KEYS, "cost", *MEASURES, *AGREEMENT_AND_COST]].sort_values(
        "spearman", ascending=False, kind="stable", ignore_index=True
    )


def _read_costs(run: Run) -> dict[str, dict[str, Any]]:
    """Costs of a run's proxies; none where the file was never kept or is damaged: no score depends on them."""
    if "costs.json" not in run.files:
        return {}
    try:
        return _read_mapping(run, "costs.json")
    except StoreError as error:
        say(f"{error.args[0].rpartition('; ')[0]}; its costs are missing in the table")
        return {}


def _unranked(runs: StudyRuns, dataset: Dataset) -> pd.DataFrame:
    """The proxies of single runs without any C-score: what is known of each but its rank correlation."""
    specs = [spec for spec in PROXIES.values() if any(spec.name in table for table in runs.scores)]
    values = {spec.name: [t[spec.name][dataset.rows(spec.on)] for t in runs.scores if spec.name in t] for spec in specs}
    return pd.DataFrame(
        [
            {"proxy": spec.name, "label": spec.label, "family": spec.family, "easy": spec.easy, "on": spec.on}
            | dict.fromkeys(MEASURES, np.nan)
            | {"distinct": _mean([float(distinct(np.asarray(column))) for column in values[spec.name]])}
            for spec in specs
        ],
        columns=[*KEYS, *MEASURES],
    )


def _read_mapping(run: Run, name: str) -> dict[str, dict[str, Any]]:
    """A JSON file of a run that maps names of proxies to objects."""
    return cast("dict[str, dict[str, Any]]", run.read_json(name))


def _agreement_and_cost(
    spec: Spec,
    runs: StudyRuns,
    dataset: Dataset,
    values: np.ndarray,
    declared: Sequence[Mapping[str, Any]],
    costs: Sequence[Mapping[str, Any]],
    truth: Truth | None,
) -> dict[str, object]:
    rows = dataset.rows(spec.on)
    scored = parts(values[rows])["all"]
    repeats = [
        oriented(spec, table[spec.name].to_numpy(dtype=float)[rows]) for table in runs.scores if spec.name in table
    ]
    labels = dataset.labels[rows][scored]
    declarations = [each[spec.name] for each in declared if spec.name in each]
    shares = [_shares(truth, values[rows][scored], scores[scored], labels) for scores in repeats] if truth else []
    return {
        "proxy": spec.name,
        "cost": spec.cost,
        "within_class": _mean([within_class(values[rows][scored], scores[scored], labels) for scores in repeats]),
        **{name: _mean([each[name] for each in shares]) for name in SHARES},
        "seeds": _mean([spearman(one, other).value for one, other in itertools.combinations(repeats, 2)]),
        "architectures": _mean(_across(spec, runs, rows, repeats, declarations)),
        "seconds": _mean([each[spec.name]["seconds"] for each in costs if spec.name in each]),
        "flops": _mean([each[spec.name]["flops"] for each in costs if spec.name in each]),
    }


def _truth(runs: StudyRuns, dataset: Dataset, values: np.ndarray, on: Literal["train", "test"]) -> Truth | None:
    """Draws of the truth behind the main reference, of the scored examples of one split."""
    split = np.zeros(dataset.n, dtype=bool)
    split[dataset.rows(on)] = True
    return true_order(runs, runs.main, split & parts(values)["all"])


def _shares(truth: Truth, values: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What a proxy reaches as a share of what the truth with its ties reaches, by the three measures; all (n,)."""
    here = labels[truth.rows]

    def inside(x: np.ndarray, y: np.ndarray) -> float:
        return within_class(x, y, here)

    measured = (rank_correlation(values, scores), kendall_value(values, scores), within_class(values, scores, labels))
    reached = [truth.reach(measure, scores) for measure in (rank_correlation, kendall_value, inside)]
    return {name: x / most if most > 0 else np.nan for name, x, most in zip(SHARES, measured, reached, strict=True)}


def within_class(scores: np.ndarray, proxy: np.ndarray, labels: np.ndarray) -> float:
    """Spearman of a proxy with the C-score inside each class, averaged over the classes by their size.

    Args:
        scores: (n,) C-scores without NaN.
        proxy: (n,) oriented.
        labels: (n,) classes.

    Returns:
        -1 to 1.  A proxy that does no more than tell hard classes from easy ones gets about 0.  Classes in which it is
        not defined (fewer than three examples, one value only) are left out; NaN when none is left.
    """
    present = ~(np.isnan(scores) | np.isnan(proxy))
    _, groups = np.unique(labels[present], return_inverse=True)
    x, y = centred_ranks_by_group(scores[present], groups), centred_ranks_by_group(proxy[present], groups)
    sizes = np.bincount(groups)
    covariance, var_x, var_y = (np.bincount(groups, weights=product) for product in (x * y, x * x, y * y))
    defined = (sizes >= 3) & (var_x > 0) & (var_y > 0)
    if not defined.any():
        return np.nan
    rho = covariance[defined] / np.sqrt(var_x[defined] * var_y[defined])
    return float(np.average(rho, weights=sizes[defined]))


def _across(
    spec: Spec,
    runs: StudyRuns,
    rows: slice,
    repeats: Sequence[np.ndarray],
    declarations: Sequence[Mapping[str, Any]],
) -> list[float]:
    """Spearman with each other network's scores, the mean over the repeats; other settings are another proxy."""
    coefficients = []
    for run, table in runs.others:
        other = _read_mapping(run, "scores.json").get(spec.name)
        same_settings = other and declarations and other.get("settings") == declarations[0].get("settings")
        if same_settings and spec.name in table:
            scores = oriented(spec, table[spec.name].to_numpy(dtype=float)[rows])
            coefficients.append(_mean([spearman(each, scores).value for each in repeats]))
    return coefficients


def _mean(values: Sequence[float | None]) -> float:
    """Mean of those that are defined; NaN when none is."""
    defined = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(defined)) if defined else np.nan


def proxy_matrix(runs: StudyRuns, dataset: Dataset) -> pd.DataFrame:
    """Spearman among all proxies on training rows, and with the C-score, similar ones next to each other.

    Returns:
        proxy label family, then one column per proxy in the same order; `runs.main` is one of them, if any.  Oriented,
        means over the repeats, over the examples that have a C-score.  Ordered by average linkage of 1 - rho (an
        undefined rho counts as 0 there), with the leaves ordered so that neighbours are as similar as possible.
    """
    rows = dataset.rows("train")
    compared = references(runs)
    values = compared[runs.main][rows] if compared else np.zeros(dataset.n_train)
    scored = np.isfinite(values)
    specs = [spec for spec in PROXIES.values() if spec.on == "train" and all(spec.name in t for t in runs.scores)]
    first = [runs.main] if compared else []
    names = [*first, *(spec.name for spec in specs)]
    matrices = []
    for table in runs.scores:
        proxies = [oriented(spec, table[spec.name].to_numpy(dtype=float)[rows][scored]) for spec in specs]
        matrices.append(_spearman_matrix(np.stack([values[scored]] * len(first) + proxies)))
    matrix = np.mean(matrices, axis=0)
    order = _clustered(matrix)
    label = {runs.main: "published C-score" if runs.main == "published" else "C-score"}
    family = {spec.name: spec.family for spec in specs}
    label |= {spec.name: spec.label for spec in specs}
    frame = pd.DataFrame(matrix, index=names, columns=names).iloc[order, order]
    frame.insert(0, "proxy", frame.index)
    frame.insert(1, "label", [label[name] for name in frame.index])
    frame.insert(2, "family", [family.get(name, "") for name in frame.index])
    return frame.reset_index(drop=True)


def _spearman_matrix(scores: np.ndarray) -> np.ndarray:
    """(p, n) scores without NaN to (p, p) Spearman; NaN for one with a single value."""
    ranks = np.stack([midranks(row) for row in scores])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1))
    matrix = ranks @ ranks.T
    return np.divide(
        matrix, np.outer(norms, norms), out=np.full(matrix.shape, np.nan), where=np.outer(norms, norms) > 0
    )


def _clustered(matrix: np.ndarray) -> np.ndarray:
    if len(matrix) < 3:
        return np.arange(len(matrix))
    distance = 1 - np.clip(np.nan_to_num(matrix, nan=0.0), -1, 1)
    np.fill_diagonal(distance, 0.0)
    between = squareform((distance + distance.T) / 2)
    return leaves_list(linkage(between, "average", optimal_ordering=True))
