"""A whole search in this process: trials as runs, the winner as a recipe."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
from loops import Member, fit
from toys import blobs

from study.errors import AnalysisError, RecipeError
from study.recipe import load
from study.search.run import cost, run_search, search_name, validation_rows
from study.search.trial_runner import score
from study.search.winner import write
from study.training.placement import place

pytest_plugins = ["tests.tracking_fixtures"]

BASE = {
    "data": {"name": "digits"},
    "model": {"name": "mlp", "settings": {"widths": [16, 8]}},
    "optimizer": {"lr": 1e-4},
    "train": {"epochs": 4, "batch_size": 16, "normalize": "standard"},
    "runtime": {"device": "cpu", "precision": "float32", "threads": 2},
}
DATA = blobs(300, 60)
SPACE = {"optimizer.lr": {"low": 1e-4, "high": 1.0, "log": True}, "optimizer.momentum": {"choices": [0.0, 0.9]}}


def recipe_file(folder, search, **tables):
    """A recipe and its base; tables are merged over the base's."""
    (folder / "base.toml").write_text(tomli_w.dumps({**BASE, **tables}))
    file = folder / "toy.toml"
    file.write_text(tomli_w.dumps({"base": "base.toml", "search": {"validation": 0.2, **search}}))
    return file


def searched(file, store, dataset=None, **settings):
    return run_search(load(file), dataset or DATA, store, file, **settings)


@pytest.fixture(scope="module")
def finished_search(stores, tmp_path_factory):
    """One search of twelve trials: (parent run, winner's file, recipe's file, store)."""
    store, folder = stores(), tmp_path_factory.mktemp("search")
    file = recipe_file(folder, {"trials": 12, "sampler": "random", "startup": 2, "space": SPACE})
    parent, winner = searched(file, store)
    return parent, winner, file, store


def test_every_trial_is_a_child_with_its_recipe(finished_search):
    """The UI's parallel coordinates are drawn from these parameters and from `score`."""
    parent, _, _, store = finished_search
    children = store.find("trial", parent=parent)
    assert len(children) == 12
    assert {run.status for run in children} == {"FINISHED"}
    assert len({run.params["optimizer.lr"] for run in children}) == 12
    assert all(run.params["train.batch_size"] == "16" for run in children)
    assert all("score" in run.metrics for run in children if run.tags["optuna.state"] == "COMPLETE")


def test_a_search_begins_with_the_recipe_as_it_is(finished_search):
    """So that one sees what was gained."""
    parent, _, _, store = finished_search
    (first,) = [run for run in store.find("trial", parent=parent) if run.tags["optuna.first"] == "0"]
    assert float(first.params["optimizer.lr"]) == 1e-4


def test_curves_have_a_point_per_epoch(finished_search):
    """Step = epoch, until the end or until the pruner's verdict."""
    parent, _, _, store = finished_search
    for run in store.find("trial", parent=parent):
        steps = [step for step, _ in run.read_series("val/accuracy")]
        assert steps == list(range(1, len(steps) + 1))
        pruned = run.tags["optuna.state"] == "PRUNED"
        assert (len(steps) < 4) == pruned or "step 4" in run.tags.get("optuna.verdict", "")


def test_a_pruned_trial_says_why_and_frees_its_place(stores, tmp_path):
    """One place, two good rates before two that learn nothing: these end at their second report."""
    space = {"optimizer.lr": {"choices": [0.05, 0.1, 1e-6, 1e-5]}}
    search = {"sampler": "grid", "startup": 1, "space": space}
    file, store = recipe_file(tmp_path, search, runtime=BASE["runtime"] | {"threads": 1}), stores()
    parent, _ = searched(file, store)
    runs = {float(run.params["optimizer.lr"]): run for run in store.find("trial", parent=parent)}
    for rate in (1e-6, 1e-5):
        assert runs[rate].tags["optuna.verdict"] == "pruned by median at step 2 of 4"
        assert [step for step, _ in runs[rate].read_series("val/accuracy")] == [1, 2]
    assert parent.metrics["search/pruned"] == 2


