"""Arpit's analyses are what loops over the runs' files say."""

import numpy as np
import pytest

from study.analysis.by_epoch import trajectory
from study.data.types import NoiseSpec
from study.experiments.arpit import capacity_and_time, epochs_to_fit, fitting_curves, has_noise
from study.experiments.compare import compare_runs
from study.experiments.page import write_folder
from study.experiments.select import group_runs
from study.figures.fitting import accuracy_by_size
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def runs(store):
    """Two widths, clean labels and 40 % random ones, two repeats each."""
    trained = []
    for width in (4, 32):
        for share in (0.0, 0.4):
            noise = {"labels": "symmetric", "share": share} if share else {}
            model = {"name": "mlp", "settings": {"widths": [width]}}
            recipe = toy_recipe(
                "single", proxies={"cbtl": {}}, single={"repeats": 2}, noise=noise, model=model, train={"epochs": 8}
            )
            data = blobs().with_noise(NoiseSpec(**noise)) if share else blobs()
            trained += run_singles(recipe, data, store)
    return trained


def test_curves_by_kind_of_label_are_those_of_a_loop(runs):
    """Changed labels are the training examples whose label is not the clean one; means over the repeats (A-noise)."""
    groups = group_runs(runs)
    assert has_noise(groups)
    noisy = groups[1]
    curves = fitting_curves(noisy)
    expected = []
    for run in noisy.runs:
        table, correct = run.read_table("scores.parquet"), trajectory(run)["correct"]
        rows = [i for i, row in table.iterrows() if row["split"] == "train" and row["label"] != row["clean_label"]]
        expected.append([np.mean([epoch[i] for i in rows]) for epoch in correct])
    assert curves.changed == pytest.approx(np.mean(expected, axis=0))
    assert np.isnan(fitting_curves(groups[0]).changed).all()


def test_the_time_to_fit_is_the_first_epoch_with_all_labels_right(runs):
    """NaN where a label is wrong to the end, not the last epoch (A-time)."""
    for run in runs:
        accuracy = [value for _, value in run.read_series("train/accuracy")]
        first = next((epoch for epoch, value in enumerate(accuracy, 1) if value == 1), np.nan)
        assert epochs_to_fit(run) == pytest.approx(first, nan_ok=True)


def test_a_row_per_size_and_share(runs):
    """Clean accuracy at the end, means over the repeats (A-capacity)."""
    groups = group_runs(runs)
    table = capacity_and_time(groups, [fitting_curves(group) for group in groups])
    assert table["noise.share"].tolist() == ["0.0", "0.4"] * 2
    assert table["model.settings.widths"].tolist() == ["4", "4", "32", "32"]
    expected = [np.mean([run.metrics["test/accuracy"] for run in runs[row : row + 2]]) for row in range(0, 8, 2)]
    assert table["test/accuracy"].tolist() == pytest.approx(expected)
    figure = accuracy_by_size(table, "model.settings.widths", "noise.share")
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]


def test_a_comparison_over_noise_has_its_figures(runs, store, tmp_path):
    """`study compare` and the end of a sweep write them beside the others."""
    names = {file.name for file in write_folder(compare_runs(runs, store), tmp_path)}
    assert {"fitting.png", "capacity.png", "capacity.csv", "comparison.html"} <= names
