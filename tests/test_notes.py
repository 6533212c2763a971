"""What the MLflow UI says: names that tell runs apart, notes, the columns of the runs table."""

import base64
import json
import zlib

import pytest

from study.tracking import descriptions
from study.tracking.ui import SHARED, links, saved_view
from tests.toys import toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

DATA = "0123456789abcdef"  # the digest of a data set


def view_of(experiment):
    """The state that the UI reads out of the saved view."""
    kept = json.loads(experiment.tags[f"mlflow.sharedViewState.{SHARED}"])
    return json.loads(zlib.decompress(base64.b64decode(kept["state"].removeprefix("deflate;"))))


def test_two_recipes_give_two_names():
    """Two rows of the runs table with the same name send a reader to the parameters of both."""
    slow = toy_recipe(optimizer={"lr": 0.01})
    assert descriptions.ensemble_name(slow, DATA) != descriptions.ensemble_name(toy_recipe(), DATA)
    names = {descriptions.single_name(recipe.part("single"), DATA, 0) for recipe in (slow, toy_recipe("single"))}
    assert len(names) == 2


def test_corrected_labels_give_another_name():
    """The recipe is the same before and after someone has mended labels; the data's digest is not."""
    other = DATA[::-1]
    assert descriptions.ensemble_name(toy_recipe(), DATA) != descriptions.ensemble_name(toy_recipe(), other)
    assert descriptions.report_name(toy_recipe("single"), DATA) != descriptions.report_name(toy_recipe("single"), other)


@pytest.mark.parametrize(
    ("name", "room"),
    [
        (descriptions.ensemble_name(toy_recipe(subset={"members": 200}), DATA), 20),
        (descriptions.single_name(toy_recipe("single"), DATA, 9), 20),
        (descriptions.shard_name(0.9, 110, 119), 13),
    ],
)
def test_a_name_fits_the_runs_table(name, room):
    """The UI cuts longer ones, and the part that tells them apart comes last."""
    assert len(name) <= room


def test_a_report_is_named_like_its_ensemble():
    """So that the two are found together over two experiments."""
    assert descriptions.report_name(toy_recipe(), DATA) == descriptions.ensemble_name(toy_recipe(), DATA)


@pytest.mark.parametrize(
    "note",
    [
        descriptions.ensemble_note,
        lambda r: descriptions.single_note(r, 0),
        lambda r: descriptions.report_note(r, {"a": "b"}),
    ],
)
def test_a_note_opens_with_why(note):
    """What the experimenter wanted to know comes before what every run of the kind says."""
    recipe = toy_recipe(why="Is it the\nnetwork?")
    assert note(recipe).startswith("> Is it the network?\n\n**")


@pytest.mark.parametrize(
    ("note", "names"),
    [
        (
            descriptions.ensemble_note(toy_recipe()),
            ["consensus_consistency", "prediction_entropy", "memorization_stderr"],
        ),
        (descriptions.single_note(toy_recipe("single"), 0), ["probes.npz"]),
        (
            descriptions.report_note(toy_recipe(), {"a": "b"}),
            ["leaderboard.parquet", "matrix.parquet", "influence.parquet"],
        ),
    ],
)
def test_a_note_says_what_the_files_hold(note, names):
    """A reader of the UI sees file names, and asks what is in them."""
    assert [name for name in names if f"`{name}`" not in note] == []


def test_links_open_a_view_with_columns(store):
    """MLflow's own table shows neither a metric nor a parameter before somebody ticks them."""
    store.experiment("toys/ensemble")
    assert any(f"viewStateShareKey={SHARED}" in line and line.endswith("toys/ensemble") for line in links(store, ""))
    columns = view_of(store.client.get_experiment_by_name("toys/ensemble"))["selectedColumns"]
    assert {"metrics.`reliability/full`", "params.`optimizer.lr`"} <= set(columns)


def test_a_view_that_is_there_stays(store):
    """Who has changed the columns wants to find them so the next time."""
    number = store.experiment("toys/single")
    key, mine = f"mlflow.sharedViewState.{SHARED}", saved_view("mine", ("time/train_s",), ())
    store.client.set_experiment_tag(number, key, mine)
    links(store, "")
    assert store.client.get_experiment(number).tags[key] == mine


def test_an_experiment_of_somebody_else_is_left_alone(store):
    """A store may hold runs of other programs."""
    store.experiment("other/things")
    links(store, "")
    assert set(store.client.get_experiment_by_name("other/things").tags) <= {"mlflow.experimentKind"}
