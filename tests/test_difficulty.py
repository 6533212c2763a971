"""Prediction depths of all members of an ensemble: by probes of what each was trained on, folded to two means."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import Member, fit
from sklearn.neighbors import NearestNeighbors

from study import analysis
from study.analysis import difficulty
from study.data import Dataset
from study.errors import RecipeError, Stopped, StoreError
from study.kernels.kde import exact_routing
from study.runs import ensemble
from study.runs.ensemble import run_ensemble
from study.runs.shards import depths
from study.scores.difficulty_types import TYPES
from study.training.placement import place
from study.training.results import Hooks
from study.workflows import study
from study.workflows.plan import describe, plan_study
from study.workflows.preflight import check_data, check_fit
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

FLIPPED = np.arange(0, 120, 12)
MEMBERS = 10
LAYERS = 5  # input, three blocks, softmax


def members_of(*arguments):
    """(m, n) depths and (m, n) subsets of all shards together."""
    return tuple(map(np.concatenate, zip(*depths(*arguments), strict=True)))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Every twelfth training label is the next class."""
    plain = blobs()
    labels = plain.labels.copy()
    labels[FLIPPED] = (labels[FLIPPED] + 1) % 3
    return replace(plain, labels=labels, digest="flipped")


@pytest.fixture(scope="module")
def recipe():
    """Ten members that learn their examples by heart, the flipped ones too."""
    return toy_recipe(
        "study",
        subset={"ratios": [0.9], "members": MEMBERS, "depth": True},
        model={"settings": {"widths": [64, 32, 16]}},
        optimizer={"lr": 0.05},
        train={"epochs": 40},
        single={"train": {"epochs": 2}},
        proxies={"cbtl": {}},
    )


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def report(recipe, dataset, store):
    """Ensemble, single run, report."""
    return study.run_study(recipe, dataset, store)[-1]


@pytest.fixture(scope="module")
def members(report, store, dataset):
    """member -> (rows trained on, depth, final), read from the shards."""
    read = {}
    for shard in store.find("shard"):
        kept = shard.read_arrays("members.npz")
        subsets = np.unpackbits(kept["subset"], axis=1, count=dataset.n_train).astype(bool)
        for member, subset, depth, final in zip(kept["member"], subsets, kept["depth"], kept["final"], strict=True):
            read[int(member)] = np.flatnonzero(subset), depth, final
    return read


@pytest.fixture(scope="module")
def table(report):
    return report.read_table("difficulty.parquet")


# ---------------------------------------------------------------------------------------------------------- one member


def layers_of(network, inputs):
    """The layers of the MLP by hand, before each ReLU, as probes see them."""
    layers, signal = [inputs], inputs
    for block in network.blocks:
        layers.append(block(signal))
        signal = layers[-1].relu()
    return [*layers, torch.softmax(network.classifier(signal).double(), dim=1)]


def by_hand(network, examples, dataset, subset):
    """Depth of every example, its probes made of `subset`, with sklearn's brute force and plain loops."""
    with torch.no_grad():
        inputs = examples.block(0, dataset.n).flatten(1)
        layers = [layer.double().numpy() for layer in layers_of(network, inputs)]
        final = network(examples.block(0, dataset.n)).argmax(dim=1).numpy()
    predictions = []
    for layer in layers:
        search = NearestNeighbors(n_neighbors=30, algorithm="brute").fit(layer[subset])
        near = dataset.labels[subset][search.kneighbors(layer, return_distance=False)]
        predictions.append([np.bincount(row, minlength=3).argmax() for row in near])
    depth = []
    for example in range(dataset.n):
        agrees = [prediction[example] == final[example] for prediction in predictions]
        depth.append(-1 if not agrees[-1] else max([at + 1 for at, same in enumerate(agrees) if not same], default=0))
    return np.array(depth), final


def test_the_depth_of_a_member_is_that_of_probes_of_its_own_examples(members, recipe, dataset):
    """Probes that knew the held-out examples would see the validation split as the training split."""
    expected = []
    last = recipe.train.epochs

    def after_epoch(member, epoch, evaluation):
        if epoch == last:
            expected.append(by_hand(evaluation.network(), evaluation.examples, dataset, member.rows))

    trained_on, depth, final = members[3]
    member = Member(("member", "0.9", 3), trained_on)
    placement = place(recipe.runtime, stackable=True)
    placement = replace(placement, matmul=exact_routing("cpu"), threads=1, cores=1)
    list(fit([member], dataset, recipe.part("ensemble"), placement, Hooks(after_epoch=after_epoch)))
    (depths, predictions) = expected[0]
    assert (final == predictions).all()
    assert (depth == depths).mean() > 0.98  # equal distances may be ranked by their last bits
    assert len(set(depths)) > 3


