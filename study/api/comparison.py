"""How well proxies stand in for C-scores.  in: two tables of the same examples   out: rank correlations"""

import numpy as np
import pandas as pd

from study.api.training import SingleRun
from study.errors import AnalysisError
from study.proxies import PROXIES
from study.scores.ceilings import Truth, rank_correlation
from study.scores.rank_statistics import distinct, kendall, spearman

KEYS = ("example", "label", "split")
REFERENCES = {"cscore": "stderr", "cscore_soft": "stderr_soft", "published": None}  # and the column of their error


def correlate(scores: pd.DataFrame, proxies: pd.DataFrame | SingleRun) -> pd.DataFrame:
    """Rank correlation of every proxy with the C-scores of the same examples.

    Proxies whose low values mean easy (`study.list_proxies()`) are turned round first, so that a good one is near 1.

    Args:
        scores: `example`, `label`, and `cscore`, `cscore_soft` or `published`, as `study.cscores` gives them.
        proxies: a single run, or a table: `example`, `label`, and a column of numbers per proxy, as `SingleRun.scores`;
            a column of another name counts as a proxy that is high where examples are easy.

    Returns:
        One row per reference, proxy and split: `proxy`, `reference`, `split`; `spearman` with its 95 % interval `low`,
        `high`; `kendall` (tau-b) with `kendall_low`, `kendall_high`; `n` examples with both scores; `distinct` values
        of the proxy among them; `ceiling`, the Spearman correlation that a perfect proxy could be expected to reach
        with a reference of these ties and this standard error, NaN where the scores have no error.  Published scores
        are of the clean labels: where a table holds `clean_label`, they are compared with the examples whose label is
        unchanged, and with the others in rows of their own, whose reference is "published, changed labels".

    Raises:
        AnalysisError: columns that are missing, other examples, other labels.

    >>> scores = pd.DataFrame({"example": list("abcd"), "label": 0, "cscore": [0.1, 0.5, 0.7, 1.0]})
    >>> proxies = pd.DataFrame({"example": list("dcba"), "label": 0, "mine": [4, 2, 3, 1]})
    >>> correlate(scores, proxies)[["proxy", "reference", "spearman", "n"]]
      proxy reference  spearman  n
    0  mine    cscore       0.8  4
    """
    references = [name for name in REFERENCES if name in scores.columns]
    if not references:
        raise AnalysisError("the scores have no column cscore, cscore_soft or published")
    proxies = proxies.scores if isinstance(proxies, SingleRun) else proxies
    joined = _joined(scores, proxies)
    names = [name for name in proxies.columns if name not in (*KEYS, "clean_label") and _is_number(proxies[name].dtype)]
    if not names:
        raise AnalysisError("the proxies have no column of numbers beside example and label")
    rows = []
    for split, part in joined.groupby("split", sort=False):
        for reference in references:
            for name in names:
                values = _oriented(name, part[f"{name} of proxy"].to_numpy(dtype=float))
                for title, compared in _compared(reference, part).items():
                    row = _row(values, compared, part, REFERENCES[reference])
                    if row:
                        rows.append({"proxy": name, "reference": title, "split": split, **row})
    return (
        pd.DataFrame(rows)
        .sort_values(["split", "reference", "spearman"], ascending=[False, True, False])
        .reset_index(drop=True)
    )


def _is_number(dtype: object) -> bool:
    return pd.api.types.is_numeric_dtype(dtype)


def _joined(scores: pd.DataFrame, proxies: pd.DataFrame) -> pd.DataFrame:
    """Both tables in the order of the scores, columns marked by their table."""
    for name, table in (("scores", scores), ("proxies", proxies)):
        lacking = [key for key in ("example", "label") if key not in table.columns]
        if lacking:
            raise AnalysisError(f"the {name} have no column {lacking[0]!r}")
        if not table["example"].is_unique:
            raise AnalysisError(f"the {name} hold an example twice")
    joined = scores.add_suffix(" of scores").merge(
        proxies.add_suffix(" of proxy"), left_on="example of scores", right_on="example of proxy", how="inner"
    )
    if len(joined) < len(scores):
        raise AnalysisError(f"{len(scores) - len(joined)} of {len(scores)} examples have no proxies; other data?")
    wrong = (joined["label of scores"] != joined["label of proxy"]).to_numpy()
    if wrong.any():
        first = joined["example of scores"].to_numpy()[int(np.argmax(wrong))]
        raise AnalysisError(f"{int(wrong.sum())} labels differ between scores and proxies, first at {first}")
    column = next((name for name in ("split of scores", "split of proxy") if name in joined), None)
    return joined.assign(split="train" if column is None else joined[column])


def _compared(reference: str, part: pd.DataFrame) -> dict[str, np.ndarray]:
    """Scores to compare with, (n,) by the name of the reference; NaN for examples that are not among its own."""
    scores = part[f"{reference} of scores"].to_numpy(dtype=float)
    clean = next((name for name in ("clean_label of scores", "clean_label of proxy") if name in part), None)
    if reference != "published" or clean is None:
        return {reference: scores}
    unchanged = (part["label of scores"] == part[clean]).to_numpy()
    return {
        "published": np.where(unchanged, scores, np.nan),
        "published, changed labels": np.where(unchanged, np.nan, scores),
    }


def _oriented(name: str, values: np.ndarray) -> np.ndarray:
    """(n,) float64, high where examples are easy."""
    sign = -1.0 if name in PROXIES and PROXIES[name].easy == "low" else 1.0
    return sign * values


def _row(values: np.ndarray, reference: np.ndarray, part: pd.DataFrame, error: str | None) -> dict[str, float]:
    """Both correlations over the examples with both scores; empty where there are fewer than three."""
    both = np.isfinite(values) & np.isfinite(reference)
    if both.sum() < 3:
        return {}
    rho, tau = spearman(values[both], reference[both]), kendall(values[both], reference[both])
    errors = f"{error} of scores"
    return {
        "spearman": rho.value,
        "low": rho.low,
        "high": rho.high,
        "kendall": tau.value,
        "kendall_low": tau.low,
        "kendall_high": tau.high,
        "n": rho.n,
        "distinct": distinct(values[both]),
        "ceiling": _ceiling(reference[both], part[errors].to_numpy(dtype=float)[both]) if errors in part else np.nan,
    }


def _ceiling(scores: np.ndarray, errors: np.ndarray) -> float:
    """What a proxy that ranks by the truth, without ties, reaches; NaN where it is unknown."""
    truth = Truth.from_errors(scores, errors)
    return np.nan if truth is None else truth.reach(rank_correlation)
