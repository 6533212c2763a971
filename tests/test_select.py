"""Which runs stand for a recipe, and which are repeats of one training."""

from dataclasses import replace

import pytest

from study.experiments.select import group_runs, runs_of
from study.experiments.sweep import run_sweep
from study.recipe import parse
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def runs(store):
    """Two repeats of one training."""
    recipe = toy_recipe("single", proxies={"cbtl": {}}, single={"repeats": 2}, train={"epochs": 1, "batch_size": 16})
    return run_singles(recipe, blobs(60, 15), store)


def test_runs_from_before_a_recipe_had_some_key_are_repeats_of_those_since(runs):
    """A key with a default says nothing about an older run that its absence would not."""
    first, newer = runs
    lacking = {"data.limit_test", "train.input_noise"}
    older = replace(first, params={name: value for name, value in first.params.items() if name not in lacking})
    (group,) = group_runs([older, newer])
    assert (group.label, group.differing, len(group.runs)) == ("single", {}, 2)
    older.params["optimizer.lr"] = "0.3"
    rates = [group.differing for group in group_runs([older, newer])]
    assert rates == [{"optimizer.lr": "0.3"}, {"optimizer.lr": newer.params["optimizer.lr"]}]


def test_the_last_run_of_a_repeat_counts(runs):
    """One that was scored again is not a second repeat."""
    _, second = runs
    (group,) = group_runs([*runs, second])
    assert [run.id for run in group.runs] == [run.id for run in runs]


def test_cells_that_differ_in_their_signals_alone_have_runs_of_their_own(store):
    """They are one training by its digest; the newest run stood for all of them."""
    base = toy_recipe("single", proxies={"prediction_depth": {}}, single={"keep": "final"}, train={"epochs": 1})
    recipe = parse({**base.model_dump(), "sweep": {"signals.probes.k": [5, 3]}}, "toy sweep")
    run_sweep(recipe, store, dataset=blobs(60, 15))
    found, _ = runs_of(recipe, store)
    assert len({run.id for run in found}) == 2
    assert [group.differing for group in group_runs(found)] == [{"signals.probes.k": "5"}, {"signals.probes.k": "3"}]
