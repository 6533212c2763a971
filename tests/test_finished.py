"""A second command of a finished study: when the record of the first one counts."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from study import data, tracking
from study.recipe import load
from study.workflows import finished

pytest_plugins = ["tests.tracking_fixtures"]
RECIPE = '[data]\nname = "digits"\nlimit = 40\n[model]\nname = "mlp"\n[train]\nepochs = 1\n'


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return load(file, [])


@pytest.fixture(scope="module")
def dataset(recipe):
    return data.open_data(recipe.data, recipe.noise, seed=recipe.seed)


@pytest.fixture
def store(tmp_path, template):
    shutil.copyfile(template, tmp_path / "mlflow.db")
    return tracking.open_store(tmp_path)


def logged(store, dataset, kind: str):
    """A finished run with one file."""
    run = store.start(f"digits/{kind}", kind, params={}, tags={"study.kind": kind, "study.data": dataset.digest})
    with run:
        run.arrays("values.npz", values=np.arange(3))
    return store.get(run.id)


@pytest.fixture
def runs(store, recipe, dataset):
    """An ensemble and a report, recorded as finished."""
    ended = [logged(store, dataset, "ensemble"), logged(store, dataset, "report")]
    finished.mark_finished(ended, recipe, dataset)
    return ended


def test_the_runs_of_the_first_launch_are_found(store, recipe, dataset, runs):
    assert [run.id for run in finished.finished_study(recipe, dataset, store)] == [run.id for run in runs]


def test_another_recipe_is_not_finished(store, recipe, dataset, runs):
    other = recipe.model_copy(update={"seed": 7})
    assert finished.finished_study(other, dataset, store) is None


def test_a_part_of_a_study_has_a_record_of_its_own(store, recipe, dataset, runs):
    """`study ensemble` after `study run` names the ensemble alone."""
    assert finished.finished_study(recipe.model_copy(update={"kind": "ensemble"}), dataset, store) is None


def test_other_code_is_another_study(store, recipe, dataset, runs, monkeypatch):
    monkeypatch.setattr(finished, "package_digest", lambda: "another program")
    assert finished.finished_study(recipe, dataset, store) is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_file_ends_the_record(store, recipe, dataset, runs, which):
    runs[which].read("values.npz").write_bytes(b"damaged")
    assert finished.finished_study(recipe, dataset, store) is None


def test_a_deleted_run_ends_the_record(store, recipe, dataset, runs):
    store.client.delete_run(runs[0].id)
    assert finished.finished_study(recipe, dataset, store) is None


@pytest.mark.parametrize("kind", finished.READ)
def test_a_run_of_these_data_logged_since_ends_the_record(store, recipe, dataset, runs, kind):
    """The report would be another one with it."""
    logged(store, dataset, kind)
    assert finished.finished_study(recipe, dataset, store) is None


def test_it_takes_neither_torch_nor_scikit_learn():
    """They take most of the time and memory of a command that has nothing to do."""
    code = (
        "import sys, study.cli.main, study.cli.opening as o, pathlib; from study.workflows import finished\n"
        "o.read_data(pathlib.Path('recipes/digits/study.toml'), [], [])\n"
        "sys.exit(' '.join({'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_digits_are_those_of_scikit_learn(recipe):
    """All of them, in the order of `load_digits`: the reader takes the file without the library."""
    from sklearn.datasets import load_digits

    from study.data.readers import digits

    images, labels = digits._images_and_labels()
    expected = load_digits()
    np.testing.assert_array_equal(images[:, 0], expected.images)
    np.testing.assert_array_equal(labels, expected.target)
