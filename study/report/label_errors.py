"""What scores find of known label errors, on the page and as files.  in: LabelErrors   out: sections, CSV, PNG"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from study import figures
from study.analysis import LabelErrors
from study.data import Dataset
from study.experiments.folder import write_files
from study.figures.style import png_bytes
from study.report.html import FigureSection, TableSection

HEADINGS = {
    "label": "score",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "precision": "precision",
    "recall_1": "found in 1 %",
    "recall_2": "2 %",
    "recall_5": "5 %",
    "recall_10": "10 %",
}


def figure_sections(errors: LabelErrors, classes: Sequence[str]) -> list[FigureSection]:
    """The inspection curves, and the confident joint beside the true noise where there is an ensemble."""
    sentence = (
        f"{errors.errors:,} of {errors.n:,} training labels are known to be wrong. How many of them are among the "
        "first examples of each score, the most suspect first."
    )
    sections = [FigureSection("label-errors", "Label errors found", sentence, _curves(errors))]
    if errors.joint is not None:
        sentence = " ".join(errors.sentences())
        figure = figures.noise_matrices(errors.joint, errors.true, classes)
        sections.append(FigureSection("noise-matrix", "Wrong labels by class", sentence, figure))
    return sections


def table_section(errors: LabelErrors) -> TableSection:
    """Every score and what it finds, with 95 % intervals."""
    shown = pd.DataFrame({HEADINGS["label"]: errors.table["label"]})
    for name in list(HEADINGS)[1:]:
        shown[HEADINGS[name]] = _with_ends(errors.table, name)
    sentence = (
        "How well each score finds the known label errors, with 95 % intervals. Precision: among the first as many "
        "examples as there are errors. Found: share of the errors among the first 1, 2, 5, 10 % of the examples. "
        "Equal scores count as in random order; of proxies the means over the repeats."
    )
    return TableSection("Label errors found", shown, sentence)


def planted_section(measured: pd.DataFrame, dataset: Dataset) -> TableSection:
    """How well each score finds foreign images and random ones, kind by kind, with 95 % intervals.

    Args:
        measured: of `analysis.planted_images`.
        dataset: that holds the images.
    """
    shown = pd.DataFrame({"images": measured["kind"], "score": measured["label"]})
    for name in ("auroc", "average_precision"):
        shown[HEADINGS[name]] = _with_ends(measured, name)
    kinds = {kind: int((dataset.planted == kind).sum()) for kind in dict.fromkeys(measured["kind"])}
    sentence = (
        f"How well each score finds the training images that do not belong ({_counted(kinds)}, of "
        f"{dataset.n_train:,}), with 95 % intervals. Each kind is told from the images that are left alone."
    )
    return TableSection("Images that do not belong", shown, sentence)


def write_folder(errors: LabelErrors, classes: Sequence[str], folder: Path) -> list[Path]:
    """Write `label_errors.csv`, `inspection_curves.csv`, `noise_matrix.csv`, `inspection.png`, `noise_matrix.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_files(_files(errors, classes), folder)


def write_planted(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `planted_images.csv`.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_files([("planted_images.csv", table.to_csv(index=False).encode())], folder)


def _files(errors: LabelErrors, classes: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    tables = {
        "label_errors.csv": errors.table,
        "inspection_curves.csv": errors.curves,
        "noise_matrix.csv": noise_table(errors, classes),
    }
    for name, table in tables.items():
        yield name, table.to_csv(index=False).encode()
    yield "inspection.png", png_bytes(_curves(errors))
    if errors.joint is not None:
        yield "noise_matrix.png", png_bytes(figures.noise_matrices(errors.joint, errors.true, classes))


def noise_table(errors: LabelErrors, classes: Sequence[str]) -> pd.DataFrame:
    """One row per pair of classes: `label` given, `other` | `true` count, `predicted` where there is an ensemble."""
    pairs = [(row, column) for row in range(len(classes)) for column in range(len(classes))]
    table = pd.DataFrame({"label": [classes[row] for row, _ in pairs], "other": [classes[other] for _, other in pairs]})
    table["true"] = [int(errors.true[pair]) for pair in pairs]
    if errors.joint is not None:
        table["predicted"] = [int(errors.joint[pair]) for pair in pairs]
    return table


def _with_ends(table: pd.DataFrame, name: str) -> list[str]:
    """A measure with its interval, row by row."""
    ends = zip(*(table[f"{name}{end}"] for end in ("", "_low", "_high")), strict=True)
    return [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in ends]


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{kind}: {count:,}" for kind, count in kinds.items())


def _curves(errors: LabelErrors) -> Figure:
    return figures.inspection_curves(errors.curves, errors.table, errors.errors / errors.n)
