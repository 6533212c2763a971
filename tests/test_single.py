"""A single run keeps its whole trajectory, and its scores follow from it."""

import itertools
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from loops import Member, fit

from study import proxies
from study.errors import RecipeError, Stopped, StoreError
from study.proxies import PROXIES, SIGNALS, Signal, chosen, registry
from study.recipe import flatten, load
from study.runs import single
from study.runs.single import run_singles
from study.signals import due_epochs, evaluation_epochs, wanted
from study.signals.collector import OUTCOME
from study.signals.registry import SOURCES, SignalSource
from study.training.placement import Placement
from study.training.results import Hooks
from study.workflows.preflight import check_names
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

EPOCHS = 5
USUAL = {spec.name: spec for spec in chosen({})}
TRAIN = {"epochs": EPOCHS, "batch_size": 16}


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def recipe():
    """Two repeats, hidden densities after every second epoch and the last."""
    return toy_recipe("single", train=TRAIN, single={"repeats": 2, "signals_every": 2}, optimizer={"lr": 0.02})


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def runs(recipe, dataset, store):
    return run_singles(recipe, dataset, store)


@pytest.fixture(scope="module")
def path(recipe, dataset):
    """The first repeat once more, by `fit` alone: what every look says, the untrained network's first."""
    evaluations = []

    def after_epoch(member, epoch, evaluation):
        arrays = {"features": evaluation.features(), "logits": evaluation.logits().double().numpy()}
        arrays["online"] = evaluation.online.numpy() if epoch else None
        evaluations.append(SimpleNamespace(**vars(evaluation.outcome()), **arrays))

    hooks = Hooks(after_epoch=after_epoch, online=True)
    member = Member(("single", 0), np.arange(dataset.n_train))
    list(fit([member], dataset, recipe, Placement("cpu", "float32", "highest", 1, 1, 1), hooks))
    return evaluations


def ends(path):
    """The evaluations at epoch ends."""
    return path[1:]


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
    assert (correct == [evaluation.prediction == dataset.labels for evaluation in ends(path)]).all()
    np.testing.assert_allclose(kept["confidence"], [evaluation.confidence for evaluation in ends(path)], atol=1e-5)
    np.testing.assert_allclose(
        kept["top_confidence"], [evaluation.top_confidence for evaluation in ends(path)], atol=1e-5
    )


def test_the_table_has_a_row_per_example_and_a_column_per_proxy(scores, dataset):
    """Train rows then test rows, in the order of the data set."""
    assert scores["example"].tolist() == dataset.ids.tolist()
    assert scores["label"].tolist() == dataset.labels.tolist()
    assert scores["split"].tolist() == ["train"] * 120 + ["test"] * 30
    assert scores.columns.tolist() == ["example", "label", "split", *USUAL]
    assert (scores.dtypes.iloc[3:] == np.float32).all()


def test_a_proxy_is_missing_where_it_is_not_defined(scores):
    """CBGL is of test rows, all else of train rows; 0 would be a score."""
    for name, spec in USUAL.items():
        scored = scores[name].notna()
        assert (scored == (scores["split"] == spec.on)).all(), name
    on_test = {name for name, spec in USUAL.items() if spec.on == "test"}
    assert {"cbgl", "malgeneralizing_events", "iteration_learned_test"} <= on_test


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
    mean = np.mean([evaluation.confidence[train] for evaluation in ends(path)], axis=0)
    np.testing.assert_allclose(scores["cumulative_confidence"][train], mean, atol=1e-5)


def numbers(logits, labels):
    """What series hold, from float64 logits of one look, example by example."""
    measured = {"loss": [], "margin": [], "error_norm": [], "output_margin": [], "softmax_margin": []}
    for z, label in zip(logits, labels, strict=True):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        measured["loss"].append(-np.log(p[label]))
        measured["margin"].append(z[label] - max(z[i] for i in range(len(z)) if i != label))
        measured["error_norm"].append(sum((p[i] - (i == label)) ** 2 for i in range(len(z))) ** 0.5)
        measured["output_margin"].append(sorted(z)[-1] - sorted(z)[-2])
        measured["softmax_margin"].append(sorted(p)[-1] - sorted(p)[-2])
    return measured


