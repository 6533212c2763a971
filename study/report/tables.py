"""The tables and the list of files of a report's page.  in: Results   out: tables, files, suspects.csv"""

from collections import Counter

import numpy as np
import pandas as pd

from study.analysis import Results
from study.data import Dataset
from study.data.findings import KINDS, find
from study.report import label_errors
from study.report.html import FileEntry, TableSection

NEAR_UP_TO = 20_000  # examples: all pairs of them are compared within seconds
SUSPECTS = 500  # rows of suspects.csv: as many as the MLflow UI shows
LEADERBOARD = {  # columns of the leaderboard and their headings on the page
    "label": "proxy",
    "on": "on",
    "spearman": "Spearman",
    "share": "share",
    "within_class": "within class",
    "seeds": "seeds",
    "architectures": "networks",
    "distinct": "distinct",
    "cost": "cost",
    "seconds": "seconds",
    "flops": "GFLOP",
}
SUSPECT_HEADINGS = {
    "predicted": "networks predict",
    "label_confidence": "confidence in the label",
    "cscore": "C-score",
    "cscore_soft": "soft C-score",
    "stderr": "standard error",
    "held_out": "held out",
    "published": "published C-score",
}
POINT_HEADINGS = {
    "percent": "% of the data",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "n": "examples",
}


def odd_images(dataset: Dataset) -> pd.DataFrame:
    """Images that repeat another one, and odd ones: what (of `KINDS`), example, label, same as, its label."""
    names, rows = np.array(dataset.classes), find(dataset, near=dataset.n <= NEAR_UP_TO)
    counts = Counter(finding.kind for finding in rows)
    rows = [finding for finding in rows if counts[finding.kind] <= dataset.n / 2]  # what most are is not odd
    return pd.DataFrame(
        {
            "what": [finding.kind for finding in rows],
            "example": [str(dataset.ids[finding.row]) for finding in rows],
            "label": [str(names[dataset.labels[finding.row]]) for finding in rows],
            "same as": ["" if each.same_as is None else str(dataset.ids[each.same_as]) for each in rows],
            "its label": ["" if each.same_as is None else str(names[dataset.labels[each.same_as]]) for each in rows],
        }
    )


def table_sections(results: Results, suspects: pd.DataFrame, odd: pd.DataFrame) -> list[TableSection]:
    """The tables below the figures; `suspects` is `analysis.suspects`, `odd` is `odd_images`."""
    sections = [_leaderboard_section(results)] if len(results.leaderboard) else []
    if len(odd):
        kinds = "; ".join(f"{kind}: {KINDS[kind]}" for kind in dict.fromkeys(odd["what"]))
        sections.append(
            TableSection(
                "Repeated, nearly repeated and blank images", odd, f"{kinds}. odd_images.csv holds all of them."
            )
        )
    if len(suspects):
        sentence = f"The most suspect train and test examples; suspects.csv holds the first {SUSPECTS:,}."
        shown = suspects.drop(columns="path", errors="ignore").rename(columns=SUSPECT_HEADINGS)
        sections.append(TableSection("Suspects", shown, sentence))
    if results.label_errors:
        sections.append(label_errors.table_section(results.label_errors))
    if len(results.planted):
        sections.append(label_errors.planted_section(results.planted, results.dataset))
    if results.difficulty is not None:
        sentence = "The training examples nearest to each corner of the plane of prediction depths (B-fig7)."
        corners = results.difficulty.corners
        named = corners.assign(label=corners["label"].map(dict(enumerate(results.dataset.classes))))
        sections.append(TableSection("Examples of the four forms of difficulty", named, sentence))
    if len(results.points) > 1:
        sentence = "Rank correlation of the C-score at a single subset ratio with that over all ratios (J-fig5)."
        sections.append(TableSection("Single subset ratios", _points(results.points), sentence))
    return sections


def _leaderboard_section(results: Results) -> TableSection:
    sentence = (
        "Means over the repeats. Share: of the Spearman that a perfect proxy with as many ties reaches. Within "
        "class: Spearman inside each class, weighted by its size. Seeds: Spearman between repeats. Networks: "
        "Spearman with the newest single run of each other network on this data. Distinct: number of different "
        "values. Seconds and GFLOP: cost beyond the training; a signal that several proxies read counts in full "
        "for each. –: not available."
    )
    ranks = ["spearman", "share", "within_class", "seeds", "architectures"]
    table = results.leaderboard.assign(flops=results.leaderboard["flops"] / 1e9).round(dict.fromkeys(ranks, 3))
    return TableSection("Leaderboard of proxies", table[list(LEADERBOARD)].rename(columns=LEADERBOARD), sentence)


def _points(points: pd.DataFrame) -> pd.DataFrame:
    """The percentages, both correlations and their intervals, one column each."""
    shown = pd.DataFrame({POINT_HEADINGS["percent"]: points["percent"]})
    for measure, low, high in (("spearman", "low", "high"), ("kendall", "kendall_low", "kendall_high")):
        shown[POINT_HEADINGS[measure]] = points[measure]
        shown[f"{POINT_HEADINGS[measure]}, low"], shown[f"{POINT_HEADINGS[measure]}, high"] = points[low], points[high]
    return shown.assign(examples=points["n"])


def file_entries(results: Results) -> list[FileEntry]:
    """The artifacts of the report, and those of the runs read that hold a row per example; without links."""
    runs, influences = results.runs, results.influences
    contents = {
        "suspects.csv": f"the {SUSPECTS:,} most suspect examples: labels, predicted classes, scores, paths",
        "correlations.parquet": "the table at the top, repeat by repeat",
        "leaderboard.parquet": "quality and cost of every proxy",
        "matrix.parquet": "rank correlation of every pair of proxies",
        "points.parquet": "single subset ratios against all of them (J-fig5)",
        "curves.parquet": "proxies against the C-score, epoch by epoch (J-fig8, J-fig9b)",
        "recipe.toml": "the recipe; study run recipe.toml repeats the study",
    }
    if influences is not None and len(influences.table):
        contents["influence.parquet"] = "the most influential training examples of each test example"
    if results.difficulty is not None:
        contents["difficulty.parquet"] = "every example's mean prediction depths and form of difficulty"
        contents["corners.parquet"] = "the 100 examples nearest to each corner"
    if results.label_errors:
        contents["label_errors.parquet"] = "how well each score finds the known label errors"
    if len(results.planted):
        contents["planted_images.parquet"] = "how well each score finds images that do not belong"
    files = [FileEntry(name, content) for name, content in contents.items()]
    if runs.ensemble:
        ensemble = runs.ensemble.id
        files.append(FileEntry("cscore.parquet", "every example's C-score, consensus and memorization", ensemble))
        files.append(FileEntry("profile.parquet", "the counts behind the C-scores, by subset ratio", ensemble))
    files += [FileEntry("scores.parquet", "every example's proxies", run.id) for run in runs.singles]
    with_probes = [run for run in runs.singles if "probes.npz" in run.files]
    files += [FileEntry("probes.npz", "predictions of the k-NN probes in every layer", run.id) for run in with_probes]
    return files
