"""Analyses that a recipe names by a figure's id."""

import numpy as np
import pytest

from study.errors import RecipeError
from study.experiments.analyses import check_analyses
from study.experiments.compare import last_epochs
from study.experiments.paper_numbers import beside_paper
from study.experiments.select import group_runs, runs_of
from study.experiments.sweep import run_sweep
from study.recipe import parse
from study.workflows.compare import work_comparison
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def recipe():
    """Two rates, one of which is in the paper's table, two repeats."""
    base = toy_recipe("single", proxies={"cbtl": {}}, train={"epochs": 12}).model_dump()
    return parse({**base, "sweep": {"optimizer.lr": [0.1, 0.03], "repeats": 2, "analyses": ["J-tab3"]}}, "toy sweep")


@pytest.fixture(scope="module")
def sweep(recipe, store):
    return run_sweep(recipe, store, dataset=blobs())


def test_an_unknown_id_names_the_nearest():
    """Before anything trains: `check_sweep` asks."""
    with pytest.raises(RecipeError, match="did you mean 'J-tab3'"):
        check_analyses(["J-tab4"])


def test_the_results_lie_with_the_sweeps_run(recipe, store, sweep):
    """The end of `study run`, and `study compare`, write what the recipe names beside the comparison."""
    (finding,) = work_comparison([recipe], "", store).findings
    assert "comparison/J-tab3.csv" in store.get(sweep.id).files
    assert finding.title in store.get(sweep.id).read("comparison/comparison.html").read_text(encoding="utf-8")


def test_accuracies_stand_beside_the_papers(recipe, store, sweep):
    """Rate .1 without a schedule is a row of J-tab3, .03 is none."""
    groups = group_runs(runs_of(recipe, store)[0])
    table = beside_paper(groups, "J-tab3", "last_epochs_accuracy", last_epochs)
    values = [[last_epochs(run) for run in group.runs] for group in groups]
    assert table["last_epochs_accuracy"].tolist() == pytest.approx(np.mean(values, axis=1))
    assert table["SD"].tolist() == pytest.approx(np.std(values, axis=1, ddof=1))
    assert table["paper"].tolist() == pytest.approx([0.8484, np.nan], nan_ok=True)
