"""The report of a recorded run: no recipe, no images.  in: a recorded run   out: a run with a page and suspects"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from study import analysis, figures
from study.analysis import Review, StudyRuns
from study.data import Dataset
from study.errors import AnalysisError
from study.report.build import readable_in_spreadsheets
from study.report.gallery import suspect_entries
from study.report.html import NUMBERS, FigureSection, RunEntry, TableSection, write_report
from study.report.tables import SUSPECT_HEADINGS, SUSPECTS
from study.tracking import Run, Store

NO_CORRELATIONS = ("proxy", "label", "family", "easy", "on", "reference", "part", "repeat", *NUMBERS)


def run_recorded_report(recorded: Run, store: Store) -> Run:
    """Write `report.html` and `suspects.csv` of a recorded run to a run of their own.

    The page has the suspects by id, which proxies agree, and how the examples were learned; there are no pictures, as a
    recorder gets ids and logits.

    Raises:
        AnalysisError: another kind of run, or one whose proxies do not see label errors.
    """
    if recorded.tags.get("study.kind") != "recorded":
        raise AnalysisError(f"run {recorded.id[:8]} was not recorded; `study report RECIPE` reports on the other kinds")
    runs, dataset = _as_single_run(recorded)
    suspects, ranked_by = analysis.suspects(runs, dataset), analysis.ranked_by(runs)
    if suspects.empty:
        raise AnalysisError(f"run {recorded.id[:8]} has no proxy that ranks suspects; record logits or losses")
    tags = {"study.kind": "report", "study.singles": recorded.id}
    params = recorded.params | {"recorded": recorded.id}
    with store.start(f"{recorded.experiment}/report", f"report of {recorded.name}", params=params, tags=tags) as run:
        run.text("suspects.csv", readable_in_spreadsheets(suspects.head(SUSPECTS)).to_csv(index=False))
        sections = _figures(runs, dataset, recorded)
        for section in sections:
            run.figure(section.figure, f"figures/{section.id}.png")
        with tempfile.TemporaryDirectory() as folder:
            page = write_report(
                Path(folder) / "report.html",
                title=f"Which examples of {recorded.experiment} are hard?",
                facts=_facts(recorded, dataset),
                correlations=pd.DataFrame(columns=list(NO_CORRELATIONS)),
                figures=sections,
                tables=[TableSection("Suspects", suspects, "The most suspect first.")],
                colours=figures.FAMILY_COLOURS,
                suspects=suspect_entries(suspects, dataset, ranked_by, _nothing_near(suspects, dataset)),
                ranked_by=SUSPECT_HEADINGS.get(ranked_by, ranked_by.replace("_", " ")),
                runs=[RunEntry(recorded.id, f"{recorded.experiment}: {recorded.name}", store.link(recorded))],
            )
            run.file(page)
    return store.get(run.id)


def _as_single_run(recorded: Run) -> tuple[StudyRuns, Dataset]:
    """The train examples that were seen, as those of a single run on examples without images."""
    table = recorded.read_table("scores.parquet")
    table = pd.DataFrame(table[(table["split"] == "train") & (table["epochs_seen"] > 0)]).reset_index(drop=True)
    table["example"] = table["id"].astype(str)
    labels = table["label"].to_numpy(np.int64) if "label" in table else np.zeros(len(table), np.int64)
    dataset = Dataset(
        name=recorded.experiment,
        images=np.zeros((len(table), 1, 1, 1), np.float32),
        labels=labels,
        ids=table["example"].to_numpy(dtype=str),
        n_train=len(table),
        classes=tuple(map(str, range(int(labels.max()) + 1))),
        maximum=1.0,
        unusable=(),
        digest=recorded.id,
    )
    cscores = table[["example", "split"]].assign(label=labels, cscore=np.nan, consensus=-1)
    return StudyRuns(None, (recorded,), None, cscores, None, (table,)), dataset


def _nothing_near(suspects: pd.DataFrame, dataset: Dataset) -> Review:
    """The rows of the suspects; without inputs no example has neighbours or duplicates."""
    rows = pd.Index(dataset.ids).get_indexer(pd.Index(suspects["example"]))
    nothing = np.empty((len(rows), 0), dtype=np.int64)
    return Review(rows, [""] * len(rows), nothing, list(nothing))


def _facts(recorded: Run, dataset: Dataset) -> dict[str, str]:
    accuracy = recorded.metrics.get("train/accuracy")
    right = "" if accuracy is None else f"; accuracy at the last epoch {accuracy:.4f}"
    return {"data": f"{dataset.n:,} recorded train examples{right}"} | {
        name: str(value) for name, value in recorded.params.items()
    }


def _figures(runs: StudyRuns, dataset: Dataset, recorded: Run) -> list[FigureSection]:
    sections = []
    matrix = analysis.proxy_matrix(runs, dataset)
    if len(matrix) > 1:
        sentence = "Rank correlation of every pair of proxies, similar ones next to each other."
        figure = figures.correlation_matrix(matrix)
        sections.append(FigureSection("matrix", "Which proxies agree with each other", sentence, figure))
    if {"correct", "confidence", "top_confidence"} <= set(recorded.read_arrays("trajectory.npz")):
        planes = analysis.planes(recorded, dataset)
        if planes:
            sentence = (
                "In how many epochs an example is classified correctly, against how often it becomes wrong again. Easy "
                "examples are at the lower right."
            )
            figure = figures.regularity_planes(planes)
            sections.append(FigureSection("Z-fig2", "Regularity in two dimensions", sentence, figure))
    return sections
