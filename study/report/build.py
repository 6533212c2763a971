"""The report of a study.  in: a recipe, finished runs in a Store   out: a run with tables, figures and a page"""

import hashlib
import logging
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from study import analysis, figures
from study.analysis import Results, StudyRuns
from study.code_hash import package_digest
from study.data import Dataset
from study.data.edits import PREFIX
from study.data.findings import copies
from study.errors import Stopped
from study.figures import mean_over_repeats
from study.recipe import Recipe, dump, flatten
from study.report.gallery import suspect_entries
from study.report.html import FileEntry, RunEntry, write_report
from study.report.sections import figure_sections
from study.report.tables import SUSPECT_HEADINGS, SUSPECTS, file_entries, odd_images, table_sections
from study.runs.data_note import log_data
from study.tracking import Run, Store, descriptions

log = logging.getLogger(__name__)

OWN_DATA = ("folder", "csv", "parquet", "npz", "features", "table")  # the page opens with suspects, the rest is folded


def run_report(
    recipe: Recipe, dataset: Dataset, store: Store, *, into: Store | None = None, stop: threading.Event | None = None
) -> Run:
    """Read the finished runs, compute every table, draw every figure, write them to a run of their own.

    Artifacts: `report.html`, `suspects.csv`, `figures/`, and as parquet `correlations`, `points` (J-fig5), `curves`
    (J-fig8, J-fig9b), `leaderboard`, `matrix`, `influence`.  Metrics: `rank/spearman/<proxy>`, `rank/kendall/<proxy>`
    against the hard C-score over all examples, `unsaturated/...` over the unsaturated ones, `soft/...` and
    `published/...` against the other references; `ceiling/<group>`, what a perfect proxy would reach in that group;
    the curves `ratio/spearman` (step = percent, J-fig5) and `epoch/<proxy>` (step = epoch, J-fig8, J-fig9b).

    If a finished report of the same recipe, runs and code exists, it is returned and no second one is made.

    Args:
        recipe: of the finished runs.
        dataset: that they were trained on.
        store: where they are.
        into: where the report goes; the same store unless given.
        stop: set to end before the next figure.

    Raises:
        Stopped: `stop` was set.
    """
    runs = analysis.load_runs(recipe, dataset, store)
    sources = _sources_digest(recipe, runs)
    existing = _existing_report(store, sources, mark=into is None)
    if existing is not None:
        log.info(f"report {existing.id[:8]}: exists already, of the same runs")
        return existing
    results = analysis.compute_results(runs, recipe, dataset, store, stop=stop)
    run = _start(recipe, runs, dataset, into or store, sources)
    with run:
        run.text("recipe.toml", dump(recipe))
        log_data(run, dataset)
        for name, table in results.tables.items():
            run.table(name, table)
        run.log(_metrics(results.correlations))
        _log_curves(run, results.points, results.curves, runs.main)
        _write_page(run, results, recipe, store, stop)
        log.info(f"report: {results.facts['trust']}")
        if results.correction:
            log.info(f"report: {results.correction.sentence()}")
            run.log({f"correction/{name}": value for name, value in results.correction.accuracies().items()})
    return run.store.get(run.id)


def _start(recipe: Recipe, runs: StudyRuns, dataset: Dataset, store: Store, sources: str) -> Run:
    part = recipe.part("single" if recipe.kind == "single" else "ensemble")
    return store.start(
        f"{recipe.data.title}/report",
        descriptions.report_name(part, dataset.digest),
        params=_params(recipe, part, len(runs.singles)),
        tags={
            "study.kind": "report",
            "study.data": dataset.digest,
            "study.digest": part.digest(),
            "study.ensemble": runs.ensemble.id if runs.ensemble else None,
            "study.singles": " ".join(run.id for run in runs.singles),
            "study.sources": sources,
        },
        description=descriptions.report_note(recipe, {run.id: f"{run.experiment} {run.name}" for run in runs.all_runs}),
    )


def _write_page(run: Run, results: Results, recipe: Recipe, store: Store, stop: threading.Event | None) -> None:
    """Write suspects.csv, odd_images.csv, figures/ and report.html."""
    suspects = analysis.suspects(results.runs, results.dataset)
    ranked_by, reviewed = analysis.ranked_by(results.runs), analysis.review(suspects.head(SUSPECTS), results.dataset)
    edited = analysis.editable(suspects.head(SUSPECTS), reviewed, results.dataset)
    run.text("suspects.csv", readable_in_spreadsheets(edited).to_csv(index=False))
    odd = odd_images(results.dataset)
    odd_entry = [FileEntry("odd_images.csv", "images that repeat another one, and odd ones")] if len(odd) else []
    if odd_entry:
        run.text("odd_images.csv", readable_in_spreadsheets(odd).to_csv(index=False))
    sections = []
    for section in figure_sections(results):
        if stop is not None and stop.is_set():
            run.kill("stopped on request; the same command makes the report again")
            raise Stopped
        run.figure(section.figure, f"figures/{section.id}.png")
        if section.id != "suspects":  # the page has their pictures one by one
            sections.append(section)
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(
            Path(folder) / "report.html",
            title=f"How consistent is each example of {recipe.data.title}?",
            facts=results.facts | _copies(results.dataset) | _numbered_classes(results.dataset.classes),
            correlations=results.correlations,
            figures=sections,
            tables=table_sections(results, suspects, odd),
            files=_linked(file_entries(results) + odd_entry, run, results.runs, store),
            colours=figures.FAMILY_COLOURS,
            suspects=suspect_entries(suspects, results.dataset, ranked_by, reviewed),
            classes=results.dataset.classes,
            data_digest=PREFIX + results.dataset.digest,
            ranked_by=SUSPECT_HEADINGS.get(ranked_by, ranked_by.replace("_", " ")),
            folded=recipe.data.name in OWN_DATA,
            runs=[
                RunEntry(each.id, f"{each.experiment}: {each.name}", store.link(each)) for each in results.runs.all_runs
            ],
        )
        run.file(page)


