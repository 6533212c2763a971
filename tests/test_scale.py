"""A store of many runs, in miniature: what grows with the runs, and what must not."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from study import data
from study.recipe import load
from study.runs import ensemble
from study.runs.shards import finished_shards
from study.tracking import Run, open_store
from study.workflows.plan import plan_study

pytest_plugins = ["tests.tracking_fixtures"]
REPOSITORY = Path(__file__).parents[1]
SETTINGS = ["kind=ensemble", "subset.members=20", "subset.ratios=[0.1, 0.5]", "runtime.shard=2"]


@pytest.fixture(scope="module")
def made_up(stores):
    """Recipe, data and a store of an ensemble of 40 members in 20 shards, made by the script that makes large ones."""
    script = REPOSITORY / "scripts" / "made_up_store"
    sys.path.insert(0, str(script.parent))
    loader = importlib.machinery.SourceFileLoader("made_up_store", str(script))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("made_up_store", loader))
    loader.exec_module(module)
    store = stores()
    module.make(REPOSITORY / "recipes" / "digits" / "study.toml", store.root, SETTINGS)
    recipe = load(REPOSITORY / "recipes" / "digits" / "study.toml", SETTINGS)
    return recipe, data.open_data(recipe.data, recipe.noise, seed=recipe.seed), store


def test_the_script_makes_an_ensemble(made_up):
    """Its shards are read as trained ones are."""
    recipe, dataset, store = made_up
    assert len(store.find()) == 21
    _, done, _ = finished_shards(store, recipe, dataset)
    assert len(done) == 40


def test_a_finished_ensemble_is_found_without_its_shards(made_up, monkeypatch):
    """`run` read 1,800 files to say that all is there."""
    recipe, dataset, store = made_up
    read, files = Run.read, []
    monkeypatch.setattr(Run, "read", lambda run, name: files.append(name) or read(run, name))
    assert plan_study(recipe, dataset, store)["ensemble"].done == 40
    ensemble.run_ensemble(recipe, dataset, store)
    assert files
    assert "members.npz" not in files


def test_runs_are_listed_without_mlflow(made_up):
    """Its import alone takes three seconds."""
    root = made_up[2].root
    script = f"""
import sys
from pathlib import Path
from study.tracking import open_store
assert len(open_store(Path({str(root)!r})).find("shard")) == 20
print([name for name in ("mlflow", "torch", "sqlalchemy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_runs_read_from_the_database_are_those_of_mlflow(made_up):
    """Two ways to one truth: parameters, tags, metrics, order."""
    store = made_up[2]
    for run in store.find():
        result = Run.of(store, store.client.get_run(run.id), run.experiment)
        assert result == run
    client_order = [run.id for run in store._pages(None, "")]
    assert [run.id for run in open_store(store.root).find()] == client_order
