"""Results of uses as files.  in: tables   out: CSV and PNG in a folder that the caller names"""

from pathlib import Path

import pandas as pd

from study.experiments.folder import write_files
from study.figures.style import png_bytes
from study.figures.uses import accuracy_by_budget, accuracy_by_class, accuracy_by_share, small_test_sets
from study.uses.collection import Collection
from study.uses.curricula import Curricula
from study.uses.reduction import Reduction
from study.uses.test_sets import SmallTestSets


def write_reduction(reduction: Reduction, folder: Path) -> list[Path]:
    """Write `reduction.csv`, `reduction_runs.csv` and `reduction.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    tables = {
        "reduction": reduction.table,
        "reduction_runs": reduction.runs,
    }
    return _write(tables, "reduction", png_bytes(accuracy_by_share(reduction.table)), folder)


def write_test_sets(sets: SmallTestSets, folder: Path) -> list[Path]:
    """Write `test_set.csv` (one balanced draw), `test_sets.csv`, `classifiers.csv` and `test_sets.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    tables = {
        "test_set": sets.chosen,
        "test_sets": sets.table,
        "classifiers": sets.accuracies,
    }
    return _write(tables, "test_sets", png_bytes(small_test_sets(sets.table)), folder)


def write_collection(collected: Collection, folder: Path) -> list[Path]:
    """Write `more_data.csv`, `accuracy_by_size.csv` and `more_data.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    figure = accuracy_by_class(collected.curves, collected.table, collected.times)
    tables = {
        "more_data": collected.table,
        "accuracy_by_size": collected.curves,
    }
    return _write(tables, "more_data", png_bytes(figure), folder)


def write_curricula(compared: Curricula, folder: Path) -> list[Path]:
    """Write `curricula.csv` and `curricula.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    tables = {
        "curricula": compared.table,
    }
    return _write(tables, "curricula", png_bytes(accuracy_by_budget(compared.table)), folder)


def _write(tables: dict[str, pd.DataFrame], picture: str, png: bytes, folder: Path) -> list[Path]:
    files = [(f"{name}.csv", table.to_csv(index=False).encode()) for name, table in tables.items()]
    return write_files([*files, (f"{picture}.png", png)], folder)
