"""Tables of what scores are for.  in: results of uses   out: printed"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from study.cli.tables import frame_table
from study.progress import print_line

if TYPE_CHECKING:
    from study.data import Dataset
    from study.uses.collection import Collection
    from study.uses.curricula import Curricula
    from study.uses.reduction import Reduction
    from study.uses.test_sets import SmallTestSets


def interval(value: float, low: float, high: float, sign: str = "") -> str:
    """A number with the ends of its interval, as far as there are any."""
    if not np.isfinite(value):
        return ""
    return f"{value:{sign}.4f}" + (f" ({low:{sign}.4f} to {high:{sign}.4f})" if np.isfinite(low) else "")


def intervals(table: pd.DataFrame, name: str, low: str, high: str, sign: str = "") -> list[str]:
    """The same of three columns, row by row."""
    return [interval(*ends, sign=sign) for ends in zip(table[name], table[low], table[high], strict=True)]


def reduction_table(reduction: "Reduction") -> None:
    """Print accuracy by share and list, and what a list gains over random ones of the same size."""
    table = reduction.table
    shown = {
        "kept": [f"{100 * share:g} %" for share in table["share"]],
        "list": table["by"],
        "examples": table["n"],
        "runs": table["runs"],
        "test accuracy (95 %)": intervals(table, "accuracy", "low", "high"),
        "over random (95 %)": intervals(table, "gain", "gain_low", "gain_high", "+"),
    }
    frame_table(pd.DataFrame(shown))


def small_test_set_table(sets: "SmallTestSets") -> None:
    """Print how test sets of each size rank the classifiers, balanced and random ones."""
    table = sets.table
    shown = {
        "drawn": table["drawn"],
        "per bin": table["per_bin"],
        "examples": table["n"],
        "Spearman (95 % of the draws)": intervals(table, "spearman", "spearman_low", "spearman_high"),
        "mean average precision": intervals(table, "precision", "precision_low", "precision_high"),
    }
    frame_table(pd.DataFrame(shown))
    gains = sets.gains
    shown = {
        "per bin": gains["per_bin"],
        "Spearman, balanced less random": intervals(gains, "spearman", "spearman_low", "spearman_high", "+"),
        "better in": [f"{share:.0%}" for share in gains["spearman_share"]],
        "precision, balanced less random": intervals(gains, "precision", "precision_low", "precision_high", "+"),
    }
    frame_table(pd.DataFrame(shown))


def collection_table(collected: "Collection") -> None:
    """Print the held-out accuracy of each class with all data and with more, and how good such predictions are."""
    table = collected.table
    shown = {
        "class": table["class"],
        "examples": table["n"],
        "all data (95 %)": intervals(table, "now", "now_low", "now_high"),
        f"{collected.times:g} times as many": intervals(table, "more", "more_low", "more_high"),
        "gain": intervals(table, "gain", "gain_low", "gain_high", "+"),
    }
    frame_table(pd.DataFrame(shown))
    off = (table["last"] - table["last_predicted"]).abs().max()
    print_line(
        f"the accuracy at the largest subset ratio, predicted from the smaller ones, is off by at most {off:.4f}; "
        f"it lies in the interval for {collected.covered} of {len(table)} classes"
    )


def planted_table(measured: pd.DataFrame, dataset: "Dataset") -> None:
    """Print how well each score finds the images that do not belong, kind by kind, the best first."""
    for kind, rows in measured.groupby("kind", sort=False):
        count = int((dataset.planted == kind).sum())
        print_line(f"{kind}: {count:,} of {dataset.n_train:,} training images")
        shown = {
            "score": rows["score"],
            "AUROC (95 %)": intervals(rows, "auroc", "auroc_low", "auroc_high"),
            "average precision": intervals(
                rows, "average_precision", "average_precision_low", "average_precision_high"
            ),
        }
        frame_table(pd.DataFrame(shown))


def curricula_table(compared: "Curricula") -> None:
    """Print accuracy by length and way, and what a way gains over shuffled training of the same length."""
    table = compared.table
    shown = {
        "updates": table["steps"],
        "way": table["way"],
        "runs": table["runs"],
        "test accuracy (95 %)": intervals(table, "accuracy", "low", "high"),
        "over shuffled (95 %)": intervals(table, "gain", "gain_low", "gain_high", "+"),
    }
    frame_table(pd.DataFrame(shown))
