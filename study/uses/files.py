"""Results of uses as files.  in: tables   out: CSV and PNG in a folder that the caller names"""

from pathlib import Path

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
    files = [
        ("reduction.csv", reduction.table.to_csv(index=False).encode()),
        ("reduction_runs.csv", reduction.runs.to_csv(index=False).encode()),
        ("reduction.png", png_bytes(accuracy_by_share(reduction.table))),
    ]
    return write_files(files, folder)


def write_test_sets(sets: SmallTestSets, folder: Path) -> list[Path]:
    """Write `test_set.csv` (one balanced draw), `test_sets.csv`, `classifiers.csv` and `test_sets.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    files = [
        ("test_set.csv", sets.chosen.to_csv(index=False).encode()),
        ("test_sets.csv", sets.table.to_csv(index=False).encode()),
        ("classifiers.csv", sets.accuracies.to_csv(index=False).encode()),
        ("test_sets.png", png_bytes(small_test_sets(sets.table))),
    ]
    return write_files(files, folder)


def write_collection(collected: Collection, folder: Path) -> list[Path]:
    """Write `more_data.csv`, `accuracy_by_size.csv` and `more_data.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    figure = accuracy_by_class(collected.curves, collected.table, collected.times)
    files = [
        ("more_data.csv", collected.table.to_csv(index=False).encode()),
        ("accuracy_by_size.csv", collected.curves.to_csv(index=False).encode()),
        ("more_data.png", png_bytes(figure)),
    ]
    return write_files(files, folder)


def write_curricula(compared: Curricula, folder: Path) -> list[Path]:
    """Write `curricula.csv` and `curricula.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    files = [
        ("curricula.csv", compared.table.to_csv(index=False).encode()),
        ("curricula.png", png_bytes(accuracy_by_budget(compared.table))),
    ]
    return write_files(files, folder)
