"""A single run keeps its whole trajectory, and its scores follow from it."""

import itertools
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from study import single
from study.check import check_names
from study.errors import RecipeError, StoreError
from study.evidence.sources import SOURCES
from study.proxies import PROXIES
from study.recipe import flatten, load
from study.single import run_singles
from study.training import Hooks, Member, Stopped, fit
from study.training.placement import Placement
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

EPOCHS = 5
TRAIN = {"epochs": EPOCHS, "batch_size": 16}


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def recipe():
    """Two repeats, hidden densities after every second epoch and the last."""
    return toy_recipe("single", train=TRAIN, single={"repeats": 2, "every": 2}, optimizer={"lr": 0.02})


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def runs(recipe, dataset, store):
    return run_singles(recipe, dataset, store)


@pytest.fixture(scope="module")
def path(recipe, dataset):
    """The first repeat once more, by `fit` alone: what every epoch's look says, with the penultimate layer."""
    looks = []

    def after_epoch(member, epoch, look):
        if epoch:
            looks.append(SimpleNamespace(**vars(look.outcome()), features=look.features()))

    hooks = Hooks(after_epoch=after_epoch)
    member = Member(("single", 0), np.arange(dataset.n_train))
    list(fit([member], dataset, recipe, Placement("cpu", "float32", "highest", 1, 1, 1), hooks))
    return looks


@pytest.fixture(scope="module")
def correct(runs, dataset):
    """(e, n) bool, unpacked from the bits that the run keeps."""
    kept = runs[0].read_arrays("trajectory.npz")
    return np.unpackbits(kept["correct"], axis=1, count=int(kept["n"])).astype(bool)


@pytest.fixture(scope="module")
def scores(runs):
    return runs[0].read_table("scores.parquet")


def test_the_trajectory_is_that_of_the_training(runs, correct, path, dataset):
    """All examples after every epoch, train rows then test rows; every later analysis rests on it."""
    kept = runs[0].read_arrays("trajectory.npz")
    assert correct.shape == (EPOCHS, dataset.n)
    assert (correct == [look.prediction == dataset.labels for look in path]).all()
    np.testing.assert_allclose(kept["confidence"], [look.confidence for look in path], atol=1e-5)
    np.testing.assert_allclose(kept["top_confidence"], [look.top_confidence for look in path], atol=1e-5)


def test_the_table_has_a_row_per_example_and_a_column_per_proxy(scores, dataset):
    """Train rows then test rows, in the order of the data set."""
    assert scores["example"].tolist() == dataset.ids.tolist()
    assert scores["label"].tolist() == dataset.labels.tolist()
    assert scores["split"].tolist() == ["train"] * 120 + ["test"] * 30
    assert scores.columns.tolist() == ["example", "label", "split", *PROXIES]
    assert (scores.dtypes.iloc[3:] == np.float32).all()


def test_a_proxy_is_missing_where_it_is_not_defined(scores):
    """CBGL looks at test rows, all else at train rows; 0 would be a score."""
    for name, spec in PROXIES.items():
        known = scores[name].notna()
        assert (known == (scores["split"] == spec.on)).all(), name
    assert {name for name, spec in PROXIES.items() if spec.on == "test"} == {"cbgl", "malgeneralizing_events"}


def events(series) -> int:
    """Transitions from right to wrong; one who was never right gets as many as there are epochs."""
    falls = 0
    for before, after in itertools.pairwise(series):
        falls += bool(before and not after)
    return falls if any(series) else len(series)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cbtl", sum),
        ("cbgl", sum),
        ("forgetting_events", events),
        ("malgeneralizing_events", events),
        ("first_epoch_learned", lambda series: [*series, True].index(True) + 1),
    ],
)
def test_learning_speed_is_counted_from_the_bits(scores, correct, name, count):
    """Written as plain loops over the epochs of one example."""
    split = "test" if name in ("cbgl", "malgeneralizing_events") else "train"
    rows = np.flatnonzero(scores["split"] == split)
    assert scores[name][rows].tolist() == [count(correct[:, row].tolist()) for row in rows]


def test_confidences_are_those_of_the_last_epoch(scores, path, dataset):
    """And the cumulative one the mean over all epochs."""
    train = slice(0, dataset.n_train)
    np.testing.assert_allclose(scores["target_confidence"][train], path[-1].confidence[train], atol=1e-5)
    np.testing.assert_allclose(scores["top_confidence"][train], path[-1].top_confidence[train], atol=1e-5)
    mean = np.mean([look.confidence[train] for look in path], axis=0)
    np.testing.assert_allclose(scores["cumulative_confidence"][train], mean, atol=1e-5)


def densities(features, labels):
    """Jiang's three densities as loops over pairs, and the bandwidth: half the mean distance of two examples."""
    features = np.asarray(features, dtype=np.float64).reshape(len(labels), -1)
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    bandwidth = distance[np.triu_indices(len(labels), 1)].mean() / 2
    kernel = np.exp(-(distance**2) / bandwidth**2)
    own = labels[:, None] == labels[None]
    return (
        {
            "relative": np.mean(2 * (own - 0.5) * kernel, axis=1),
            "conditional": np.mean(own * kernel, axis=1),
            "independent": np.mean(kernel, axis=1),
        },
        bandwidth,
    )


