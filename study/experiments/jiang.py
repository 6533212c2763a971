"""C-scores over optimizers, data sets and ratios (Jiang et al.).  in: groups of finished runs   out: figures, tables"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from study.data import Dataset
from study.data.digest import digest_of
from study.errors import AnalysisError
from study.experiments.baldock import name_of
from study.experiments.compare import curves_of, last_epochs
from study.experiments.findings import Finding, FinishedRuns, numbered, recipe_of, title_of
from study.experiments.paper_numbers import beside_paper
from study.experiments.select import Group
from study.figures.classes import class_statistics as draw_classes
from study.figures.classes import class_table
from study.figures.exemplars import exemplar_grid, point_estimates_of
from study.figures.side_by_side import learning_curves_side_by_side
from study.figures.style import png_bytes
from study.runs.shards import held_out_predictions
from study.runs.single import run_singles
from study.scores.point_estimates import FirstPredictions, correlations_with_integral, fewest_held_out
from study.scores.subsets import percent
from study.tracking import Run

WIDTH = 0.1  # of the groups of C-scores that are made equal
SMALLEST = 10  # examples of a group that counts; smaller ones are left out
PERCENTILES = (1, 35, 99)  # of J-fig7
CLASSES = 5  # that J-fig7 shows


def optimizer_accuracies(runs: FinishedRuns) -> Iterator[Finding]:
    """Test accuracies of optimizers and schedules beside the paper's (J-tab3)."""
    note = (
        "Test accuracy over the evaluations of the last ten epochs, mean and SD over the repeats. The paper's are of a "
        "ResNet-18 on CIFAR-10 after 200 epochs."
    )
    table = beside_paper(runs.of_kind("single"), "J-tab3", "last_epochs_accuracy", last_epochs)
    yield Finding("J-tab3", "Test accuracy of each optimizer (J-tab3)", note, table=table)


def point_estimates(runs: FinishedRuns) -> Iterator[Finding]:
    """Rank correlation of single ratios with the integral C-score, over data sets and at equal numbers (J-fig5)."""
    parts = []
    for group in runs.of_kind("ensemble"):
        dataset, recipe = runs.dataset(group), recipe_of(group.runs[0])
        if len(recipe.subset.ratios) < 2:
            continue
        train = dataset.rows("train")
        table = group.runs[0].read_table("cscore.parquet")
        integral = _scores(table, "cscore")[train]
        every = {ratio: _scores(table, f"cscore_{percent(ratio)}")[train] for ratio in recipe.subset.ratios}
        count = fewest_held_out(held_out_predictions(runs.store, recipe, dataset), dataset.n_train)
        equal = FirstPredictions(count, dataset.n)
        for ratio, correct, held_out in held_out_predictions(runs.store, recipe, dataset):
            equal.add(ratio, correct, held_out)
        first = {ratio: values[train] for ratio, values in equal.estimates().items()} if count else {}
        for estimates, predictions in ((every, "all"), (first, f"{count} of each")):
            correlated = correlations_with_integral(estimates, integral)
            parts.append(correlated.assign(group=name_of(group), predictions=predictions, equal=estimates is first))
    if not parts:
        raise AnalysisError("needs an ensemble with several subset ratios")
    table = pd.concat(parts, ignore_index=True)
    note = (
        "Left: all held-out predictions, of which a small ratio has more than a large one. Right: as many of each "
        "ratio as the ratio with the fewest has. The integral C-score is that of all predictions on both sides. "
        "The paper's best ratios: MNIST 10 %, CIFAR-10 30 %, CIFAR-100 40 to 50 %."
    )
    title = "One subset ratio in place of all (J-fig5)"
    yield Finding("J-fig5", title, note, png_bytes(point_estimates_of(table)), table)


def class_statistics(runs: FinishedRuns) -> Iterator[Finding]:
    """Mean and standard deviation of the C-scores of each class, their joint histogram (J-fig6)."""
    for name, group in numbered("J-fig6", runs.of_kind("ensemble")):
        dataset = runs.dataset(group)
        train = _training_scores(group.runs[0], dataset)
        table = class_table(train, dataset.n_classes).assign(name=dataset.classes)
        title = title_of("C-scores by class (J-fig6)", group)
        yield Finding(name, title, "", png_bytes(draw_classes(train, dataset.classes)), table)


def class_exemplars(runs: FinishedRuns) -> Iterator[Finding]:
    """Examples at the top 1, 35 and 99 percent of classes with different means and spreads (J-fig7)."""
    for name, group in numbered("J-fig7", runs.of_kind("ensemble")):
        dataset = runs.dataset(group)
        train = _training_scores(group.runs[0], dataset)
        chosen = percentile_examples(train, representative_classes(class_table(train, dataset.n_classes)))
        figure = exemplar_grid(dataset.images, train, chosen, dataset.classes, maximum=dataset.maximum)
        table = chosen.assign(example=dataset.ids[np.asarray(chosen["row"])])
        note = (
            "Ranked by C-score within the class, the highest first; of equal scores the soft C-score decides. The "
            "histograms of the classes have a logarithmic axis each."
        )
        yield Finding(name, title_of("Examples of chosen classes (J-fig7)", group), note, png_bytes(figure), table)


def representative_classes(table: pd.DataFrame, count: int = CLASSES) -> list[int]:
    """Classes spread evenly over the ranking by mean C-score, the highest first; the paper's five were chosen by eye.

    Args:
        table: of `class_table`.
        count: of the classes, at most as many as there are.
    """
    mean, sd = _scores(table, "mean"), _scores(table, "sd")
    ranked = np.lexsort((sd, -mean))[: np.count_nonzero(np.isfinite(mean))]
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return ranked[places].tolist()