def test_the_parent_holds_table_figures_and_winner(finished_search):
    """What a person opens first."""
    parent, winner, _, store = finished_search
    assert parent.status == "FINISHED"
    names = {"figures/history.png", "figures/slices.png", "figures/importance.png", "trials.parquet", "best.toml"}
    assert names <= set(parent.files)
    trials = parent.read_table("trials")
    assert sorted(trials["trial"]) == list(range(12))
    assert {run.id for run in store.find("trial", parent=parent)} == set(trials["run"])
    best = trials.loc[trials["state"] == "COMPLETE", "value"].max()
    assert parent.metrics["search/value"] == pytest.approx(best, rel=1e-5)  # metrics have six digits
    assert parent.read_text("best.toml") == winner.read_text()


def test_the_search_gains_on_a_bad_start(finished_search):
    """A rate of 1e-4 learns nothing in four epochs."""
    trials = finished_search[0].read_table("trials").set_index("trial")
    assert finished_search[0].metrics["search/value"] > trials.loc[0, "value"] + 0.3


def test_the_winner_says_what_differs_and_no_more(finished_search):
    """Over its base it is the best trial, and the recipe's own search is not part of it."""
    parent, winner, file, _ = finished_search
    trials = parent.read_table("trials")
    best = trials[trials["state"] == "COMPLETE"].sort_values(["value", "trial"], ascending=[False, True]).iloc[0]
    kept = load(winner)
    assert kept.optimizer.lr == best["optimizer.lr"]
    expected = load(file).model_copy(update={"optimizer": kept.optimizer})
    assert kept.model_dump(exclude={"search"}) == expected.model_dump(exclude={"search"})
    assert "[model]" not in winner.read_text()
    assert winner == file.with_name("toy_best.toml")


def test_the_winners_value_is_that_of_training_it_again(finished_search):
    """By the door that ensembles use, on the training rows without the validation rows."""
    parent, winner, file, _ = finished_search
    dataset, recipe = DATA, load(winner).part("ensemble")
    judged = validation_rows(load(file), dataset)
    member = Member(("search",), np.setdiff1d(np.arange(dataset.n_train), judged))
    (outcome,) = fit([member], dataset, recipe, place(recipe.runtime, stackable=True, like=parent.tags))
    right = outcome.prediction == dataset.labels
    assert right[judged].mean() == pytest.approx(parent.metrics["search/value"])
    assert right[dataset.n_train :].mean() == pytest.approx(parent.metrics["test/accuracy"])


def test_label_noise_does_not_judge_the_trials(stores, tmp_path):
    """Trained on noisy labels, validated on the clean ones: else the winner is the one that guesses the noise."""
    labels = DATA.labels.copy()
    labels[: DATA.n_train] = (labels[: DATA.n_train] + 1) % DATA.n_classes  # every training label is wrong
    noisy = replace(DATA, labels=labels, labels_before_noise=DATA.labels)
    file = recipe_file(tmp_path, {"trials": 2, "sampler": "random", "space": SPACE}, optimizer={"lr": 0.1})
    parent, _ = searched(file, stores(), noisy)
    assert parent.metrics["search/value"] < 0.5  # judged by the noise it would be nearly 1
    assert parent.params["search.validation_labels"] == "before the noise"
    assert search_name(load(file), noisy) != search_name(load(file), replace(noisy, labels_before_noise=None))


def test_no_trial_tells_its_test_accuracy(finished_search):
    """What is on the table tempts."""
    parent, _, _, store = finished_search
    assert not [run for run in store.find("trial", parent=parent) if "test/accuracy" in run.metrics]


def test_the_same_command_trains_nothing_more(finished_search):
    """And gives the same run and file."""
    parent, winner, file, store = finished_search
    again, same = searched(file, store)
    assert (again.id, same) == (parent.id, winner)
    assert len(store.find("trial", parent=parent)) == 12


def test_more_trials_go_on_from_those_that_there_are(stores, tmp_path):
    """One parent, one storage; the file of the winner is its own to rewrite."""
    store = stores()
    file = recipe_file(tmp_path, {"trials": 3, "sampler": "random", "pruner": "none", "space": SPACE})
    first, _ = searched(file, store)
    more = load(file, ["search.trials=5"])
    assert search_name(more, DATA) == search_name(load(file), DATA)
    second, _ = run_search(more, DATA, store, file)
    assert first.id == second.id
    assert len(store.find("trial", parent=second)) == 5
    assert second.metrics["search/trials"] == 5