@pytest.mark.parametrize("word", ["loss", "margin", "error_norm"])
def test_series_are_those_of_the_logits(runs, path, dataset, word):
    """One pass per epoch makes them; no logits are kept to check them later."""
    kept = runs[0].read_arrays("trajectory.npz")[word]
    assert (kept.dtype, kept.shape) == (np.float32, (EPOCHS, dataset.n))
    expected = [numbers(evaluation.logits, dataset.labels)[word] for evaluation in ends(path)]
    np.testing.assert_allclose(kept, expected, rtol=1e-4, atol=1e-5)


def test_classes_are_kept_from_the_untrained_network_on(runs, path):
    """B-learned: who has the final class from the start was learned at 0."""
    kept = runs[0].read_arrays("trajectory.npz")["predicted"]
    assert (kept == [evaluation.prediction for evaluation in path]).all()


def test_states_in_passing_are_those_of_the_training(runs, path, dataset):
    """Z-online compares them with those at epoch ends, and so does the run."""
    kept = runs[0].read_arrays("trajectory.npz")
    online = np.unpackbits(kept["online_correct"], axis=1, count=int(kept["n_train"])).astype(bool)
    assert (online == [evaluation.online[: dataset.n_train] for evaluation in ends(path)]).all()
    cbtl, forgetting = (runs[0].read_table("scores.parquet")[f"{name}_online"][: dataset.n_train] for name in COUNTS)
    assert cbtl.tolist() == online.sum(axis=0).tolist()
    assert forgetting.tolist() == [events(series) for series in online.T.tolist()]


COUNTS = ("cbtl", "forgetting_events")


@pytest.mark.parametrize("name", COUNTS)
def test_agreement_in_passing_is_a_metric(runs, scores, name):
    """Pearson and mean absolute error, as the paper gives them."""
    ends, online = (scores[column].dropna() for column in (name, f"{name}_online"))
    metrics = runs[0].metrics
    assert metrics[f"online/{name}_pearson"] == pytest.approx(np.corrcoef(ends, online)[0, 1], rel=1e-5)
    assert metrics[f"online/{name}_mean_absolute_error"] == pytest.approx(np.abs(ends - online).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["output_margin", "softmax_margin", "el2n"])
def test_proxies_of_one_moment_are_kept_per_epoch(runs, scores, path, dataset, name):
    """A proxy's number per epoch, where it has one."""
    train, kept = slice(0, dataset.n_train), runs[0].read_arrays("curves.npz")
    word = "error_norm" if name == "el2n" else name
    by_epoch = [np.array(numbers(evaluation.logits, dataset.labels)[word])[train] for evaluation in ends(path)]
    np.testing.assert_allclose(kept[name], [by_epoch[epoch - 1] for epoch in kept["epochs"]], rtol=1e-4, atol=1e-5)
    final = by_epoch[0] if name == "el2n" else by_epoch[-1]
    np.testing.assert_allclose(scores[name][train], final, rtol=1e-4, atol=1e-5)


