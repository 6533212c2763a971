"""Predicted classes recorded between steps, for the iteration that an example is learned at (B-learned)."""

import numpy as np
import pytest

from study.experiments.baldock_single import learning_curve
from study.experiments.select import group_runs
from study.proxies.learning_speed import iteration_learned
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

EPOCHS, PER_EPOCH = 3, 4  # 60 examples in batches of 16


@pytest.fixture(scope="module")
def runs(stores):
    """The same training without and with records of every third step."""
    proxies = {"iteration_learned": {}, "prediction_depth": {}}
    of = [
        toy_recipe("single", proxies=proxies, train={"epochs": EPOCHS, "batch_size": 16}, single=single)
        for single in ({}, {"evaluate_steps": 3, "signals_every": 3, "keep": "final"})
    ]
    store = stores()
    return [run_singles(recipe, blobs(60, 15), store)[0] for recipe in of]


def test_every_third_step_is_recorded_and_the_training_is_the_same(runs):
    """Before the first step too; at epoch ends the records are those of a training without them."""
    by_epochs, by_steps = (run.read_arrays("trajectory.npz") for run in runs)
    assert by_steps["predicted_steps"].tolist() == [0, 3, 6, 9, 12]
    assert "predicted_steps" not in by_epochs
    assert (by_steps["correct"] == by_epochs["correct"]).all()
    assert (by_steps["predicted"][[0, 4]] == by_epochs["predicted"][[0, 3]]).all()


def test_the_iteration_learned_counts_steps(runs):
    """The proxy reads the finer series; its unit is the 95th percentile all the same."""
    run = runs[1]
    predicted = run.read_arrays("trajectory.npz")["predicted"][:, :60]
    column = run.read_table("scores.parquet")["iteration_learned"][:60]
    np.testing.assert_allclose(column, iteration_learned(predicted), rtol=1e-6)


def test_learning_curves_have_parts_of_epochs(runs):
    """Step 3 of 4 is three quarters of the first epoch (B-fig5 middle)."""
    curve = learning_curve(group_runs([runs[1]])[0])
    at = sorted(set(curve["at"]))
    assert at == [0, 0.75, 1.5, 2.25, 3.0]


def test_scoring_keeps_the_records(runs):
    """`study score` copies the training; the steps were lost with the rest of the header."""
    (run,) = runs[1:]
    proxies = {"iteration_learned": {}, "prediction_depth": {}, "output_margin": {}}
    train, single = {"epochs": EPOCHS, "batch_size": 16}, {"evaluate_steps": 3, "signals_every": 3, "keep": "final"}
    recipe = toy_recipe("single", proxies=proxies, train=train, single=single)
    (scored,) = run_singles(recipe, blobs(60, 15), run.store)
    assert scored.tags["study.scored_from"] == run.id
    assert (scored.read_arrays("trajectory.npz")["predicted"] == run.read_arrays("trajectory.npz")["predicted"]).all()
    assert scored.read_arrays("trajectory.npz")["predicted_steps"].tolist() == [0, 3, 6, 9, 12]