def readable_in_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would run as a formula, such as a class `=cmd|...`, begins with an apostrophe."""
    quoted = table.copy()
    for name in quoted.select_dtypes(["object", "string", "category"]):
        texts = quoted[name].astype("string")
        quoted[name] = texts.where(~texts.str.match(r"[=+\-@\t\r]", na=False), "'" + texts)
    return quoted


def _copies(dataset: Dataset) -> dict[str, str]:
    """A fact about images whose copies are in the other split or another class."""
    repeats = copies(dataset)
    return {"copies": repeats} if repeats else {}


def _numbered_classes(classes: Sequence[str]) -> dict[str, str]:
    """Name the classes that figures show as numbers, because no installed font has their characters."""
    drawn = zip(classes, figures.class_names(classes), strict=True)
    numbered = [f"{name}: {label}" for label, name in drawn if name != str(label)]
    return {"classes in the figures": ", ".join(numbered)} if numbered else {}


def _linked(entries: list[FileEntry], report: Run, runs: StudyRuns, store: Store) -> list[FileEntry]:
    """Give each file its address in the MLflow UI; of a report that goes elsewhere, beside the page."""
    pages: dict[str | None, str] = {run.id: f"{store.link(run).partition('?')[0]}/artifacts/" for run in runs.all_runs}
    pages[None] = f"{store.link(report).partition('?')[0]}/artifacts/" if report.store is store else ""
    return [replace(entry, link=pages[entry.run] + entry.name) for entry in entries]


def _sources_digest(recipe: Recipe, runs: StudyRuns) -> str:
    """Digest of all that decides the content of a report: the recipe, the runs read and their files, the code."""
    parts = [dump(recipe), package_digest(), *(f"{run.id} {run.tags.get('study.files')}" for run in runs.all_runs)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _existing_report(store: Store, sources: str, *, mark: bool) -> Run | None:
    """The finished report of these sources, if all of its files can be read; else it may be marked as FAILED."""
    for run in store.find("report", tags={"study.sources": sources}, status="FINISHED", max=1):
        damaged = run.verify()
        if damaged:
            log.warning(f"{damaged[0]}: making the report again")
            if mark:
                run.fail_damaged()
        return None if damaged or "report.html" not in run.files else run
    return None


def _params(recipe: Recipe, part: Recipe, repeats: int) -> dict[str, object]:
    """The training's parameters, and under `single.` those in which the single runs differ."""
    shared = flatten(part)
    single = flatten(recipe.part("single"))
    differing = {f"single.{name}": value for name, value in single.items() if value != shared.get(name, value)}
    return {**shared, **differing, "single.repeats": repeats}


def _metrics(correlations: pd.DataFrame) -> dict[str, float]:
    means = mean_over_repeats(correlations)
    metrics = {}
    for group, reference, part in (
        ("rank", "cscore", "all"),
        ("unsaturated", "cscore", "unsaturated"),
        ("soft", "cscore_soft", "all"),
        ("published", "published", "all"),
    ):
        rows = means[(means["reference"] == reference) & (means["part"] == part)]
        ceilings = rows.loc[rows["on"] == "train", "ceiling"].dropna()
        if len(ceilings):
            metrics[f"ceiling/{group}"] = ceilings.iloc[0]
        for measure in ("spearman", "kendall"):
            ranked = rows.sort_values(measure, ascending=False, kind="stable")  # the UI shows them in logged order
            metrics |= {
                f"{group}/{measure}/{proxy}": r for proxy, r in zip(ranked["proxy"], ranked[measure], strict=True)
            }
    return metrics


def _log_curves(run: Run, points: pd.DataFrame, curves: pd.DataFrame, reference: str) -> None:
    if len(points):
        steps = points["percent"].round().astype(int).tolist()
        run.series("ratio/spearman", points["spearman"].tolist(), steps)
        run.series("ratio/kendall", points["kendall"].tolist(), steps)
    for proxy, rows in curves[curves["reference"] == reference].groupby("proxy"):
        line = rows.groupby("epoch")["spearman"].mean()
        run.series(f"epoch/{proxy}", line.tolist(), line.index.tolist())
