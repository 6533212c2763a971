"""How well proxies rank the examples as the C-score does.  in: joined tables   out: rank correlations"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from study.analysis.load import Gathered
from study.errors import AnalysisError
from study.proxies import PROXIES, Spec, oriented
from study.scores import cscore
from study.scores.cscore import Profile
from study.scores.rank_statistics import distinct, kendall, noise_ceiling, spearman


def point_estimates(cscores: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of each ratio's C-score with the integral one over the training rows (J-fig5).

    Returns:
        ratio | percent | spearman low high | kendall kendall_low kendall_high | n, one row per ratio.
    """
    train = cscores[cscores["split"] == "train"]
    rows = []
    for column in (name for name in cscores if name.startswith("cscore_") and name != "cscore_soft"):
        share = float(column.removeprefix("cscore_"))
        rows.append({"ratio": share / 100, "percent": share, **_correlated(train["cscore"], train[column])})
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

    Where most scores tie at 1 (three quarters of MNIST), a correlation over all examples says little else than who is
    in the tie.  The second part is chosen by the score itself, which lowers its correlations.
    """
    known = np.isfinite(scores)
    return {"all": known, "unsaturated": known & (scores > 0) & (scores < 1)}


def references(gathered: Gathered) -> dict[str, np.ndarray]:
    """What proxies are held against: the hard C-score, the soft one, the published one where it is known; (n,) each."""
    own = ("cscore", "cscore_soft") if gathered.ensemble else ()
    names = [name for name in (*own, "published") if name in gathered.cscores]
    return {name: gathered.cscores[name].to_numpy(dtype=float) for name in names}


def correlations(gathered: Gathered) -> pd.DataFrame:
    """Every proxy of every repeat against every reference, over all examples and over the unsaturated ones.

    Returns:
        proxy label family easy on | reference part repeat | spearman low high | kendall kendall_low kendall_high |
        ceiling (the Spearman that a perfect proxy could reach, NaN for published scores) | n | distinct values of the
        proxy.  The unsaturated part is that of the hard C-score, also for the soft one.
    """
    rows = []
    split = gathered.cscores["split"].to_numpy()
    for name, values in references(gathered).items():
        saturation = gathered.cscores["published" if name == "published" else "cscore"].to_numpy(dtype=float)
        for on in ("train", "test"):
            for part, chosen in parts(saturation).items():
                mask = chosen & (split == on)
                ceiling = _ceiling(gathered.profile, name, mask)
                for repeat, table in enumerate(gathered.scores):
                    rows += [
                        _row(spec, table, values, mask)
                        | {"reference": name, "part": part, "repeat": repeat, "ceiling": ceiling}
                        for spec in _specs(table, on)
                        if mask.any()
                    ]
    if not rows:
        raise AnalysisError("none of the single runs holds a proxy that is still registered")
    return pd.DataFrame(rows)


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


def _ceiling(profile: Profile | None, reference: str, mask: np.ndarray) -> float:
    """The Spearman that a perfect proxy would reach on these rows, `ranks.noise_ceiling`; NaN for published scores."""
    if profile is None or reference == "published" or mask.sum() < 3:
        return float("nan")
    found = cscore.reliability(profile, mask)
    return noise_ceiling((found.soft if reference == "cscore_soft" else found.hard).value)