def percentile_examples(cscores: pd.DataFrame, labels: list[int], per: int = 3) -> pd.DataFrame:
    """The examples of each class around the top 1, 35 and 99 percent of its ranking by C-score (J-fig7).

    Args:
        cscores: `label` `cscore` `cscore_soft` of the training rows.
        labels: classes.
        per: examples around each percentile.

    Returns:
        label | percentile | row | cscore.  No example stands at two percentiles of a class of at least 3 * per.
    """
    hard, soft, of_rows = _scores(cscores, "cscore"), _scores(cscores, "cscore_soft"), np.asarray(cscores["label"])
    rows = []
    for label in labels:
        of_class = np.flatnonzero((of_rows == label) & np.isfinite(hard))
        ranked = of_class[np.lexsort((-soft[of_class], -hard[of_class]))]
        for percentile in PERCENTILES:
            middle = round(percentile / 100 * (len(ranked) - 1))
            low = int(np.clip(middle - per // 2, 0, max(len(ranked) - per, 0)))
            rows += [(label, percentile, int(row), float(hard[row])) for row in ranked[low : low + per]]
    return pd.DataFrame(rows, columns=["label", "percentile", "row", "cscore"])


def equal_groups(runs: FinishedRuns) -> Iterator[Finding]:
    """Learning curves by C-score after the groups were made equally large and the network was trained anew (J-fig16).

    This analysis trains a single run, which the next one finds finished.
    """
    ensembles = {group.data: group for group in runs.of_kind("ensemble")}
    pairs = [(group, ensembles[group.data]) for group in runs.of_kind("single") if group.data in ensembles]
    if not pairs:
        raise AnalysisError("needs single runs and an ensemble on the same data; a recipe of kind study trains both")
    for name, group in numbered("J-fig16", [group for group, _ in pairs]):
        ensemble, dataset = ensembles[group.data].runs[0], runs.dataset(group)
        recipe = recipe_of(group.runs[0])
        cscore = _scores(ensemble.read_table("cscore.parquet"), "cscore")[dataset.rows("train")]
        rows = equal_rows(cscore, recipe.stream("equal groups of C-scores"))
        trained = run_singles(recipe, training_rows_alone(dataset, rows), runs.store)
        whole = replace(curves_of(group, ensemble), label=f"all {dataset.n_train} examples")
        curves = [whole, curves_of(_group_of(trained, dataset, rows), ensemble)]
        figure = learning_curves_side_by_side(curves, width=WIDTH)
        note = (
            f"Left: all {dataset.n_train} training examples. Right: the same training on {len(rows)}, as many of each "
            f"group as the smallest group of at least {SMALLEST} has, over as many epochs, which are fewer steps. "
            f"Groups of C-scores are {WIDTH} wide."
        )
        yield Finding(name, title_of("Groups of equal size, trained anew (J-fig16)", group), note, png_bytes(figure))


def equal_rows(cscore: np.ndarray, rng: np.random.Generator, *, width: float = WIDTH) -> np.ndarray:
    """Row numbers of equally many examples of each group of C-scores, drawn at random (J-fig16).

    Args:
        cscore: (n,) NaN where missing.
        rng: draws them.
        width: of a group; a score of 1 belongs to the last one.

    Returns:
        Rising; as many of each group as the smallest group of at least ten examples has, smaller groups left out.

    Raises:
        AnalysisError: fewer than two groups of that size.
    """
    last = round(1 / width) - 1
    place = np.where(np.isfinite(cscore), np.minimum((np.nan_to_num(cscore) + 1e-9) // width, last), -1)
    groups = [np.flatnonzero(place == each) for each in range(last + 1)]
    groups = [rows for rows in groups if len(rows) >= SMALLEST]
    if len(groups) < 2:
        raise AnalysisError(f"needs two groups of C-scores with at least {SMALLEST} examples each; train more members")
    size = min(map(len, groups))
    return np.sort(np.concatenate([rng.choice(rows, size, replace=False) for rows in groups]))


def training_rows_alone(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The data set with these training rows, (k,) rising numbers, and all test rows."""
    kept = np.r_[rows, dataset.n_train : dataset.n]
    images, labels, ids = dataset.images[kept], dataset.labels[kept], dataset.ids[kept]
    before = dataset.labels_before_noise
    return replace(
        dataset,
        images=images,
        labels=labels,
        ids=ids,
        n_train=len(rows),
        files=None if dataset.files is None else dataset.files[kept],
        labels_before_noise=None if before is None else before[kept],
        planted=None if dataset.planted is None else dataset.planted[kept],
        digest=digest_of(images, labels, ids, len(rows)),
        spec=None,
    )


def _scores(table: pd.DataFrame, name: str) -> np.ndarray:
    return np.asarray(table[name], dtype=float)


def _training_scores(run: Run, dataset: Dataset) -> Any:
    """cscore.parquet of the training rows."""
    return run.read_table("cscore.parquet").iloc[: dataset.n_train].reset_index(drop=True)


def _group_of(trained: list[Run], dataset: Dataset, rows: np.ndarray) -> Group:
    label = f"equal groups: {len(rows)} of {dataset.n_train} examples"
    return Group(label, "single", trained[0].tags["study.data"], tuple(trained), {})