def test_validation_rows_are_a_share_of_every_class_of_the_training_rows(tmp_path):
    """Stratified, fixed by the seed, never a test row."""
    dataset = DATA
    recipe = load(recipe_file(tmp_path, {"space": SPACE}))
    rows = validation_rows(recipe, dataset)
    assert np.bincount(dataset.labels[rows]).tolist() == [20, 20, 20]  # a fifth of a hundred each
    assert rows.max() < dataset.n_train
    assert len(set(rows.tolist())) == len(rows)
    np.testing.assert_array_equal(rows, validation_rows(recipe, dataset))
    assert not np.array_equal(rows, validation_rows(recipe.model_copy(update={"seed": 1}), dataset))


def test_diverging_trials_end_with_their_reason(stores, tmp_path):
    """Rates of up to 1e30 leave the finite numbers; the search goes on."""
    space = {"optimizer.lr": {"choices": [0.05, 1e30]}}
    file = recipe_file(tmp_path, {"sampler": "grid", "pruner": "none", "space": space})
    store = stores()
    parent, winner = searched(file, store)
    assert load(winner).optimizer.lr == 0.05
    (failed,) = store.find("trial", parent=parent, status="FAILED")
    assert failed.tags["optuna.verdict"] == failed.tags["study.end"] == "diverged by step 1"


def test_a_search_in_which_all_diverges_says_so(stores, tmp_path):
    """One line, and the parent run is FAILED."""
    space = {"optimizer.lr": {"choices": [1e29, 1e30]}}
    file, store = recipe_file(tmp_path, {"sampler": "grid", "space": space}), stores()
    with pytest.raises(AnalysisError, match="no trial of the search came to its end"):
        searched(file, store)
    assert store.find("search")[0].status == "FAILED"


def test_stacked_trials_come_to_the_same_winner(stores, tmp_path):
    """As on a GPU, in float64 on the CPU: the same grid, the same values."""
    space = {"optimizer.lr": {"choices": [0.01, 0.05, 0.1, 0.2]}, "optimizer.momentum": {"choices": [0.0, 0.5]}}
    values = []
    for stack in (0, 3):
        folder = tmp_path / str(stack)
        folder.mkdir()
        runtime = {"device": "cpu", "precision": "float64", "stack": stack}
        file = recipe_file(folder, {"sampler": "grid", "pruner": "none", "space": space}, runtime=runtime)
        parent, _ = searched(file, stores())
        frame = parent.read_table("trials").sort_values(["optimizer.lr", "optimizer.momentum"])
        values.append(frame["value"].to_numpy())
    np.testing.assert_allclose(values[0], values[1], atol=1e-9)


def test_reliability_is_searched_with_small_ensembles(stores, tmp_path):
    """Two blocks of members at two ratios; a report after the second, which is the last."""
    search = {
        "objective": "reliability",
        "members": 4,
        "sampler": "grid",
        "space": {"optimizer.lr": {"choices": [0.1, 1e-4]}},
    }
    subset = {"ratios": [0.3, 0.7], "design": "uniform"}
    file, store = recipe_file(tmp_path, search, subset=subset), stores()
    parent, winner = searched(file, store)
    assert load(winner).optimizer.lr in (0.1, 1e-4)
    for run in store.find("trial", parent=parent):
        assert [step for step, _ in run.read_series("reliability/half_soft")] == [2, 3, 4]
    assert -1 <= parent.metrics["search/value"] <= 1


def test_members_that_have_no_halves_are_refused(stores, tmp_path):
    """At 50 % a balanced design comes in pairs, and both halves need one."""
    search = {"objective": "reliability", "members": 3, "space": SPACE}
    file = recipe_file(tmp_path, search, subset={"ratios": [0.5], "members": 2})
    with pytest.raises(RecipeError, match=r"search\.members = 3.*take 4"):
        searched(file, stores())