def densities(features, labels):
    """Jiang's three densities as loops over pairs, and the bandwidth: half the mean distance of two examples."""
    features = np.asarray(features, dtype=np.float64).reshape(len(labels), -1)
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    bandwidth = distance[np.triu_indices(len(labels), 1)].mean() / 2
    kernel = np.exp(-(distance**2) / bandwidth**2)
    same_class = labels[:, None] == labels[None]
    return (
        {
            "relative": np.mean(2 * (same_class - 0.5) * kernel, axis=1),
            "conditional": np.mean(same_class * kernel, axis=1),
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
        expected, bandwidth = densities(path[epoch].features[train], dataset.labels[train])
        np.testing.assert_allclose(column, expected[which], rtol=1e-3, atol=1e-5)
        logged = dict(runs[0].read_series("density/bandwidth_hidden"))
        assert logged[epoch] == pytest.approx(bandwidth, rel=1e-4)
    assert (kept[name][-1] == scores[name][train]).all()


def test_the_table_comes_with_what_is_declared_about_its_columns(runs):
    """A reader of scores.parquet has to know which end is easy."""
    declared = runs[0].read_json("scores.json")
    assert list(declared) == list(USUAL)
    entry, spec = declared["forgetting_events"], PROXIES["forgetting_events"]
    assert {key: entry[key] for key in ("family", "unit", "label", "source", "cost", "easy", "on")} == {
        **{key: getattr(spec, key) for key in ("family", "unit", "label", "source", "cost")},
        "easy": "low",
        "on": "train",
    }
    assert (entry["settings"], entry["signals"], entry["due"]) == ({}, {}, None)
    hidden = declared["kernel_density_hidden_relative"]
    assert list(hidden["signals"]) == ["hidden_density"]


def test_every_proxy_says_what_it_cost(runs, dataset):
    """Seconds and FLOPs beyond the steps of the training: without them the best proxy is always the dearest."""
    for costs in (run.read_json("costs.json") for run in runs):
        assert all(each["seconds"] > 0 for each in costs.values())
        forward = 2 * (36 * 16 + 16 * 8 + 8 * 3) * dataset.n
        assert costs["output_margin"]["flops"] == forward
        assert costs["cbtl"]["flops"] == (EPOCHS + 1) * forward
        assert costs["cbtl_online"]["flops"] == 0
        assert costs["kernel_density_input_relative"]["flops"] > 0


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


def recipe_with(recipe, **changes):
    return recipe.model_copy(update=changes)


def test_finished_repeats_are_reused(runs, recipe, dataset, store, monkeypatch):
    """Also when fewer repeats, or fewer proxies, are asked for."""
    monkeypatch.setattr(single, "fit", None)
    fewer = recipe_with(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"cbtl": {}})
    assert [run.id for run in run_singles(recipe, dataset, store)] == [run.id for run in runs]
    assert [run.id for run in run_singles(fewer, dataset, store)] == [runs[0].id]


@pytest.fixture
def speed(recipe, dataset, stores):
    """A store with one run that holds CBTL alone, its recipe, and the run."""
    only = recipe_with(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"cbtl": {}})
    store = stores()
    return store, only, run_singles(only, dataset, store)[0]


def test_only_the_proxies_that_are_asked_for_are_computed(speed):
    """Densities cost n x n; who asks for CBTL does not pay for them."""
    _, _, run = speed
    assert run.read_table("scores.parquet").columns.tolist() == ["example", "label", "split", "cbtl"]
    assert list(run.read_arrays("curves.npz")) == ["epochs"]
    assert set(run.read_arrays("trajectory.npz")) == {"epochs", "n", "n_train", *OUTCOME}


def test_more_proxies_asked_later_are_trained_for_again(speed, dataset):
    """The old run has no features to compute them from; it stays as it is."""
    store, only, run = speed
    more = recipe_with(only, proxies={"cbtl": {}, "kernel_density_hidden_relative": {}})
    (again,) = run_singles(more, dataset, store)
    assert again.id != run.id
    assert (
        again.read_table("scores.parquet")["cbtl"].dropna() == run.read_table("scores.parquet")["cbtl"].dropna()
    ).all()
    assert run_singles(more, dataset, store)[0].id == again.id


def test_a_repeat_more_is_trained_alone(speed, dataset):
    """Five repeats today do not repeat the one of yesterday."""
    store, only, run = speed
    two = run_singles(recipe_with(only, single=only.single.model_copy(update={"repeats": 2})), dataset, store)
    assert two[0].id == run.id
    assert len(store.find("single")) == 2


