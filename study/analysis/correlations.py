"""How well proxies rank the examples as the C-score does.  in: joined tables   out: rank correlations"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from study.analysis.load import StudyRuns
from study.errors import AnalysisError
from study.proxies import PROXIES, Spec, oriented
from study.scores.ceilings import Truth, rank_correlation
from study.scores.cscore import half_lengths, half_scores
from study.scores.rank_statistics import distinct, kendall, spearman

COLUMNS = [  # of `correlations`
    *("proxy", "label", "family", "easy", "on", "spearman", "low", "high", "kendall", "kendall_low", "kendall_high"),
    *("n", "distinct", "reference", "part", "repeat", "ceiling", "kendall_ceiling"),
]


def correlations_by_ratio(cscores: pd.DataFrame) -> pd.DataFrame:
    """Correlate each ratio's C-score with the integral one over the training rows (J-fig5).

    Returns:
        ratio | percent | spearman low high | kendall kendall_low kendall_high | n, one row per ratio.
    """
    train = cscores[cscores["split"] == "train"]
    rows = []
    for column in (name for name in cscores if name.startswith("cscore_") and name != "cscore_soft"):
        percent = float(column.removeprefix("cscore_"))
        rows.append({"ratio": percent / 100, "percent": percent, **_correlated(train["cscore"], train[column])})
    return pd.DataFrame(rows)


def _correlated(x: np.ndarray | pd.Series, y: np.ndarray | pd.Series) -> dict[str, float]:
    """Both rank correlations with their intervals, as the tables name them."""
    rho, tau = spearman(x, y), kendall(x, y)
    return {
        "spearman": rho.value,
        "low": rho.low,
        "high": rho.high,
        "kendall": tau.value,
        "kendall_low": tau.low,
        "kendall_high": tau.high,
        "n": rho.n,
    }


def parts(scores: np.ndarray) -> dict[str, np.ndarray]:
    """All examples with a score, and those whose score is neither 0 nor 1: (n,) masks.

    Where most scores tie at 1 (three quarters of MNIST), a correlation over all examples mainly separates tied examples
    from the rest.  The second part is selected by the score itself, which lowers its correlations.
    """
    scored = np.isfinite(scores)
    return {"all": scored, "unsaturated": scored & (scores > 0) & (scores < 1)}


def references(runs: StudyRuns) -> dict[str, np.ndarray]:
    """The scores that proxies are compared with: hard C-score, soft C-score, published C-score if any; (n,) each."""
    computed = ("cscore", "cscore_soft") if runs.ensemble else ()
    names = [name for name in (*computed, "published") if name in runs.cscores]
    return {name: runs.cscores[name].to_numpy(dtype=float) for name in names}


def correlations(runs: StudyRuns) -> pd.DataFrame:
    """Correlate every proxy of every repeat with every reference, over all examples and over the unsaturated ones.

    Returns:
        proxy label family easy on | reference part repeat | spearman low high | kendall kendall_low kendall_high |
        ceiling, kendall_ceiling (what a perfect proxy reaches, see `Truth`; NaN for published scores) | n | distinct
        values of the proxy.  The unsaturated part is that of the hard C-score, also for the soft one.  No row where
        there is no reference or no single run.  Published scores are of the clean labels: examples whose label was
        changed are a part of their own, "changed labels", and in no other.
    """
    rows = []
    split = runs.cscores["split"].to_numpy()
    for name, values in references(runs).items():
        saturation = runs.cscores["published" if name == "published" else "cscore"].to_numpy(dtype=float)
        for on in ("train", "test"):
            changed = _changed(runs) if name == "published" else {}
            masks = parts(saturation) | {part: np.isfinite(each) for part, each in changed.items()}
            for part, in_part in masks.items():
                mask = in_part & (split == on)
                compared = changed.get(part, values)
                ceilings = _ceilings(true_order(runs, name, mask))
                for repeat, table in enumerate(runs.scores):
                    rows += [
                        _row(spec, table, compared, mask)
                        | {"reference": name, "part": part, "repeat": repeat}
                        | ceilings
                        for spec in _specs(table, on)
                        if mask.any()
                    ]
    if not references(runs) or not runs.scores:
        return pd.DataFrame(columns=COLUMNS)
    if not rows:
        raise AnalysisError("none of the single runs holds a proxy that is still registered")
    return pd.DataFrame(rows)


def _changed(runs: StudyRuns) -> dict[str, np.ndarray]:
    """Published scores of the examples whose label was changed, (n,); empty where none was."""
    if "published_changed" not in runs.cscores:
        return {}
    scores = np.asarray(runs.cscores["published_changed"], dtype=float)
    return {"changed labels": scores} if np.isfinite(scores).any() else {}


def _specs(table: pd.DataFrame, on: str) -> Iterator[Spec]:
    return (PROXIES[name] for name in table.columns if name in PROXIES and PROXIES[name].on == on)


def _row(spec: Spec, table: pd.DataFrame, values: np.ndarray, mask: np.ndarray) -> dict[str, object]:
    scores = oriented(spec, table[spec.name].to_numpy(dtype=float)[mask])
    return {
        "proxy": spec.name,
        "label": spec.label,
        "family": spec.family,
        "easy": spec.easy,
        "on": spec.on,
        **_correlated(values[mask], scores),
        "distinct": distinct(scores),
    }


def true_order(runs: StudyRuns, reference: str, mask: np.ndarray) -> Truth | None:
    """Draws of the true scores behind a reference, of the examples of a (n,) mask, which have scores.

    None for published scores and where halves of the members do not tell.  `Truth.rows` are places within the mask.
    """
    if runs.profile is None or reference == "published" or mask.sum() < 3:
        return None
    first, second = half_scores(runs.profile, mask)[reference == "cscore_soft"]
    scores = runs.cscores[reference].to_numpy(dtype=float)[mask]
    return Truth.from_halves(first, second, scores, half_lengths(runs.profile, mask))


def kendall_value(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b alone."""
    return kendall(x, y).value


def _ceilings(truth: Truth | None) -> dict[str, float]:
    """What a perfect proxy, without ties, reaches; NaN where it is unknown."""
    if truth is None:
        return {"ceiling": np.nan, "kendall_ceiling": np.nan}
    return {"ceiling": truth.reach(rank_correlation), "kendall_ceiling": truth.reach(kendall_value)}
