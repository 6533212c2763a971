"""A whole study, or its report.  in: a recipe, a Store   out: runs in MLflow, a page to read"""

import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd

from study import analysis, figures
from study.analysis import Gathered
from study.data import Dataset
from study.display import Bar, quiet
from study.ensemble import run_ensemble
from study.figures import mean_over_repeats
from study.recipe import Recipe, dump, flatten
from study.report import Section, Source, Table, write_report
from study.single import run_singles
from study.tracking import Run, Store
from study.training import Stopped


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
        runs.append(run_report(recipe, dataset, store))
    return runs


def run_report(recipe: Recipe, dataset: Dataset, store: Store) -> Run:
    """Read the finished runs, compute every table, draw every figure, write them to a run of their own.

    Artifacts: `correlations.parquet`, `points.parquet` (J-fig5), `curves.parquet` (J-fig8, J-fig9b), `figures/`,
    `report.html`.  Metrics: `rank/spearman/<proxy>`, `rank/kendall/<proxy>` against the hard C-score over all examples,
    `unsaturated/spearman/<proxy>` over the unsaturated ones, `soft/spearman/<proxy>` against the soft C-score.
    """
    gathered = analysis.gather(recipe, dataset, store)
    correlations = analysis.correlations(gathered, dataset)
    points = analysis.point_estimates(gathered.cscores)
    curves = analysis.curves(gathered, dataset)
    facts = analysis.facts(gathered, dataset, points)
    run = store.start(
        f"{recipe.data.title}/report",
        f"{recipe.model.name}, {len(gathered.singles)} single runs",
        params=flatten(recipe.part("ensemble")) | {"single.repeats": len(gathered.singles)},
        tags={
            "study.kind": "report",
            "study.data": dataset.digest,
            "study.digest": recipe.part("ensemble").digest(),
            "study.ensemble": gathered.ensemble.id,
            "study.singles": " ".join(run.id for run in gathered.singles),
        },
        description=recipe.why or None,
    )
    with run:
        run.text("recipe.toml", dump(recipe))
        for name, table in (("correlations", correlations), ("points", points), ("curves", curves)):
            run.table(name, table)
        run.log(_metrics(correlations))
        sections = _sections(gathered, dataset, correlations, points, curves)
        for section in sections:
            run.figure(section.figure, f"figures/{section.id}.png")
        with tempfile.TemporaryDirectory() as folder:
            page = write_report(
                Path(folder) / "report.html",
                title=f"How consistent is each example of {recipe.data.title}?",
                facts=facts,
                correlations=correlations,
                figures=sections,
                tables=_tables(gathered, points),
                sources=[
                    Source(each.id, f"{each.experiment}: {each.name}", store.link(each)) for each in gathered.runs
                ],
            )
            run.file(page)
    return store.get(run.id)


def _metrics(correlations: pd.DataFrame) -> dict[str, float]:
    means = mean_over_repeats(correlations)
    metrics = {}
    for group, reference, part in (
        ("rank", "cscore", "all"),
        ("unsaturated", "cscore", "unsaturated"),
        ("soft", "cscore_soft", "all"),
        ("published", "published", "all"),
    ):
        for row in means[(means["reference"] == reference) & (means["part"] == part)].itertuples():
            metrics[f"{group}/spearman/{row.proxy}"] = row.spearman
            metrics[f"{group}/kendall/{row.proxy}"] = row.kendall
    return metrics


def _sections(
    gathered: Gathered, dataset: Dataset, correlations: pd.DataFrame, points: pd.DataFrame, curves: pd.DataFrame
) -> list[Section]:
    """Every figure with the one line that says what it shows."""
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
            figures.proxy_ranking(correlations),
        ),
        Section(
            "suspects",
            "Look at these first",
            "The lowest C-scores of all: mislabeled, ambiguous or unlike anything "
            "else; in colour what networks answer that have not seen them.",
            figures.suspects(images, train, classes, maximum=dataset.maximum),
        ),
        Section(
            "J-fig4",
            "Regular and irregular, class by class",
            "Examples with high, middle and low C-scores of each class.",
            figures.example_grid(images, train, classes, maximum=dataset.maximum),
        ),
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
            figures.consistency_profile(train, dataset.n_classes),
        ),
        Section(
            "J-fig5",
            "Is one ratio enough?",
            "How well the scores at one ratio rank the examples as all ratios together do.",
            figures.point_estimates(points),
        ),
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
            figures.hidden_density_by_epoch(mean_curves),
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
            figures.confidence_by_epoch(mean_curves),
        ),
        Section(
            "J-tab1",
            "Density in input space",
            "The kernel densities of the raw pixels against the C-score, beside the paper's numbers.",
            figures.density_table(correlations, name=dataset.name),
        ),
    ]


def _tables(gathered: Gathered, points: pd.DataFrame) -> list[Table]:
    lowest = gathered.cscores.dropna(subset=["cscore"]).sort_values(["cscore", "cscore_soft"], kind="stable")
    columns = ["example", "label", "consensus", "cscore", "cscore_soft", "stderr", "held_out"]
    return [
        Table(
            "Lowest C-scores", lowest[columns], "All of them, test examples too, are in the ensemble's cscore.parquet."
        ),
        Table("Point estimates", points, "Rank correlation of each ratio's C-score with the integral one (J-fig5)."),
    ]
