"""Ensembles that stop when their scores are good enough, as trained, resumed, planned and reported."""

import threading

import numpy as np
import pytest

from study.errors import RecipeError, Stopped
from study.recipe import flatten
from study.recipe.subset import Until
from study.runs import ensemble
from study.runs.ensemble import run_ensemble, size_text
from study.runs.rounds import ROUNDS, members_of
from study.workflows.plan import plan_study
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

SUBSET = {"ratios": [0.3, 0.7], "members": 90, "until": {"stderr": 0.07}}


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe(subset=SUBSET, kind="ensemble", train={"epochs": 1}, runtime={"shard": 10})


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def run(recipe, dataset, store):
    return run_ensemble(recipe, dataset, store)


def same(one, other):
    return all(one.read(name).read_bytes() == other.read(name).read_bytes() for name in ("cscore.parquet", ROUNDS))


def test_rounds_end_at_the_target(run, dataset):
    """The last value is the run's standard error, and it is the first that is small enough."""
    rounds = run.read_json(ROUNDS)
    values = [each["measured"] for each in rounds]
    assert len(rounds) > 1
    assert [value <= 0.07 for value in values] == [False] * (len(rounds) - 1) + [True]
    assert values[-1] == pytest.approx(np.nanmean(run.read_table("cscore.parquet")["stderr"][: dataset.n_train]))


def test_the_run_has_the_members_of_its_last_round(run, store):
    shards = store.find("shard", parent=run)
    trained = {}
    for shard in shards:
        trained[shard.params["ratio"]] = trained.get(shard.params["ratio"], 0) + len(
            shard.read_arrays("members.npz")["member"]
        )
    assert trained == run.read_json(ROUNDS)[-1]["members"]
    assert members_of(run) == list(trained.values())
    assert max(trained.values()) < 90


def test_the_same_again_is_finished(run, recipe, dataset, store, monkeypatch):
    monkeypatch.setattr(ensemble, "_train", None)
    assert run_ensemble(recipe, dataset, store).id == run.id


def test_interrupted_in_a_later_round_it_comes_to_the_same(run, recipe, dataset, stores, monkeypatch):
    store, stop, write = stores(), threading.Event(), ensemble.write_shard
    first = sum(run.read_json(ROUNDS)[0]["members"].values()) // 10

    def stopping(*what):
        written = write(*what)
        if len(store.find("shard")) > first:
            stop.set()
        return written

    with monkeypatch.context() as patched:
        patched.setattr(ensemble, "write_shard", stopping)
        with pytest.raises(Stopped):
            run_ensemble(recipe, dataset, store, stop=stop)
    assert same(run_ensemble(recipe, dataset, store), run)


def test_members_of_another_ensemble_are_used_and_change_nothing(run, recipe, dataset, stores):
    store = stores()
    fixed = recipe.subset.model_copy(update={"until": Until(), "members": 30})
    run_ensemble(recipe.model_copy(update={"subset": fixed}), dataset, store)
    assert same(run_ensemble(recipe, dataset, store), run)


def test_a_plan_predicts_the_networks_once_some_are_trained(run, recipe, dataset, store, stores):
    assert "at most" in plan_study(recipe, dataset, stores())["ensemble"].note
    finished = plan_study(recipe, dataset, store)["ensemble"]
    assert (finished.networks, finished.seconds) == (sum(members_of(run)), 0)
    tighter = recipe.subset.model_copy(update={"until": Until(stderr=0.06)})
    cost = plan_study(recipe.model_copy(update={"subset": tighter}), dataset, store)["ensemble"]
    assert finished.networks < cost.networks <= 180
    assert "predicted" in cost.note


def test_an_ensemble_of_its_own_size(run, recipe):
    """Its tag, name and params tell it from one of 90 members; a recipe without the table has no such params."""
    assert "≤90x2" in run.name
    assert size_text(run.tags["study.size"]).startswith("at most 90")
    assert run.params["subset.until.stderr"] == "0.07"
    assert not any("until" in name for name in flatten(toy_recipe(subset=SUBSET | {"until": {}})))


def test_one_target_at_a_time():
    with pytest.raises(RecipeError, match="set reliability or stderr, not both"):
        toy_recipe(subset=SUBSET | {"until": {"stderr": 0.1, "reliability": 0.9}})