@pytest.mark.parametrize("which", ["relative", "conditional", "independent"])
def test_input_densities_are_those_of_the_pixels(scores, dataset, which):
    """J-kde-input, over the training images."""
    train = slice(0, dataset.n_train)
    expected, _ = densities(dataset.images[train], dataset.labels[train])
    np.testing.assert_allclose(scores[f"kernel_density_input_{which}"][train], expected[which], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("which", ["relative", "conditional", "independent"])
def test_hidden_densities_are_kept_per_epoch(runs, scores, path, dataset, which):
    """J-kde-hidden and J-fig8: epochs 2, 4 and the last, and the last one is the score."""
    train, name = slice(0, dataset.n_train), f"kernel_density_hidden_{which}"
    kept = runs[0].read_arrays("curves.npz")
    assert kept["epochs"].tolist() == [2, 4, 5]
    for epoch, column in zip(kept["epochs"], kept[name], strict=True):
        expected, bandwidth = densities(path[epoch - 1].features[train], dataset.labels[train])
        np.testing.assert_allclose(column, expected[which], rtol=1e-3, atol=1e-5)
        logged = dict(runs[0].read_series("density/bandwidth_hidden"))
        assert logged[epoch] == pytest.approx(bandwidth, rel=1e-4)
    assert (kept[name][-1] == scores[name][train]).all()


def test_the_table_comes_with_what_is_declared_about_its_columns(runs):
    """A reader of scores.parquet has to know which end is easy."""
    declared = runs[0].read_json("scores.json")
    assert list(declared) == list(PROXIES)
    assert declared["forgetting_events"] == {
        **{key: getattr(PROXIES["forgetting_events"], key) for key in ("family", "unit", "label", "source")},
        "easy": "low",
        "on": "train",
        "settings": {},
    }


def test_accuracies_are_logged_by_epoch(runs, correct, dataset):
    """The curve of the training, and the loss beside it."""
    train, test = correct[:, : dataset.n_train], correct[:, dataset.n_train :]
    for name, rows in (("train", train), ("test", test)):
        series = runs[0].read_series(f"{name}/accuracy")
        assert [epoch for epoch, _ in series] == [1, 2, 3, 4, 5]
        assert [value for _, value in series] == pytest.approx(rows.mean(axis=1).tolist())
    assert [step for step, _ in runs[0].read_series("train/loss")] == [1, 2, 3, 4, 5]


def test_repeats_are_runs_of_their_own(runs, recipe, dataset, tmp_path):
    """They differ by their weights and batches, and by one parameter."""
    assert [run.params["repeat"] for run in runs] == ["0", "1"]
    for run in runs:
        assert run.experiment == "digits/single"
        assert run.status == "FINISHED"
        assert {key: run.params[key] for key in run.params if key != "repeat"} == flatten(recipe)
        assert run.tags["study.digest"] == recipe.digest()
        assert run.tags["study.data"] == dataset.digest
    one, other = (run.read_arrays("trajectory.npz")["confidence"] for run in runs)
    assert (one != other).any()
    (tmp_path / "recipe.toml").write_text(runs[0].read_text("recipe.toml"))
    assert load(tmp_path / "recipe.toml").digest() == recipe.digest()


# ---------------------------------------------------------------------------------------------------- finished before


def asked(recipe, **changes):
    return recipe.model_copy(update=changes)


def test_finished_repeats_are_reused(runs, recipe, dataset, store, monkeypatch):
    """Also when fewer repeats, or fewer proxies, are asked for."""
    monkeypatch.setattr(single, "fit", None)
    fewer = asked(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"cbtl": {}})
    assert [run.id for run in run_singles(recipe, dataset, store)] == [run.id for run in runs]
    assert [run.id for run in run_singles(fewer, dataset, store)] == [runs[0].id]


@pytest.fixture
def speed(recipe, dataset, stores):
    """A store with one run that holds CBTL alone, its recipe, and the run."""
    only = asked(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"cbtl": {}})
    store = stores()
    return store, only, run_singles(only, dataset, store)[0]


def test_only_the_proxies_that_are_asked_for_are_computed(speed):
    """Densities cost n x n; who asks for CBTL does not pay for them."""
    _, _, run = speed
    assert run.read_table("scores.parquet").columns.tolist() == ["example", "label", "split", "cbtl"]
    assert list(run.read_arrays("curves.npz")) == ["epochs"]


def test_more_proxies_asked_later_are_trained_for_again(speed, dataset):
    """The old run has no features to compute them from; it stays as it is."""
    store, only, run = speed
    more = asked(only, proxies={"cbtl": {}, "kernel_density_hidden_relative": {}})
    (again,) = run_singles(more, dataset, store)
    assert again.id != run.id
    assert (
        again.read_table("scores.parquet")["cbtl"].dropna() == run.read_table("scores.parquet")["cbtl"].dropna()
    ).all()
    assert run_singles(more, dataset, store)[0].id == again.id