def test_depths_are_small_integers(members, dataset):
    """250 members times 60,000 examples are 15 MB."""
    for _, depth, _ in members.values():
        assert (depth.dtype, depth.shape) == (np.int8, (dataset.n,))
        assert depth.min() >= -1
        assert depth.max() < LAYERS


def test_a_member_that_diverged_has_no_depths(dataset, recipe, stores):
    """Its features are no numbers; neighbours among them would be nobody's."""
    hot = recipe.part("ensemble").model_copy(
        update={
            "optimizer": recipe.optimizer.model_copy(update={"lr": 1e30}),
            "subset": recipe.subset.model_copy(update={"members": 2}),
            "train": recipe.train.model_copy(update={"epochs": 2}),
        }
    )
    store = stores()
    with pytest.raises(StoreError, match="all 2 networks diverged"):
        run_ensemble(hot, dataset, store)
    depth, _ = members_of(store, hot, dataset)
    assert depth.shape == (2, dataset.n)
    assert (depth == -1).all()


# ------------------------------------------------------------------------------------------------------------ the fold


def test_mean_depths_equal_a_loop_over_the_members(table, members, dataset):
    """The whole chain, from packed bits to the table, written as plain loops."""
    for row in range(dataset.n):
        inside = [depth[row] for trained_on, depth, _ in members.values() if row in trained_on and depth[row] >= 0]
        outside = [depth[row] for trained_on, depth, _ in members.values() if row not in trained_on and depth[row] >= 0]
        for column, members_depth in (("depth_train", inside), ("depth_validation", outside)):
            expected = sum(members_depth) / len(members_depth) if members_depth else np.nan
            np.testing.assert_allclose(table[column][row], expected, rtol=1e-12)


def test_test_rows_were_in_no_training_split(table):
    """They have one depth and no type."""
    test = table[table["split"] == "test"]
    assert test["depth_train"].isna().all()
    assert test["depth_validation"].notna().all()
    assert (test["type"] == "").all()


def test_mislabeled_examples_are_decided_late_once_they_are_trained_on(table):
    """Early layers put them with their true class; the given label is learned by heart in the last ones (B-fig7).

    Held out they are answered with their true class, and as early as any other.
    """
    flipped = np.isin(np.arange(len(table)), FLIPPED)
    train = table["split"] == "train"
    assert table.loc[flipped, "depth_train"].mean() > table.loc[train & ~flipped, "depth_train"].mean() + 0.5
    assert table.loc[flipped, "depth_train"].mean() > table.loc[flipped, "depth_validation"].mean()
    assert (table.loc[train & ~flipped, "type"] == "easy").mean() > (table.loc[flipped, "type"] == "easy").mean()


def test_types_and_corners_are_those_of_the_plane(report, recipe, dataset, store, monkeypatch):
    """Four examples at the four corners, by hand; the rest has no depth."""
    depth, subset = np.full((2, dataset.n), -1, dtype=np.int8), np.zeros((2, dataset.n), dtype=bool)
    subset[0] = True
    depth[:, :4] = [[0, 4, 0, 4], [1, 1, 3, 3]]
    shards = [(depth[:1], subset[:1]), (depth[1:], subset[1:])]
    monkeypatch.setitem(difficulty.__globals__, "depths", lambda *_: shards)
    result = difficulty(analysis.load_runs(recipe, dataset, store), recipe, dataset, store)
    assert result.table["type"].tolist()[:5] == [*TYPES, ""]
    assert (result.table["type"][4:] == "").all()
    nearest = result.corners[result.corners["rank"] == 1]
    assert dict(zip(nearest["type"], nearest["example"], strict=True)) == dict(zip(TYPES, dataset.ids[:4], strict=True))
    assert nearest["distance"].tolist() == [0, 0, 0, 0]
    assert "easy 25.0%, looks like a different class 25.0%" in result.summary


def test_without_depths_there_are_no_types(report, recipe, dataset, store):
    """An ensemble that did not ask for them has none, and says nothing."""
    runs = analysis.load_runs(recipe, dataset, store)
    without = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"depth": False})})
    assert difficulty(runs, without, dataset, store) is None