def test_finer_curves_asked_later_are_trained_for_again(recipe, dataset, stores):
    """`single.signals_every` is no part of the digest, yet it decides which epochs J-fig8 knows."""
    store = stores()
    one = recipe_with(
        recipe,
        single=recipe.single.model_copy(update={"repeats": 1, "signals_every": 3}),
        proxies={"kernel_density_hidden_relative": {}},
    )
    (coarse,) = run_singles(one, dataset, store)
    assert coarse.read_arrays("curves.npz")["epochs"].tolist() == [3, 5]
    (fine,) = run_singles(recipe_with(one, single=one.single.model_copy(update={"signals_every": 1})), dataset, store)
    assert fine.read_arrays("curves.npz")["epochs"].tolist() == [1, 2, 3, 4, 5]
    assert run_singles(one, dataset, store)[0].id == fine.id


@pytest.fixture
def counted(monkeypatch):
    """A due source whose number is its setting, and two proxies on it: of one checkpoint, and of all."""
    monkeypatch.setattr(registry, "PROXIES", dict(PROXIES))
    monkeypatch.setattr(proxies, "PROXIES", registry.PROXIES)
    for name in ("counted_now", "counted_all"):
        axes = ("n",) if name.endswith("now") else ("w", "n")
        monkeypatch.setitem(SIGNALS, name, Signal(axes, "a number"))
        keep = "last" if name.endswith("now") else "all"

        def source(checkpoint, *, number: float = 1.0):
            checkpoint.log(f"counted/{checkpoint.epoch}", number)
            checkpoint.keep("number", np.array([number]))
            return np.full(checkpoint.dataset.n, number)

        source_of = SignalSource(
            name=name, function=source, signals=(name,), when="due", keep=keep, settings={"number": 1.0}
        )
        monkeypatch.setitem(SOURCES, name, source_of)

    def of_a_checkpoint(counted_now):
        """The number now."""
        return counted_now.astype(float)

    def of_all(counted_all):
        """The sum of all."""
        return counted_all.sum(axis=0).astype(float)

    declaration = {"family": "x", "easy": "high", "unit": "1", "label": "x", "source": "x"}
    proxies.proxy(**declaration, single_checkpoint=True)(of_a_checkpoint)
    proxies.proxy(**declaration)(of_all)


def test_other_settings_of_signals_are_trained_for_again(recipe, dataset, stores, counted):
    """[signals] is no part of the digest, yet it decides the scores."""
    store = stores()
    one = recipe_with(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"of_a_checkpoint": {}})
    (run,) = run_singles(one, dataset, store)
    other = recipe_with(one, signals={"counted_now": {"number": 2}})
    (again,) = run_singles(other, dataset, store)
    assert run.id != again.id
    assert [each.read_table("scores.parquet")["of_a_checkpoint"][0] for each in (run, again)] == [1, 2]
    assert run_singles(recipe_with(one, signals={"counted_now": {"number": 1}}), dataset, store)[0].id == run.id
    assert run_singles(other, dataset, store)[0].id == again.id


def test_moments_may_be_fewer_where_only_the_last_counts(recipe, dataset, stores, counted):
    """A run with finer curves serves for coarser ones, unless the proxy gathers all of them."""
    fine, coarse = (recipe.single.model_copy(update={"repeats": 1, "signals_every": every}) for every in (1, 2))
    for name, same in (("of_a_checkpoint", True), ("of_all", False)):
        store = stores()
        (run,) = run_singles(recipe_with(recipe, single=fine, proxies={name: {}}), dataset, store)
        (other,) = run_singles(recipe_with(recipe, single=coarse, proxies={name: {}}), dataset, store)
        assert (run.id == other.id) is same
    assert other.read_table("scores.parquet")["of_all"][0] == 3


def test_what_a_source_says_is_logged_and_kept(recipe, dataset, stores, counted):
    """Numbers by epoch become metrics, arrays a file of their own."""
    one = recipe_with(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"of_all": {}})
    (run,) = run_singles(one, dataset, stores())
    assert dict(run.read_series("counted/4")) == {4: 1}
    assert run.read_arrays("counted_all.npz")["number"] == [1]


