"""The report of a study.  in: a recipe, finished runs in a Store   out: a run with tables, figures and a page"""

import hashlib
import tempfile
import threading
from functools import cache
from pathlib import Path

import pandas as pd

from study import analysis, figures
from study.analysis import Gathered
from study.data import Dataset
from study.errors import Stopped, StoreError
from study.figures import mean_over_repeats
from study.progress import say
from study.recipe import Recipe, dump, flatten
from study.report import sections as page
from study.report.html import Source, write_report
from study.tracking import Run, Store, descriptions


def run_report(recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None) -> Run:
    """Read the finished runs, compute every table, draw every figure, write them to a run of their own.

    Artifacts: `report.html`, `suspects.csv`, `figures/`, and as parquet `correlations`, `points` (J-fig5), `curves`
    (J-fig8, J-fig9b), `leaderboard`, `matrix`, `influence`.  Metrics: `rank/spearman/<proxy>`, `rank/kendall/<proxy>`
    against the hard C-score over all examples, `unsaturated/...` over the unsaturated ones, `soft/...` and
    `published/...` against the other references; `ceiling/<group>`, what a perfect proxy would reach in that group;
    the curves `ratio/spearman` (step = percent, J-fig5) and `epoch/<proxy>` (step = epoch, J-fig8, J-fig9b).

    A finished report of the same recipe on the same runs, made by the same code, is given back instead of a second one.
    """
    gathered = analysis.gather(recipe, dataset, store)
    sources = _sources(recipe, gathered)
    made = _made(store, sources)
    if made is not None:
        say(f"report {made.id[:8]}: made before, from the same runs")
        return made
    found = analysis.findings(gathered, recipe, dataset, store, stop=stop)
    part = recipe.part("single" if recipe.kind == "single" else "ensemble")
    names = {each.id: f"{each.experiment} {each.name}" for each in gathered.runs}
    run = store.start(
        f"{recipe.data.title}/report",
        descriptions.report_name(part),
        params=_params(recipe, part, len(gathered.singles)),
        tags={
            "study.kind": "report",
            "study.data": dataset.digest,
            "study.digest": part.digest(),
            "study.ensemble": gathered.ensemble.id if gathered.ensemble else None,
            "study.singles": " ".join(run.id for run in gathered.singles),
            "study.sources": sources,
        },
        description=descriptions.report_note(recipe, names),
    )
    with run:
        run.text("recipe.toml", dump(recipe))
        run.dataset(dataset.name, dataset.digest, "training", dataset.n_train, classes=dataset.n_classes)
        for name, table in found.tables.items():
            run.table(name, table)
        lowest = page.suspects(gathered, dataset)
        run.text("suspects.csv", lowest.head(page.SUSPECTS).to_csv(index=False))
        run.log(_metrics(found.correlations))
        _log_curves(run, found.points, found.curves, gathered.main)
        sections = page.sections(found)
        for section in sections:
            if stop is not None and stop.is_set():
                run.kill("stopped on request; the same command makes the report again")
                raise Stopped
            run.figure(section.figure, f"figures/{section.id}.png")
        with tempfile.TemporaryDirectory() as folder:
            written = write_report(
                Path(folder) / "report.html",
                title=f"How consistent is each example of {recipe.data.title}?",
                facts=found.facts,
                correlations=found.correlations,
                figures=sections,
                tables=page.tables(found, lowest),
                files=page.files(found),
                colours=figures.FAMILY_COLOURS,
                sources=[
                    Source(each.id, f"{each.experiment}: {each.name}", store.link(each)) for each in gathered.runs
                ],
            )
            run.file(written)
    return store.get(run.id)


def _sources(recipe: Recipe, gathered: Gathered) -> str:
    """Digest of all that decides what a report says: the recipe, the runs read and their files, this code."""
    parts = [dump(recipe), _code(), *(f"{run.id} {run.tags.get('study.files')}" for run in gathered.runs)]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """Digest of this package's modules and templates, as this process found them."""
    files = (file for file in sorted(Path(__file__).parents[1].rglob("*")) if file.suffix in (".py", ".html"))
    return hashlib.sha256("\x1f".join(file.read_text("utf-8") for file in files).encode()).hexdigest()


def _made(store: Store, sources: str) -> Run | None:
    """The finished report of these sources, when its page can be read."""
    for run in store.find("report", tags={"study.sources": sources}, status="FINISHED", max=1):
        try:
            run.read("report.html")
        except StoreError as error:
            say(f"{error}; making the report again")
            return None
        return run
    return None


def _params(recipe: Recipe, part: Recipe, repeats: int) -> dict[str, object]:
    """The training's parameters, and under `single.` those that the single runs have otherwise."""
    shared = flatten(part)
    single = flatten(recipe.part("single"))
    own = {f"single.{name}": value for name, value in single.items() if value != shared.get(name, value)}
    return shared | own | {"single.repeats": repeats}


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
            ranked = rows.sort_values(measure, ascending=False, kind="stable")  # the UI lists them as they come
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
