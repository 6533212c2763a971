"""Ensembles on a Ray cluster of several nodes on this machine, where ray is installed."""

import importlib.util
import json
import os
import sys
import threading

import pandas as pd
import pytest

from study.errors import RecipeError, Stopped, StudyError
from study.runs.ensemble import run_ensemble
from study.runs.jobs import EnsemblePlan
from study.runs.members import Shard
from study.runs.ray_engine import _tasks, cluster, stacked
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

TABLES = ("cscore.parquet", "profile.parquet")
needed = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
quiet = pytest.mark.filterwarnings("ignore")  # of ray's own modules and processes


@pytest.fixture(scope="module")
def nodes():
    """A head without CPUs and three nodes of one; the driver is connected."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    many = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    added = [many.add_node(num_cpus=1) for _ in range(3)]
    ray.init(address=many.address, log_to_driver=False, logging_level="ERROR")
    yield many, added
    ray.shutdown()
    many.shutdown()


def launched(recipe, store, **more):
    """The ensemble on the cluster."""
    on_ray = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"engine": "ray"})})
    return run_ensemble(on_ray, blobs(), store, **more)


def same(run, whole) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(run.read_table(name), whole.read_table(name), check_exact=True)


class Acting:
    """A bar that acts whenever a shard is done."""

    def __init__(self, act) -> None:
        self.act = act

    def __enter__(self):
        return lambda count, *_: self.act()

    def __exit__(self, *_: object) -> None:
        pass


@needed
@quiet
def test_a_node_that_is_killed_costs_nothing_but_time(nodes, stores):
    """Scores as on one machine, bit for bit, and no shard twice; the node goes while its task trains."""
    many, added = nodes
    recipe = toy_recipe(train={"epochs": 200}, subset={"members": 12})
    whole = run_ensemble(recipe, blobs(), stores())
    store = stores()
    killed = []

    def kill():
        if not killed:  # its task is under way, as one of a later shard
            killed.append(many.remove_node(added[0], allow_graceful=False))

    run = launched(recipe, store, bar=lambda *what, **how: Acting(kill))
    assert killed
    assert run.status == "FINISHED"
    same(run, whole)
    shards = store.find("shard", parent=run)
    assert len({(each.params["ratio"], each.params["members"]) for each in shards}) == len(shards) == 12
    assert json.loads(run.tags["study.placement"])["threads"] == 1


@needed
@quiet
def test_a_driver_that_stops_goes_on_from_finished_shards(nodes, stores):
    """As after a kill: what was written is not trained again."""
    recipe = toy_recipe(subset={"members": 6})
    store, stop = stores(), threading.Event()
    with pytest.raises(Stopped):
        launched(recipe, store, stop=stop, bar=lambda *what, **how: Acting(stop.set))
    before = {each.id for each in store.find("shard", status="FINISHED")}
    assert 0 < len(before) < 6
    run = launched(recipe, store)
    assert before < {each.id for each in store.find("shard", status="FINISHED", parent=run)}
    same(run, run_ensemble(recipe, blobs(), stores()))


def test_ray_that_is_not_installed_is_one_line(monkeypatch):
    """The cure is the extra."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match="ray is not installed"), cluster(toy_recipe(), EnsemblePlan(), blobs()):
        pass


def test_what_no_node_has_is_said_at_once():
    """Ray itself would wait for such a node without a word."""
    nodes = [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}, {}]
    with pytest.raises(RecipeError, match="the Ray cluster has no GPU"):
        _tasks(nodes[:1], "cuda", 1)
    with pytest.raises(RecipeError, match="has 16 CPUs"):
        _tasks(nodes, "cpu", 16)
    assert _tasks(nodes, "auto", 1) == (1, 2)
    assert _tasks(nodes, "cpu", 3) == (0, 3)


def test_a_task_fills_a_stack_with_shards_of_one_ratio():
    """A stack on a GPU holds more members than a shard."""
    shards = [Shard(0.1, (0, 1)), Shard(0.1, (2, 3)), Shard(0.1, (4, 5)), Shard(0.2, (0, 1))]
    assert [len(block) for block in stacked(shards, 4)] == [2, 1, 1]
    assert [len(block) for block in stacked(shards, 1)] == [1, 1, 1, 1]
