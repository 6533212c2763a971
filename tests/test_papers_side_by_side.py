"""Figures over runs that differ in more than the recipes of one paper do."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from study.experiments.compare import Comparison, compare_runs
from study.experiments.page import write_folder
from study.experiments.reproduce import reproduce
from study.figures.depth_members import by_depth_of_one
from study.runs.reference import log_reference
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def store(stores):
    return stores()


def test_learning_curves_fall_back_on_published_scores(store, tmp_path):
    """A single run on CIFAR-10 is grouped by the authors' C-scores, without an ensemble of one's own (J-fig10)."""
    dataset = blobs()
    recipe = toy_recipe("single", train={"epochs": 2, "batch_size": 16}, single={"repeats": 1})
    runs = run_singles(recipe, dataset, store)
    assert not compare_runs(runs, store).learning_curves
    scores = np.linspace(0, 1, dataset.n_train)
    file = tmp_path / "published.csv"
    pd.DataFrame({"label": dataset.labels[: dataset.n_train], "cscore": scores}).to_csv(file, index=False)
    log_reference(file, dataset.name, dataset, store)
    (curves,) = compare_runs(runs, store).learning_curves
    np.testing.assert_allclose(curves.cscore, scores)
    assert curves.ensemble == "published.csv"


def test_no_figure_of_capacity_where_two_trainings_share_size_and_noise(tmp_path):
    """Two data sets, or depths, of one width: lines over the widths would join what differs in other things too."""
    capacity = pd.DataFrame(
        {
            "noise.share": ["0.0", "0.4", "0.0"],
            "model.settings.widths": ["8", "8", "8"],
            "test/accuracy": [0.9, 0.6, 0.8],
            "epochs to fit": [3.0, 9.0, 4.0],
        }
    )
    empty = pd.DataFrame(columns=["score", "split", "pearson", "spearman", "kendall"])
    files = write_folder(Comparison(pd.DataFrame(), empty, [], [], capacity), tmp_path)
    assert {"capacity.csv"} == {file.name for file in files} & {"capacity.csv", "capacity.png"}


def test_one_panel_where_nothing_is_said_of_accuracy():
    """Of the entropy against the depth in one network there is no second panel (B-entropy)."""
    table = pd.DataFrame({"depth": [0, 1], "entropy": [0.1, 0.4], "share": [0.7, 0.3]})
    assert len(by_depth_of_one({"mlp": table}, {}, "entropy", "entropy of the others").axes) == 1


def single(network, accuracy, **params):
    """A finished single run as the store gives it."""
    params = {"data.name": "parquet", "model.name": network, "train.epochs": "2", **params}
    return SimpleNamespace(
        id=network,
        experiment="cifar10/single",
        params=params,
        tags={"study.kind": "single", "study.data": "d", "study.device": "cpu"},
        metrics={"test/accuracy": accuracy},
        files=[],
        started=1_700_000_000_000,
        read_series=lambda name: [(1, accuracy)],
    )


@pytest.mark.parametrize(("condition", "expected"), [("optimizer.name=adam", "other scale"), ("", "no run")])
def test_another_network_is_shown_for_an_optimizer_and_never_judged(condition, expected):
    """J-tab3 compares optimizers, B-tab2 networks; files with the label cifar10 are CIFAR-10."""
    number = {"id": "J-tab3", "statistic": "last_epochs_accuracy", "data": "cifar10", "network": "resnet18_small"}
    number |= {"paper": 0.9297, "place": "Jiang, Table 3", "condition": condition}
    runs = [single("mlp", 0.93, **{"optimizer.name": "adam"})]
    store = SimpleNamespace(find=lambda kind, status: runs if kind == "single" else [])
    (row,) = reproduce(store, pd.DataFrame([number])).to_dict("records")
    assert row["verdict"] == expected
    runs.append(single("resnet18_small", 0.9297, **{"optimizer.name": "adam"}))
    (row,) = reproduce(store, pd.DataFrame([number])).to_dict("records")
    assert (row["verdict"], row["ours_data"]) == ("agrees", "cifar10")


def test_an_mlp_of_other_widths_is_not_the_papers():
    """B-tab2 has the accuracies of seven layers of 2048."""
    number = {"id": "B-tab2", "statistic": "test_accuracy", "data": "cifar10", "network": "mlp"}
    numbers = pd.DataFrame([number | {"paper": 0.59, "place": "Baldock, Table 2", "condition": ""}])
    verdicts = []
    for settings in ({}, {"widths": "512, 256"}, {"widths": ", ".join(7 * ["2048"])}):
        runs = [single("mlp", 0.59, **{f"model.settings.{name}": value for name, value in settings.items()})]
        store = SimpleNamespace(find=lambda kind, status, runs=runs: runs if kind == "single" else [])
        verdicts += reproduce(store, numbers)["verdict"].tolist()
    assert verdicts == ["no run", "no run", "agrees"]
