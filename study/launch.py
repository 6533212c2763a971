"""A whole study, or its report.  in: a recipe, a Store   out: runs in MLflow, a page to read"""

import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd

from study import analysis, figures, notes
from study.analysis import Gathered
from study.data import Dataset
from study.display import Bar, quiet, say
from study.ensemble import run_ensemble
from study.figures import mean_over_repeats
from study.recipe import Recipe, dump, flatten
from study.report import File, Section, Source, Table, write_report
from study.single import run_singles
from study.tracking import Run, Store
from study.training import Stopped

SUSPECTS = 500  # rows of suspects.csv: as many as the MLflow UI shows


def run_study(
    recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None, bar: Bar = quiet
) -> list[Run]:
    """Train what the recipe's kind names; a whole study ends with its report.

    Returns:
        The runs that hold the results: the ensemble, the single runs, the report.
    """
    runs = []
    if recipe.kind in ("study", "ensemble"):
        runs.append(run_ensemble(recipe, dataset, store, stop=stop, bar=bar))
    if recipe.kind in ("study", "single"):
        runs += run_singles(recipe, dataset, store, stop=stop, bar=bar)
    if recipe.kind == "study":
        if stop is not None and stop.is_set():
            raise Stopped
        say("report: correlations, then figures")
        runs.append(run_report(recipe, dataset, store, stop=stop))
    return runs


def run_report(recipe: Recipe, dataset: Dataset, store: Store, *, stop: threading.Event | None = None) -> Run:
    """Read the finished runs, compute every table, draw every figure, write them to a run of their own.

    Artifacts: `report.html`, `suspects.csv`, `correlations.parquet`, `points.parquet` (J-fig5), `curves.parquet`
    (J-fig8, J-fig9b), `figures/`.  Metrics: `rank/spearman/<proxy>`, `rank/kendall/<proxy>` against the hard C-score
    over all examples, `unsaturated/...` over the unsaturated ones, `soft/...` and `published/...` against the other
    references; `ceiling/<group>`, what a perfect proxy would reach in that group; the curves `ratio/spearman` (step =
    percent, J-fig5) and `epoch/<proxy>` (step = epoch, J-fig8, J-fig9b).
    """
    gathered = analysis.gather(recipe, dataset, store)
    correlations = analysis.correlations(gathered, dataset)
    points = analysis.point_estimates(gathered.cscores)
    curves = analysis.curves(gathered, dataset)
    facts = analysis.facts(gathered, dataset, points)
    part = recipe.part("single" if recipe.kind == "single" else "ensemble")
    run = store.start(
        f"{recipe.data.title}/report",
        notes.report_name(part),
        params=_params(recipe, part, len(gathered.singles)),
        tags={
            "study.kind": "report",
            "study.data": dataset.digest,
            "study.digest": part.digest(),
            "study.ensemble": gathered.ensemble.id if gathered.ensemble else None,
            "study.singles": " ".join(run.id for run in gathered.singles),
        },
        description=notes.report_note(recipe, {each.id: f"{each.experiment} {each.name}" for each in gathered.runs}),
    )
    with run:
        run.text("recipe.toml", dump(recipe))
        run.dataset(dataset.name, dataset.digest, "training", dataset.n_train, classes=dataset.n_classes)
        for name, table in (("correlations", correlations), ("points", points), ("curves", curves)):
            run.table(name, table)
        suspects = _suspects(gathered, dataset)
        run.text("suspects.csv", suspects.head(SUSPECTS).to_csv(index=False))
        run.log(_metrics(correlations))
        _log_curves(run, points, curves, "cscore" if gathered.ensemble else "published")
        sections = _sections(gathered, dataset, correlations, points, curves)
        for section in sections:
            if stop is not None and stop.is_set():
                run.kill("stopped on request; the same command makes the report again")
                raise Stopped
            run.figure(section.figure, f"figures/{section.id}.png")
        with tempfile.TemporaryDirectory() as folder:
            page = write_report(
                Path(folder) / "report.html",
                title=f"How consistent is each example of {recipe.data.title}?",
                facts=facts,
                correlations=correlations,
                figures=sections,
                tables=_tables(suspects, points),
                files=_files(gathered),
                colours=figures.FAMILY_COLOURS,
                sources=[
                    Source(each.id, f"{each.experiment}: {each.name}", store.link(each)) for each in gathered.runs
                ],
            )
            run.file(page)
    return store.get(run.id)


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