# ----------------------------------------------------------------------------------------------------------- the report


def test_the_report_shows_the_plane(report):
    """The figure, the two tables, and a sentence."""
    assert {"figures/B-fig7.png", "difficulty.parquet", "corners.parquet"} <= set(report.files)
    page = report.read_text("report.html")
    assert "Four forms of difficulty" in page
    assert "layers in the training split" in page


def test_the_corners_hold_the_nearest(report, table):
    """100 of each, or as many as there are."""
    corners = report.read_table("corners.parquet")
    typed = table[table["type"] != ""]
    assert len(typed) > 50
    for number, name in enumerate(TYPES):
        of_type = corners[corners["type"] == name]
        assert of_type["rank"].tolist() == list(range(1, min(100, len(typed)) + 1))
        assert of_type["distance"].tolist() == sorted(typed[f"distance_{number}"])[:100]


# ------------------------------------------------------------------------------------------------------------- resume


def shortened(recipe, **subset):
    """Four members that train for a moment."""
    return recipe.part("ensemble").model_copy(
        update={
            "train": recipe.train.model_copy(update={"epochs": 2}),
            "subset": recipe.subset.model_copy(update={"members": 4, **subset}),
        }
    )


def test_depths_of_a_resumed_ensemble_equal_those_of_an_unbroken_one(recipe, dataset, stores):
    """Stopped after the first of nine members; bit for bit."""
    short, stop = shortened(recipe, members=9), threading.Event()
    short = short.model_copy(update={"runtime": recipe.runtime.model_copy(update={"shard": 1})})
    whole, broken = stores(), stores()
    run_ensemble(short, dataset, whole)
    with pytest.MonkeyPatch.context() as patch:
        write = ensemble.write_shard
        patch.setattr(ensemble, "write_shard", lambda *what: (write(*what), stop.set())[0])
        with pytest.raises(Stopped):
            run_ensemble(short, dataset, broken, stop=stop)
    assert 1 <= len(broken.find("shard", status="FINISHED")) < 9
    run_ensemble(short, dataset, broken)
    for one, other in zip(members_of(whole, short, dataset), members_of(broken, short, dataset), strict=True):
        assert one.shape == (9, dataset.n)
        assert sorted(map(bytes, one)) == sorted(map(bytes, other))


def test_shards_without_depths_are_trained_again(recipe, dataset, stores, capsys):
    """They look finished by their digest, and lack what the recipe asks for."""
    store, short = stores(), shortened(recipe)
    without = shortened(recipe, depth=False)
    assert without.digest() == short.digest()
    first = run_ensemble(without, dataset, store)
    assert plan_study(short, dataset, store)["ensemble"].done == 0
    capsys.readouterr()
    second = run_ensemble(short, dataset, store)
    assert "4 members have no prediction depths, which subset.depth asks for: they are trained again" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert second.id != first.id
    assert len(store.find("shard")) == 4
    assert members_of(store, short, dataset)[0].shape == (4, dataset.n)
    assert "no prediction depths" not in capsys.readouterr().err


def test_shards_with_depths_serve_who_asks_for_none(recipe, dataset, stores):
    """More than was asked for is no reason to train."""
    store, short = stores(), shortened(recipe)
    run_ensemble(short, dataset, store)
    run_ensemble(shortened(recipe, depth=False), dataset, store)
    assert len(store.find("shard")) == 2


# ------------------------------------------------------------------------------------------------------- before it runs


def test_a_subset_without_enough_neighbours_is_refused(recipe, dataset):
    """Before a network is trained, not at the end of the first."""
    few = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"ratios": (0.1, 0.9)})})
    with pytest.raises(
        RecipeError, match=r"subset\.depth: probes ask 30 neighbours, and 10 % of 120 examples are fewer"
    ):
        check_data(few, dataset)
    check_data(recipe, dataset)


def test_a_network_without_places_for_probes_is_refused(recipe, monkeypatch):
    """The same, by the shape alone."""

    def nowhere(*arguments):
        raise RecipeError("no blocks")

    monkeypatch.setattr("study.models.probe_points.placements", nowhere)
    with pytest.raises(RecipeError, match="no blocks"):
        check_fit(recipe, (1, 6, 6), 3)


def test_the_plan_says_that_depths_come_on_top(recipe, dataset, stores):
    """Their searches are not in the estimate."""
    line, *_ = describe(plan_study(shortened(recipe), dataset, stores()))
    assert line.endswith("on disk; beyond this, the prediction depths")