def test_a_repeat_more_is_trained_alone(speed, dataset):
    """Five repeats today do not repeat the one of yesterday."""
    store, only, run = speed
    two = run_singles(asked(only, single=only.single.model_copy(update={"repeats": 2})), dataset, store)
    assert two[0].id == run.id
    assert len(store.find("single")) == 2


def test_finer_curves_asked_later_are_trained_for_again(recipe, dataset, stores):
    """`single.every` is no part of the digest, yet it decides which epochs J-fig8 knows."""
    store = stores()
    one = asked(
        recipe,
        single=recipe.single.model_copy(update={"repeats": 1, "every": 3}),
        proxies={"kernel_density_hidden_relative": {}},
    )
    (coarse,) = run_singles(one, dataset, store)
    assert coarse.read_arrays("curves.npz")["epochs"].tolist() == [3, 5]
    (fine,) = run_singles(asked(one, single=one.single.model_copy(update={"every": 1})), dataset, store)
    assert fine.read_arrays("curves.npz")["epochs"].tolist() == [1, 2, 3, 4, 5]
    assert run_singles(one, dataset, store)[0].id == fine.id


def test_a_damaged_run_is_named_and_trained_again(speed, dataset, capsys):
    """Its file cannot be trusted, and nothing else can be made of it."""
    store, only, run = speed
    run.read("trajectory.npz").write_bytes(b"damaged")
    (again,) = run_singles(only, dataset, store)
    assert again.id != run.id
    assert f"run {run.id}" in capsys.readouterr().err
    assert again.read("scores.parquet").read_bytes() == run.read("scores.parquet").read_bytes()


# --------------------------------------------------------------------------------------------------------------- ends


def test_a_data_set_without_a_test_split_has_no_test_proxies(recipe, stores):
    """An image folder usually has none."""
    (run, _) = run_singles(recipe, blobs(n_test=0), stores())
    table = run.read_table("scores.parquet")
    assert not {"cbgl", "malgeneralizing_events"} & set(table)
    assert table.notna().all(axis=None)
    assert "test/accuracy" not in run.metrics


def test_a_test_proxy_without_a_test_split_is_refused(recipe, stores):
    """Before anything is trained."""
    with pytest.raises(RecipeError, match=r"proxies\.cbgl looks at test examples, and blobs has none"):
        run_singles(asked(recipe, proxies={"cbgl": {}}), blobs(n_test=0), stores())


def test_a_diverged_training_is_one_line(recipe, dataset, stores, monkeypatch):
    """A learning rate that is too high: the cure is named, the run is kept as a failure."""
    store = stores()
    hot = asked(recipe, optimizer=recipe.optimizer.model_copy(update={"lr": 1e30}))
    with pytest.raises(StoreError, match=r"lower optimizer\.lr") as caught:
        run_singles(hot, dataset, store)
    assert "\n" not in str(caught.value)
    (run,) = store.find("single")
    assert run.status == "FAILED"
    assert "optimizer.lr" in run.tags["study.end"]


def test_one_epoch_is_refused_before_anything_is_trained():
    """Events are transitions between epochs: found out after the hours of an ensemble, that is bad news."""
    once = toy_recipe("study", single={"train": {"epochs": 1}})
    with pytest.raises(RecipeError, match=r"'forgetting_events': .*two epochs or more \(train\.epochs\)"):
        check_names(once)
    check_names(once.model_copy(update={"proxies": {"cbtl": {}}}))


def test_stop_ends_a_repeat_as_killed(recipe, dataset, stores):
    """The finished repeat is kept, the other starts again with the next launch."""
    store, stop = stores(), threading.Event()
    score = single._log_scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "_log_scores", lambda *what: (score(*what), stop.set()))
        with pytest.raises(Stopped):
            run_singles(recipe, dataset, store, stop=stop)
    killed, finished = store.find("single")
    assert (finished.status, killed.status) == ("FINISHED", "KILLED")
    assert "stopped on request" in killed.tags["study.end"]
    resumed = run_singles(recipe, dataset, store)
    assert resumed[0].id == finished.id
    assert resumed[1].id != killed.id


def test_stop_is_heard_while_densities_are_computed(recipe, dataset, stores, monkeypatch):
    """On 60,000 images that takes minutes; SIGTERM means seconds."""
    store, stop = stores(), threading.Event()

    def density(moment):
        stop.set()
        for share in (0.1, 0.2):
            moment.progress(share)
        pytest.fail("the stop was not heard")

    monkeypatch.setitem(SOURCES, "input_density", replace(SOURCES["input_density"], function=density))
    with pytest.raises(Stopped):
        run_singles(recipe, dataset, store, stop=stop)
    assert [run.status for run in store.find("single")] == ["KILLED"]


def test_ids_are_what_tables_are_joined_by(recipe, dataset, stores):
    """The same images under other names are other examples."""
    renamed = replace(dataset, ids=np.array([f"other/{row:04}" for row in range(dataset.n)]), digest="renamed")
    one = asked(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"cbtl": {}})
    (run,) = run_singles(one, renamed, stores())
    assert run.read_table("scores.parquet")["example"].tolist() == renamed.ids.tolist()