def test_the_kept_are_extended_round_by_round(stores, tmp_path):
    """B-search in miniature: a grid, the two most accurate and stable, longer with a step schedule, once more."""
    space = {"optimizer.lr": {"choices": [1e-4, 0.05, 0.2]}}
    longer = {"train": {"epochs": 6}, "schedule": {"name": "step", "unit": "share", "factor": 0.2, "milestones": [0.5]}}
    rounds = [
        {"set": longer, "space": {"schedule.milestones": {"choices": [[0.5], [0.4, 0.8]]}}},
        {"set": {"train": {"epochs": 8}}, "space": {"schedule.factor": {"choices": [0.2]}}},
    ]
    search = {"sampler": "grid", "pruner": "none", "score": "stable", "keep": 2, "space": space, "rounds": rounds}
    file, store = recipe_file(tmp_path, search), stores()
    parent, winner = searched(file, store)
    trials = parent.read_table("trials")
    assert trials["round"].value_counts().to_dict() == {1: 3, 2: 4, 3: 2}
    best = (
        trials[trials["round"] == 1]
        .sort_values(["value", "trial"], ascending=[False, True])["trial"]
        .astype(str)
        .tolist()[:2]
    )
    assert set(trials[trials["round"] == 2]["extends"]) == set(best)
    kept = load(winner)
    assert (kept.train.epochs, kept.schedule.name, kept.schedule.factor) == (8, "step", 0.2)
    assert json.loads(trials[trials["round"] == 2]["schedule.milestones"].iloc[0])
    again, _ = searched(file, store)
    assert again.id == parent.id


def test_stable_is_the_mean_less_the_deviation_of_the_last_quarter(tmp_path):
    """By hand: of sixteen reports the last four, .8 .8 .9 .9, mean .85, deviation .05."""
    search = load(recipe_file(tmp_path, {"score": "stable", "space": SPACE})).search
    assert score(search, [0.1] * 12 + [0.8, 0.8, 0.9, 0.9]) == pytest.approx(0.80)
    assert score(search, [0.1, 0.5, 0.5, 0.5]) == pytest.approx(0.5)  # three at least
    assert score(search.model_copy(update={"score": "last"}), [0.1, 0.9, 0.4]) == 0.4


def test_a_winners_file_that_is_not_ours_is_left_alone(stores, tmp_path):
    """Asked before anything trains."""
    file, store = recipe_file(tmp_path, {"space": SPACE}), stores()
    file.with_name("toy_best.toml").write_text("precious = true\n")
    with pytest.raises(RecipeError, match="exists, and is not of this search"):
        searched(file, store)
    assert store.find("search") == []
    with pytest.raises(RecipeError, match="not there or not writable"):
        searched(file, store, out=tmp_path / "nowhere" / "best.toml")


def test_a_winner_whose_base_has_two_bases_takes_the_nearer_one(tmp_path):
    """A chain of bases has two steps; a third would be refused by `study run`."""
    file = recipe_file(tmp_path, {"space": SPACE})
    third = tmp_path / "third.toml"
    third.write_text('base = "toy.toml"\n[train]\nepochs = 2\n')
    winner = load(third)
    write(tmp_path / "won.toml", third, winner, [], "abc")
    assert 'base = "toy.toml"' in (tmp_path / "won.toml").read_text()
    assert load(tmp_path / "won.toml").train.epochs == 2
    assert load(file).train.epochs == 4


def test_a_winner_that_no_base_can_say_is_written_whole(tmp_path):
    """TOML cannot take a value back: `train.steps` of the base is gone in the winner."""
    file = recipe_file(tmp_path, {"space": SPACE}, train={"steps": 40})
    recipe = load(file)
    winner = recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": None})})
    text = write(tmp_path / "won.toml", file, winner, [], "abc")
    assert "base =" not in text
    assert load(tmp_path / "won.toml").train.steps is None


def test_the_cost_is_told_before(tmp_path):
    """By hand: twelve trials, four epochs of the 240 examples that are not judged on."""
    file = recipe_file(tmp_path, {"trials": 12, "space": SPACE})
    assert cost(load(file), DATA).startswith("search: 12 trials, 11.5 k examples, at most about ")


def test_other_data_are_another_search(tmp_path):
    """Trials on noisy labels must not count for clean ones."""
    recipe = load(recipe_file(tmp_path, {"space": SPACE}))
    dataset = DATA
    assert search_name(recipe, dataset) != search_name(recipe, replace(dataset, digest="another"))
    assert math.isclose(len(search_name(recipe, dataset)), 16)