def test_all_are_more_than_the_usual(recipe, dataset, stores, counted):
    """`[proxies.all]` asks for what nobody pays for unasked."""
    registry.PROXIES["of_all"] = replace(registry.PROXIES["of_all"], cost="gradients")
    assert "of_all" not in [spec.name for spec in wanted({}, dataset)]
    assert "of_all" in [spec.name for spec in wanted({"all": {}}, dataset)]
    assert "cbgl" not in [spec.name for spec in wanted({"all": {}}, blobs(n_test=0))]


def test_a_damaged_run_is_named_and_trained_again(speed, dataset, capsys):
    """Its file cannot be trusted, and nothing else can be made of it."""
    store, only, run = speed
    run.read("trajectory.npz").write_bytes(b"damaged")
    (again,) = run_singles(only, dataset, store)
    assert again.id != run.id
    assert f"run {run.id}" in capsys.readouterr().err
    assert again.read("scores.parquet").read_bytes() == run.read("scores.parquet").read_bytes()


# -------------------------------------------------------------------------------------------------------------- looks


@pytest.fixture(scope="module")
def seldom(recipe, dataset, stores):
    """The first repeat again, looked at after passes 2, 4 and the last: recipe, store, run."""
    fewer = recipe_with(
        recipe, single=recipe.single.model_copy(update={"repeats": 1, "evaluate_every": 2, "signals_every": 1})
    )
    store = stores()
    return fewer, store, run_singles(fewer, dataset, store)[0]


def test_a_look_shows_what_it_would_show_among_more(seldom, runs):
    """800,000 passes cannot be looked at one by one; which of them are must not change the training."""
    few, all_of_them = (run.read_arrays("trajectory.npz") for run in (seldom[2], runs[0]))
    assert few["epochs"].tolist() == [2, 4, 5]
    assert all_of_them["epochs"].tolist() == [1, 2, 3, 4, 5]
    for word in ("correct", "confidence", "loss", "margin", "online_correct"):
        assert (few[word] == all_of_them[word][[1, 3, 4]]).all(), word
    assert (few["predicted"] == all_of_them["predicted"][[0, 2, 4, 5]]).all()


def test_counts_are_of_the_looks(seldom, correct, dataset):
    """CBTL and events count what was seen, no pass in between."""
    scores = seldom[2].read_table("scores.parquet")[: dataset.n_train]
    seen = correct[[1, 3, 4], : dataset.n_train].T.tolist()
    assert scores["cbtl"].tolist() == [sum(series) for series in seen]
    assert scores["forgetting_events"].tolist() == [events(series) for series in seen]


def test_curves_are_logged_at_the_passes_looked_at(seldom, runs):
    """The step is the pass, so that runs with other looks lie on one axis."""
    for name in ("train/accuracy", "test/accuracy", "train/loss"):
        assert seldom[2].read_series(name) == [runs[0].read_series(name)[epoch - 1] for epoch in (2, 4, 5)]


def test_moments_are_due_only_where_there_is_a_look(seldom, runs):
    """Every pass asked for, every second one looked at; a proxy that names its look finds it among those so far."""
    few, more = (run.read_arrays("curves.npz") for run in (seldom[2], runs[0]))
    assert few["epochs"].tolist() == [2, 4, 5] == more["epochs"].tolist()
    name = "kernel_density_hidden_relative"
    assert (few[name] == more[name]).all()
    assert (few["el2n"] == more["el2n"]).all()


@pytest.mark.parametrize(
    ("evaluation", "every", "due"), [(1, 2, [2, 4, 6, 7]), (3, 2, [6, 7]), (2, 9, [7]), (9, 1, [7])]
)
def test_due_epochs_are_epochs_with_a_look(evaluation, every, due):
    """By hand, for seven passes."""
    recipe = toy_recipe("single", train={"epochs": 7}, single={"evaluate_every": evaluation, "signals_every": every})
    assert due_epochs(recipe, 120) == due
    assert set(due) <= set(evaluation_epochs(recipe, 120))


