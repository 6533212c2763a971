"""Jiang's analyses of many runs are what loops say."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study.errors import AnalysisError
from study.experiments.analyses import run_analyses
from study.experiments.findings import FinishedRuns
from study.experiments.jiang import equal_rows, percentile_examples, representative_classes, training_rows_alone
from study.experiments.select import group_runs
from study.experiments.sweep import CellData
from study.figures.classes import class_table
from study.runs.ensemble import run_ensemble
from study.runs.shards import held_out_predictions
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

SUBSET = {"ratios": [0.2, 0.8], "members": 10, "design": "balanced"}


@pytest.fixture(scope="module")
def dataset():
    return blobs(shape=(1, 3, 3))


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe("study", proxies={"cbtl": {}}, subset=SUBSET)


@pytest.fixture(scope="module")
def runs(stores, dataset, recipe):
    store = stores()
    trained = [run_ensemble(recipe, dataset, store), *run_singles(recipe, dataset, store)]
    return FinishedRuns(group_runs(trained), store, CellData(dataset))


def test_ratios_are_compared_at_equal_numbers_of_predictions(runs, recipe, dataset):
    """Ten members at 80 % hold an example out twice, those at 20 % eight times: the first two count (J-fig5)."""
    (finding,) = run_analyses(["J-fig5"], runs)
    table = finding.table.query("equal")
    assert set(table["predictions"]) == {"2 of each"}
    first: dict[float, list[list[bool]]] = {ratio: [[] for _ in range(dataset.n_train)] for ratio in (0.2, 0.8)}
    for ratio, right, held_out in held_out_predictions(runs.store, recipe, dataset):
        for member in range(len(right)):
            for row in np.flatnonzero(held_out[member, : dataset.n_train]):
                first[ratio][row].append(right[member, row])
    integral = runs.groups[0].runs[0].read_table("cscore.parquet")["cscore"][: dataset.n_train]
    for ratio, spearman in zip(table["ratio"], table["spearman"], strict=True):
        means = [np.mean(predictions[:2]) for predictions in first[ratio]]
        assert spearman == pytest.approx(stats.spearmanr(integral, means).statistic)


def test_groups_of_equal_size_are_trained_anew_once(runs, dataset):
    """On a part of the training examples; the next analysis finds the run (J-fig16)."""
    before = len(runs.store.find("single"))
    (finding,) = run_analyses(["J-fig16"], runs)
    assert finding.png[:4] == b"\x89PNG"
    trained = runs.store.find("single")
    run_analyses(["J-fig16"], runs)
    assert len(runs.store.find("single")) == len(trained) == before + 1
    sizes = [(run.read_table("scores.parquet")["split"] == "train").sum() for run in trained]
    assert min(sizes) < dataset.n_train


def test_equal_groups_have_as_many_as_the_smallest():
    """Of at least ten; a smaller group and examples without a score are left out."""
    cscore = np.r_[np.full(40, 1.0), np.full(25, 0.3), np.full(12, 0.0), np.full(5, 0.75), np.nan]
    rows = equal_rows(cscore, np.random.default_rng(0))
    assert pd.Series(cscore[rows]).value_counts().to_dict() == {1.0: 12, 0.3: 12, 0.0: 12}
    with pytest.raises(AnalysisError, match="needs two groups"):
        equal_rows(cscore[:40], np.random.default_rng(0))


def test_exemplars_stand_at_their_percentiles():
    """Of a hundred and one scores, the highest first: ranks 1, 35 and 99, with a neighbour on either side (J-fig7)."""
    scores = np.random.default_rng(0).permutation(101) / 100
    table = pd.DataFrame({"label": 0, "cscore": scores, "cscore_soft": scores})
    chosen = percentile_examples(table, [0])
    means = chosen.groupby("percentile")["cscore"].mean()
    assert means.to_dict() == pytest.approx({1: 0.99, 35: 0.65, 99: 0.01})


def test_classes_are_spread_over_the_ranking(runs, dataset):
    """The best, the worst, and between; both figures are drawn of them (J-fig6, J-fig7)."""
    table = pd.DataFrame({"label": np.repeat(range(9), 2), "cscore": np.repeat(np.arange(9) / 9, 2)})
    assert representative_classes(class_table(table, 9), 3) == [8, 4, 0]
    names = [finding.name for finding in run_analyses(["J-fig6", "J-fig7"], runs)]
    assert names == ["J-fig6", "J-fig7"]


def test_a_part_of_the_training_rows_has_its_own_digest(dataset):
    """Rows of the test split stay."""
    part = training_rows_alone(dataset, np.array([1, 3]))
    assert part.ids.tolist() == [*dataset.ids[[1, 3]], *dataset.ids[dataset.n_train :]]
    assert (part.n_train, part.n_test) == (2, dataset.n_test)
    assert part.digest != dataset.digest
