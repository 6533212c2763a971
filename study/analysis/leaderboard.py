"""The leaderboard of proxies.  in: joined tables, what each proxy cost   out: a row per proxy, a correlation matrix"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from study.analysis.correlations import correlations, parts, references
from study.analysis.load import Gathered
from study.data import Dataset
from study.proxies import PROXIES, Spec, oriented
from study.scores.rank_statistics import spearman

KEYS = ["proxy", "label", "family", "easy", "on"]
MEASURES = ["spearman", "low", "high", "kendall", "ceiling", "n", "distinct"]
STANDING = ["within_class", "seeds", "architectures", "seconds", "flops"]


def leaderboard(gathered: Gathered, dataset: Dataset, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """How good is each proxy, and what did it cost: one row per proxy, best first.

    Args:
        gathered: the runs; proxies are held against `gathered.main`, over all examples with a score.
        dataset: that they have seen.
        table: of `correlations`, where it is known already.

    Returns:
        proxy label family easy on cost | spearman low high kendall ceiling n distinct, means over the repeats (the ends
        of the interval too: that of a typical repeat) | within_class, see `within_class` | seeds, the mean Spearman of
        all pairs of repeats | architectures, the mean Spearman with the newest run of each other network on this data |
        seconds, flops: what a run spent on the proxy beyond the training, mean over the repeats; evidence that several
        proxies share counts whole for each.  NaN where nothing is known: one repeat, no other network, no record.
    """
    table = correlations(gathered) if table is None else table
    chosen = table[(table["reference"] == gathered.main) & (table["part"] == "all")]
    means = chosen.groupby(KEYS, sort=False)[MEASURES].mean().reset_index()
    declared = [run.read_json("scores.json") for run in gathered.singles]
    costs = [run.read_json("costs.json") if "costs.json" in run.files else {} for run in gathered.singles]
    values = references(gathered)[gathered.main]
    rows = [_standing(PROXIES[name], gathered, dataset, values, declared, costs) for name in means["proxy"]]
    joined = means.merge(pd.DataFrame(rows), on="proxy")
    return joined[[*KEYS, "cost", *MEASURES, *STANDING]].sort_values(
        "spearman", ascending=False, kind="stable", ignore_index=True
    )


def _standing(
    spec: Spec,
    gathered: Gathered,
    dataset: Dataset,
    values: np.ndarray,
    declared: Sequence[Mapping],
    costs: Sequence[Mapping],
) -> dict[str, object]:
    rows = dataset.rows(spec.on)
    known = parts(values[rows])["all"]
    own = [
        oriented(spec, table[spec.name].to_numpy(dtype=float)[rows]) for table in gathered.scores if spec.name in table
    ]
    labels = dataset.labels[rows][known]
    kept = [each[spec.name] for each in declared if spec.name in each]
    return {
        "proxy": spec.name,
        "cost": spec.cost,
        "within_class": _mean([within_class(values[rows][known], scores[known], labels) for scores in own]),
        "seeds": _mean([spearman(one, other).value for one, other in itertools.combinations(own, 2)]),
        "architectures": _mean(_across(spec, gathered, rows, own, kept)),
        "seconds": _mean([each[spec.name]["seconds"] for each in costs if spec.name in each]),
        "flops": _mean([each[spec.name]["flops"] for each in costs if spec.name in each]),
    }


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
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    found = [spearman(scores[rows], proxy[rows]) for rows in np.split(order, cuts) if len(rows)]
    defined = [each for each in found if np.isfinite(each.value)]
    return float(np.average([r.value for r in defined], weights=[r.n for r in defined])) if defined else np.nan


def _across(
    spec: Spec, gathered: Gathered, rows: slice, own: Sequence[np.ndarray], kept: Sequence[Mapping]
) -> list[float]:
    """Spearman with each other network's scores, the mean over our repeats; other settings are another proxy."""
    found = []
    for run, table in gathered.others:
        theirs = run.read_json("scores.json").get(spec.name)
        if theirs and spec.name in table and kept and theirs.get("settings") == kept[0].get("settings"):
            scores = oriented(spec, table[spec.name].to_numpy(dtype=float)[rows])
            found.append(_mean([spearman(each, scores).value for each in own]))
    return found


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are defined; NaN when none is."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def proxy_matrix(gathered: Gathered, dataset: Dataset) -> pd.DataFrame:
    """Spearman among all proxies on training rows, and with the C-score, similar ones side by side.

    Returns:
        proxy label family, then one column per proxy in the same order; `gathered.main` is one of them.  Oriented,
        means over the repeats, over the examples that have a C-score.  Ordered by average linkage of 1 - rho (an
        undefined rho counts as 0 there), with the leaves turned so that neighbours are as alike as they can be.
    """
    rows = dataset.rows("train")
    values = references(gathered)[gathered.main][rows]
    known = np.isfinite(values)
    specs = [spec for spec in PROXIES.values() if spec.on == "train" and all(spec.name in t for t in gathered.scores)]
    names = [gathered.main, *(spec.name for spec in specs)]
    matrices = []
    for table in gathered.scores:
        turned = [oriented(spec, table[spec.name].to_numpy(dtype=float)[rows][known]) for spec in specs]
        matrices.append(_spearman_matrix(np.stack([values[known], *turned])))
    matrix = np.mean(matrices, axis=0)
    order = _clustered(matrix)
    label = {gathered.main: "published C-score" if gathered.main == "published" else "C-score"}
    family = {spec.name: spec.family for spec in specs}
    label |= {spec.name: spec.label for spec in specs}
    frame = pd.DataFrame(matrix, index=names, columns=names).iloc[order, order]
    frame.insert(0, "proxy", frame.index)
    frame.insert(1, "label", [label[name] for name in frame.index])
    frame.insert(2, "family", [family.get(name, "") for name in frame.index])
    return frame.reset_index(drop=True)


def _spearman_matrix(scores: np.ndarray) -> np.ndarray:
    """(p, n) scores without NaN to (p, p) Spearman; NaN for one with a single value."""
    ranks = rankdata(scores, axis=1)
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