def test_a_run_with_other_looks_is_not_this_one(seldom, dataset, monkeypatch):
    """`single.evaluate_every` is no part of the digest, yet CBTL of three looks is another score than CBTL of five."""
    fewer, store, run = seldom
    assert [each.id for each in run_singles(fewer, dataset, store)] == [run.id]
    more = recipe_with(fewer, single=fewer.single.model_copy(update={"evaluate_every": 1}))
    assert more.digest() == fewer.digest()
    assert not single.finished_repeats(store, more, dataset)


def test_the_rehearsal_counts_looks():
    """One look of five passes has no transition; that is found out before the training."""
    once = toy_recipe("study", single={"evaluate_every": 5, "train": {"epochs": 5}})
    with pytest.raises(RecipeError, match=r"evaluate two \(single\.evaluate_every\)"):
        check_names(once)


# --------------------------------------------------------------------------------------------------------------- ends


def test_a_data_set_without_a_test_split_has_no_test_proxies(recipe, stores):
    """An image folder usually has none."""
    (run, _) = run_singles(recipe, blobs(n_test=0), stores())
    table = run.read_table("scores.parquet")
    assert not {"cbgl", "malgeneralizing_events", "iteration_learned_test"} & set(table)
    assert table.notna().all(axis=None)
    assert "test/accuracy" not in run.metrics


def test_a_test_proxy_without_a_test_split_is_refused(recipe, stores):
    """Before anything is trained."""
    with pytest.raises(RecipeError, match=r"proxies\.cbgl needs test examples, and blobs has none"):
        run_singles(recipe_with(recipe, proxies={"cbgl": {}}), blobs(n_test=0), stores())


def test_a_diverged_training_is_one_line(recipe, dataset, stores, monkeypatch):
    """A learning rate that is too high: the cure is named, the run is kept as a failure."""
    store = stores()
    hot = recipe_with(recipe, optimizer=recipe.optimizer.model_copy(update={"lr": 1e30}))
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
    score = single.log_scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "log_scores", lambda *what: (score(*what), stop.set()))
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

    def density(checkpoint):
        stop.set()
        for share in (0.1, 0.2):
            checkpoint.progress(share)
        pytest.fail("the stop was not heard")

    monkeypatch.setitem(SOURCES, "input_density", replace(SOURCES["input_density"], function=density))
    with pytest.raises(Stopped):
        run_singles(recipe, dataset, store, stop=stop)
    assert [run.status for run in store.find("single")] == ["KILLED"]


def test_ids_are_what_tables_are_joined_by(recipe, dataset, stores):
    """The same images under other names are other examples."""
    renamed = replace(dataset, ids=np.array([f"other/{row:04}" for row in range(dataset.n)]), digest="renamed")
    one = recipe_with(recipe, single=recipe.single.model_copy(update={"repeats": 1}), proxies={"cbtl": {}})
    (run,) = run_singles(one, renamed, stores())
    assert run.read_table("scores.parquet")["example"].tolist() == renamed.ids.tolist()


def test_every_registered_proxy_is_computed_in_a_run(recipe, dataset, stores):
    """`all`: sources, words and proxies fit together for each, those on gradients and probes too."""
    every = recipe_with(
        recipe, single=recipe.single.model_copy(update={"repeats": 1, "signals_every": 1}), proxies={"all": {}}
    )
    (run,) = run_singles(every, dataset, stores())
    table, declared = run.read_table("scores.parquet"), run.read_json("scores.json")
    assert set(table) == {"example", "label", "split", *PROXIES} == {"example", "label", "split", *declared}
    for name, spec in PROXIES.items():
        assert np.isfinite(table.loc[table["split"] == spec.on, name]).all(), name
        assert run.read_json("costs.json")[name]["seconds"] > 0
        assert declared[name]["cost"] == spec.cost