def _sections(
    gathered: Gathered, dataset: Dataset, correlations: pd.DataFrame, points: pd.DataFrame, curves: pd.DataFrame
) -> list[Section]:
    """Every figure with the one line that says what it shows; without an ensemble those that need none."""
    main = "cscore" if gathered.ensemble else "published"
    rows = dataset.rows("train")
    train = gathered.cscores[rows].reset_index(drop=True)
    images, classes = dataset.images[rows], dataset.classes
    mean_curves = curves.groupby(["proxy", "reference", "epoch"], as_index=False)["spearman"].mean()
    correct = analysis.trajectory(gathered.singles[0], dataset)["correct"][:, rows]
    scores = train["cscore"].to_numpy(dtype=float)
    return [
        Section(
            "proxies",
            "Which proxy to trust",
            "Rank correlation of each proxy with the C-score, 95 % interval; "
            "the line is what a perfect proxy could reach.",
            figures.proxy_ranking(correlations, reference=main),
        ),
        Section(
            "suspects",
            "Look at these first",
            "The lowest C-scores of all, test examples too: mislabeled, ambiguous or unlike anything else. Framed, "
            "with the networks' answer: most of those that have not seen it give another class than the label.",
            figures.suspects(dataset.images, gathered.cscores, classes, maximum=dataset.maximum),
        ),
        Section(
            "J-fig4",
            "Regular and irregular, class by class",
            "Examples with high, middle and low C-scores of each class.",
            figures.example_grid(images, train, classes, maximum=dataset.maximum),
        ),
        *(_ratio_sections(train, dataset.n_classes, points) if gathered.ensemble else ()),
        Section(
            "J-fig6",
            "Difficulty by class",
            "Mean and standard deviation of the C-scores in each class.",
            figures.class_statistics(train, classes),
        ),
        Section(
            "J-fig8",
            "Density in hidden space",
            "The kernel density of the penultimate layer against the C-score, epoch by epoch of a single run.",
            figures.hidden_density_by_epoch(mean_curves, reference=main),
        ),
        Section(
            "J-fig9a",
            "Who is learned first",
            "Share of each C-score group that the single run classifies right after each epoch.",
            figures.learning_curves_by_score(np.ascontiguousarray(correct), scores),
        ),
        Section(
            "J-fig9b",
            "Confidence as a proxy",
            "Softmax confidence of the label and of the top class against the C-score, epoch by epoch.",
            figures.confidence_by_epoch(mean_curves, reference=main),
        ),
        Section(
            "J-tab1",
            "Density in input space",
            "The kernel densities of the raw pixels against the C-score, beside the paper's numbers.",
            figures.density_table(correlations, name=dataset.name, reference=main),
        ),
    ]


def _ratio_sections(train: pd.DataFrame, n_classes: int, points: pd.DataFrame) -> list[Section]:
    """The figures that look at subset ratios one by one."""
    return [
        Section(
            "J-fig2",
            "C-scores at each subset ratio",
            "The more a network has seen, the more examples it gets right that it has not seen.",
            figures.histograms_by_ratio(train),
        ),
        Section(
            "J-fig3",
            "Integral C-scores and their profile",
            "Left: all ratios together. Right: how the examples of "
            "each bar fare as the training set grows; below the dashed line is worse than chance.",
            figures.consistency_profile(train, n_classes),
        ),
        Section(
            "J-fig5",
            "Is one ratio enough?",
            "How well the scores at one ratio rank the examples as all ratios together do.",
            figures.point_estimates(points),
        ),
    ]


def _suspects(gathered: Gathered, dataset: Dataset) -> pd.DataFrame:
    """Every scored example, train and test, lowest C-score first, with names for classes.

    Returns:
        example | label | networks_say (the most frequent held-out answer) | the scores that there are.
    """
    known = gathered.cscores.dropna(subset=["cscore"])
    table = known.sort_values([name for name in ("cscore", "cscore_soft") if name in known], kind="stable")
    names = dict(enumerate(dataset.classes))
    told = {"example": table["example"], "label": table["label"].map(names)}
    if gathered.ensemble:
        told["networks_say"] = table["consensus"].map(names).fillna("")
    scores = ("cscore", "cscore_soft", "stderr", "held_out") if gathered.ensemble else ()
    told |= {name: table[name] for name in (*scores, "published") if name in table}
    return pd.DataFrame(told).reset_index(drop=True)


def _tables(suspects: pd.DataFrame, points: pd.DataFrame) -> list[Table]:
    tables = [Table("Lowest C-scores", suspects, f"suspects.csv holds the first {SUSPECTS:,}, test examples too.")]
    if len(points):
        sentence = "Rank correlation of each ratio's C-score with the integral one (J-fig5)."
        tables.append(Table("Point estimates", points, sentence))
    return tables


def _files(gathered: Gathered) -> list[File]:
    """What a reader may want to take along, and the run that holds it."""
    files = [
        File("suspects.csv", f"the {SUSPECTS:,} lowest C-scores, with labels and the networks' answers"),
        File("correlations.parquet", "the table on top, repeat by repeat"),
        File("points.parquet", "single subset ratios against all of them (J-fig5)"),
        File("curves.parquet", "proxies against the C-score, epoch by epoch (J-fig8, J-fig9b)"),
        File("recipe.toml", "makes all this again: study run recipe.toml"),
    ]
    if gathered.ensemble:
        files.append(File("cscore.parquet", "every example's C-score", gathered.ensemble.id))
        files.append(File("profile.parquet", "the counts behind it, ratio by ratio", gathered.ensemble.id))
    files += [File("scores.parquet", "every example's proxies", run.id) for run in gathered.singles]
    return files
