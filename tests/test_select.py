"""Which runs stand for a recipe, and which are repeats of one training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from study.experiments.baldock import name_of
from study.experiments.select import Group, group_runs, runs_of
from study.experiments.sweep import run_sweep
from study.figures.depth_members import CELLS, _levels
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


def group(**differing):
    """A group that differs in these parameters, and has them."""
    params = {"data.name": "digits", "model.name": "mlp", **differing}
    return Group("a label", "single", "data", (SimpleNamespace(params=params, experiment="digits/single"),), differing)


def test_short_names_keep_what_differs():
    """A label in a narrow place was cut in its middle, where the widths stand."""
    widths = {"model.settings.widths": "256, 128", "optimizer.name": "sgd", "optimizer.lr": ""}
    assert group(**widths).short == "widths 256-128, optimizer sgd"
    assert name_of(group()) == "digits, mlp"


def test_networks_that_differ_in_noise_too_have_names_of_their_own():
    """They were one entry of a figure, the last one."""
    names = []
    for labels, share in (("none", "0.0"), ("symmetric", "0.4")):
        noise = {"noise.labels": labels, "noise.share": share}
        names += [name_of(group(**noise)), name_of(group(**{"model.settings.widths": "8, 8", **noise}))]
    assert names == ["real", "2 x 8, real", "labels symmetric 0.4", "2 x 8, labels symmetric 0.4"]


def test_few_values_have_a_row_of_the_histogram_each():
    """Ten networks have eleven shares; thirty rows left two in three empty."""
    assert _levels(np.arange(11) / 10) == 11
    assert _levels(np.linspace(0, 1, 500)) == CELLS
