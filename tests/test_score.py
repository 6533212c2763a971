"""Proxies of finished runs are those that a training would have given, and nothing is trained."""

import numpy as np
import pytest

from study.errors import StoreError
from study.runs import single
from study.runs.checkpoints import kept_epochs
from study.runs.score import score_singles
from study.runs.single import run_singles
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

STORED = ("cbtl", "forgetting_events", "kernel_density_input_relative")  # by the trajectory and by the data
OF_NETWORKS = ("aum", "el2n", "kernel_density_hidden_relative", "prediction_depth", "grand", "loss_sensitivity")


def recipe(*names: str, keep: str = "nothing", **tables):
    proxies, single = {name: {} for name in names}, {"keep": keep} | tables.pop("single", {})
    return toy_recipe("single", proxies=proxies, single=single, train={"epochs": 4, "batch_size": 16}, **tables)


@pytest.fixture(scope="module")
def dataset():
    return blobs(80, 20)


@pytest.fixture
def untrained(monkeypatch):
    """Training is an error from here on."""

    def forbid():
        def refuse(*_, **__):
            raise AssertionError("it trains")

        monkeypatch.setattr(single, "train_single", refuse)

    return forbid


def same_numbers(run, expected, names):
    for name in names:
        given, wanted = (each.read_table("scores.parquet")[name] for each in (run, expected))
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_proxy_of_stored_signals_does_not_train_again(dataset, stores, untrained):
    """A count of right epochs is in the trajectory: it took a whole training to add it."""
    store, fresh = stores(), stores()
    (first,) = run_singles(recipe("target_confidence"), dataset, store)
    (expected,) = run_singles(recipe("target_confidence", *STORED), dataset, fresh)
    untrained()
    (run,) = run_singles(recipe("target_confidence", *STORED), dataset, store)
    assert run.id != first.id
    assert run.tags["study.scored_from"] == first.id
    same_numbers(run, expected, ("target_confidence", *STORED))
    assert run.read_series("test/accuracy") == first.read_series("test/accuracy")
    (again,) = run_singles(recipe("target_confidence", *STORED), dataset, store)
    assert again.id == run.id


def test_what_networks_say_is_computed_from_kept_ones(dataset, stores, untrained):
    """Densities, depths and gradients of every epoch, with their curves, as if they had been asked for at once."""
    store, fresh = stores(), stores()
    (kept,) = run_singles(recipe("cbtl", keep="checkpoints"), dataset, store)
    assert kept_epochs(kept) == [1, 2, 3, 4]
    names = list(OF_NETWORKS)
    (expected,) = run_singles(recipe("cbtl", *names), dataset, fresh)
    untrained()
    (run,) = score_singles(recipe("cbtl", *names, keep="checkpoints"), dataset, store)
    same_numbers(run, expected, names)
    curves, wanted = (each.read_arrays("curves.npz") for each in (run, expected))
    assert curves.keys() == wanted.keys()
    np.testing.assert_allclose(curves[names[2]], wanted[names[2]], rtol=1e-4, atol=1e-6)
    series, wanted = (each.read_arrays("trajectory.npz") for each in (run, expected))
    assert series.keys() == wanted.keys()
    np.testing.assert_allclose(series["margin"], wanted["margin"], rtol=1e-4, atol=1e-5)


def test_scores_of_coarser_epochs_are_those_of_a_training_with_them(dataset, stores, untrained):
    """Curves of two collections had different epochs, and metrics were a mixture of both."""
    store, fresh, names = stores(), stores(), ("kernel_density_hidden_relative", "loss_sensitivity")
    run_singles(recipe(*names, keep="checkpoints"), dataset, store)
    coarse = {"single": {"signals_every": 2}}
    (expected,) = run_singles(recipe(*names, "grand", keep="checkpoints", **coarse), dataset, fresh)
    untrained()
    (run,) = score_singles(recipe(*names, "grand", keep="checkpoints", **coarse), dataset, store)
    same_numbers(run, expected, [*names, "grand"])
    curves, wanted = (each.read_arrays("curves.npz") for each in (run, expected))
    assert curves.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(curves[name], wanted[name], rtol=1e-4, atol=1e-6, err_msg=name)
    gini, as_trained = (each.read_series("sensitivity/gini") for each in (run, expected))
    assert [step for step, _ in gini] == [2, 4]
    assert gini == [(step, pytest.approx(value, rel=1e-4)) for step, value in as_trained]
    (finer,) = score_singles(recipe(*names, "grand", keep="checkpoints"), dataset, store)
    assert {len(array) for array in finer.read_arrays("curves.npz").values()} == {4}


def test_the_final_network_serves_what_reads_no_other(dataset, stores, untrained):
    """One file instead of one per epoch."""
    store, fresh = stores(), stores()
    (kept,) = run_singles(recipe("cbtl", keep="final"), dataset, store)
    assert kept_epochs(kept) == [4]
    (expected,) = run_singles(recipe("cbtl", "prediction_depth"), dataset, fresh)
    untrained()
    same_numbers(
        *score_singles(recipe("cbtl", "prediction_depth"), dataset, store), expected, names=["prediction_depth"]
    )


def test_signals_of_a_training_alone_are_named(dataset, stores, capsys):
    """Kept networks do not help: the cure said to keep them."""
    store, both = stores(), ("cbtl", "cbtl_online")
    run_singles(recipe("cbtl", keep="checkpoints"), dataset, store)
    with pytest.raises(StoreError, match=r"cbtl_online: .* no online_correct; .*single`, which trains again"):
        score_singles(recipe(*both, keep="checkpoints"), dataset, store)
    run_singles(recipe(*both, keep="checkpoints"), dataset, store)
    assert "cbtl_online: the finished runs keep no online_correct; it trains again" in capsys.readouterr().err


def test_what_is_not_kept_is_named_with_the_cure(dataset, stores, untrained):
    """`study score` never trains: it says which proxies would need it."""
    store = stores()
    with pytest.raises(StoreError, match="no finished single run"):
        score_singles(recipe("cbtl"), dataset, store)
    run_singles(recipe("cbtl"), dataset, store)
    untrained()
    with pytest.raises(StoreError, match=r"prediction_depth.*train again with --set single.keep=checkpoints"):
        score_singles(recipe("cbtl", "prediction_depth"), dataset, store)
    with pytest.raises(StoreError, match=r"single.keep"):
        score_singles(recipe("cbtl", keep="final"), dataset, store)
