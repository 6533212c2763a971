"""Arpit's analyses of noise and regularizers are what loops over the runs' files say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from study.data.types import NoiseSpec
from study.experiments.analyses import run_analyses
from study.experiments.arpit import FittingCurves
from study.experiments.arpit_analyses import (
    CRITICAL,
    GINI,
    memorized_at_equal_accuracy,
    off_diagonal_share,
    regularizer_of,
    regularizer_table,
    series_table,
)
from study.experiments.findings import FinishedRuns
from study.experiments.select import Group, group_runs
from study.figures.memorization import trade_off_curves
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def runs(stores):
    """Real and random labels, two repeats each."""
    store, trained = stores(), []
    for share in (0.0, 1.0):
        noise = {"labels": "symmetric", "share": share} if share else {}
        recipe = toy_recipe(
            "single",
            proxies={"loss_sensitivity": {}, "critical_sample_steps": {}},
            single={"repeats": 2, "signals_every": 1},
            noise=noise,
        )
        trained += run_singles(recipe, blobs().with_noise(NoiseSpec(**noise)) if share else blobs(), store)
    return FinishedRuns(group_runs(trained), store)


def test_series_are_means_over_the_repeats(runs):
    """Of each group and metric, epoch by epoch (A-sensitivity, A-csr)."""
    table = series_table(runs.groups, [GINI, *CRITICAL])
    assert table["group"].nunique() == 2
    for group, label in zip(runs.groups, ("real", "labels symmetric 1.0"), strict=True):
        for name in (GINI, *CRITICAL):
            rows = table[(table["group"] == label) & (table["metric"] == name)]
            points = [dict(run.read_series(name)) for run in group.runs]
            assert rows["epoch"].tolist() == sorted(points[0])
            assert rows["value"].tolist() == pytest.approx(
                [np.mean([each[epoch] for each in points]) for epoch in rows["epoch"]]
            )


def test_each_analysis_of_noise_draws(runs):
    """And gives a number per group, critical samples one per split."""
    findings = run_analyses(["A-sensitivity", "A-class", "A-csr"], runs)
    assert [finding.name for finding in findings] == ["A-sensitivity", "A-class", "A-csr"]
    assert all(finding.png for finding in findings)
    assert [len(finding.numbers) for finding in findings] == [2, 2, 4]


def test_classes_without_examples_do_not_count():
    """Their columns are NaN (A-class)."""
    assert off_diagonal_share(np.array([[2.0, 1.0, np.nan], [1.0, 2.0, np.nan], [1.0, 1.0, np.nan]])) == 0.5


def group(**params):
    return Group("", "single", "", (SimpleNamespace(params=params),), {})


def test_a_group_has_one_regularizer_or_none():
    """Told by its parameters; two at a time are on no curve."""
    assert regularizer_of(group(**{"optimizer.weight_decay": "0.0"})) == ("none", 0.0)
    assert regularizer_of(group(**{"model.settings.dropout": "0.5"})) == ("dropout", 0.5)
    assert regularizer_of(group(**{"train.input_noise": "0.5", "train.adversarial": "0.1"})) is None


def test_regularizers_are_compared_at_equal_accuracy():
    """Rows by strength, the last epoch; what costs accuracy does not count as less memorized (A-reg)."""
    groups = [
        group(**{"model.settings.dropout": "0.5"}),
        group(**{"model.settings.dropout": "0.1"}),
        group(),
        group(**{"train.input_noise": "2.0"}),
    ]
    ends = [(0.2, 0.9), (0.6, 0.8), (0.9, 0.8), (0.1, 0.5)]
    curves = [FittingCurves("", np.arange(2), *(np.array([0, end]) for end in (1, *each))) for each in ends]
    table = regularizer_table(groups, curves)
    assert table["regularizer"].tolist() == ["none", "dropout", "dropout", "input noise"]
    assert table["strength"].tolist() == [0, 0.1, 0.5, 2]
    assert table["changed"].tolist() == [0.9, 0.6, 0.2, 0.1]
    assert memorized_at_equal_accuracy(table) == {"dropout": 0.2}
    assert len(trade_off_curves(table).axes[0].lines) == 3
    assert memorized_at_equal_accuracy(pd.DataFrame(table[1:])) == {}
