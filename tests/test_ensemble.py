"""Members in shards fold to the C-scores of the definition, whichever way they were divided, and MLflow tells it so."""

import itertools
import json
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
from loops import Member, fit

from study.errors import Stopped, StoreError
from study.recipe import flatten, load
from study.runs import ensemble
from study.runs import members as members_module
from study.runs.ensemble import finished_shards, plan_shards, run_ensemble
from study.runs.shards import predictions_on_test
from study.scores.cscore import SUMS, Profile, cscore_columns, shard_profile
from study.tracking import open_store, sqlite_store
from study.training import fit as training
from study.training import single as alone
from study.training.placement import Placement
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

TABLES = ("cscore.parquet", "profile.parquet")
SUBSET = {"ratios": [0.3, 0.7], "members": 6}
ALONE = Placement("cpu", "float32", "highest", 1, 1, 1)


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe(subset=SUBSET, why="to test")


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def run(recipe, dataset, store):
    """Twelve members in six shards of two."""
    return run_ensemble(recipe, dataset, store)


@pytest.fixture(scope="module")
def shards(run, store):
    return store.find("shard", parent=run)


@pytest.fixture(scope="module")
def members(shards, dataset):
    """(ratio, member) -> rows trained on, predictions; read from the bits that the shards keep."""
    read = {}
    for shard in shards:
        kept = shard.read_arrays("members.npz")
        subsets = np.unpackbits(kept["subset"], axis=1, count=dataset.n_train).astype(bool)
        for member, subset, miss in zip(kept["member"], subsets, kept["miss"], strict=True):
            prediction = (miss.astype(int) + dataset.labels) % dataset.n_classes
            read[float(kept["ratio"]), int(member)] = set(np.flatnonzero(subset)), prediction
    return read


def same_bytes(one, other) -> bool:
    return all(one.read(name).read_bytes() == other.read(name).read_bytes() for name in TABLES)


def test_cscores_equal_a_loop_over_the_members_bits(run, members, dataset):
    """The whole chain, from packed bits to the table, against the definition written as plain loops."""
    expected = []
    for row, label in enumerate(dataset.labels):
        per_ratio = []
        for ratio in (0.3, 0.7):
            held_out = [
                prediction
                for (r, _), (trained_on, prediction) in members.items()
                if r == ratio and row not in trained_on
            ]
            votes = [prediction[row] == label for prediction in held_out]
            per_ratio.append(sum(votes) / len(votes) if votes else np.nan)
        expected.append([*per_ratio, sum(per_ratio) / 2])
    table = run.read_table("cscore.parquet")
    np.testing.assert_allclose(table[["cscore_30", "cscore_70", "cscore"]], expected, rtol=0, atol=1e-15)


def test_standard_errors_equal_a_loop_over_the_members_bits(run, members, dataset):
    """Sample variance of the votes at each ratio, then the error of a mean of two means."""
    expected = []
    for row, label in enumerate(dataset.labels):
        variance = 0.0
        for ratio in (0.3, 0.7):
            held_out = [
                prediction
                for (r, _), (trained_on, prediction) in members.items()
                if r == ratio and row not in trained_on
            ]
            votes = [prediction[row] == label for prediction in held_out]
            variance += np.var(votes, ddof=1) / len(votes) if len(votes) > 1 else np.nan
        expected.append(np.sqrt(variance) / 2)
    np.testing.assert_allclose(run.read_table("cscore.parquet")["stderr"], expected, rtol=1e-12, atol=1e-15)


def test_soft_scores_are_those_of_the_members_trained_once_more_alone(run, members, recipe, dataset):
    """The shards do not keep confidences; a member is drawn from (seed, ratio, member), so it can be had again."""
    total, count = np.zeros((2, dataset.n)), np.zeros((2, dataset.n))
    for ratio, number in members:
        rows = sorted(members[ratio, number][0])
        (outcome,) = fit([Member(("member", str(ratio), number), np.array(rows))], dataset, recipe, ALONE)
        held_out = np.ones(dataset.n, dtype=bool)
        held_out[rows] = False
        place = (0.3, 0.7).index(ratio)
        total[place] += np.where(held_out, outcome.confidence, 0)
        count[place] += held_out
    expected = np.mean(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0), axis=0)
    np.testing.assert_allclose(run.read_table("cscore.parquet")["cscore_soft"], expected, atol=1e-5)


def test_the_consensus_is_the_most_frequent_held_out_answer(run, members, dataset):
    """Of several as frequent, the label if it is among them."""
    table = run.read_table("cscore.parquet")
    for row, label in enumerate(dataset.labels):
        predictions = [prediction[row] for trained_on, prediction in members.values() if row not in trained_on]
        counts = np.bincount(predictions, minlength=3)
        assert counts[table["consensus"][row]] == counts.max()
        assert table["consensus"][row] == label or counts[label] < counts.max()


def test_memorization_equals_a_loop_over_the_members_bits(run, members, dataset):
    """Right after training on it, minus right without; a test row is nobody's to memorize."""
    table = run.read_table("cscore.parquet")
    for row in range(0, dataset.n_train, 7):
        scores = []
        for ratio in (0.3, 0.7):
            votes = [
                (row in trained_on, p[row] == dataset.labels[row])
                for (r, _), (trained_on, p) in members.items()
                if r == ratio
            ]
            shares = [[right for inside, right in votes if inside == wanted] for wanted in (True, False)]
            scores.append(np.mean(shares[0]) - np.mean(shares[1]) if all(shares) else np.nan)
        assert table["memorization"][row] == pytest.approx(np.mean(scores), nan_ok=True)
    assert table["memorization"][dataset.n_train :].isna().all()


def test_answers_of_a_ratio_are_its_members_bits(run, members, recipe, dataset, store):
    """What influence is computed from; the order of the members is that of both arrays."""
    subsets, right = predictions_on_test(store, recipe, dataset, 0.7)
    subsets = np.unpackbits(subsets, axis=1, count=dataset.n_train).astype(bool)
    result = {(tuple(np.flatnonzero(trained_on)), tuple(bits)) for trained_on, bits in zip(subsets, right, strict=True)}
    correct = {key: (p == dataset.labels)[dataset.n_train :] for key, (_, p) in members.items()}
    assert result == {
        (tuple(sorted(trained_on)), tuple(correct[r, i])) for (r, i), (trained_on, _) in members.items() if r == 0.7
    }
    assert predictions_on_test(store, recipe, dataset, 0.5)[1].shape == (0, dataset.n_test)


def test_members_train_on_the_share_that_their_ratio_says(members, dataset):
    """And never on a test row."""
    sizes = {
        ratio: {len(trained_on) for (r, _), (trained_on, _) in members.items() if r == ratio} for ratio in (0.3, 0.7)
    }
    assert sizes == {0.3: {36}, 0.7: {84}}
    assert max(max(trained_on) for trained_on, _ in members.values()) < dataset.n_train


def test_test_rows_are_held_out_by_all(run, dataset):
    """So that they get C-scores without taking part."""
    table = run.read_table("cscore.parquet")
    test = table[table["split"] == "test"]
    assert len(test) == dataset.n_test
    assert (test[["held_out_30", "held_out_70"]] == 6).all(axis=None)


def test_the_profile_keeps_the_two_halves_apart(run, members, dataset):
    """Split-half reliability is made of them; with uniform subsets a half is the parity of the member."""
    profile = run.read_table("profile.parquet")
    for ratio, half in itertools.product((0.3, 0.7), (0, 1)):
        rows = profile[(profile["ratio"] == ratio) & (profile["half"] == half)]
        assert rows["example"].tolist() == dataset.ids.tolist()
        expected = np.zeros(dataset.n, dtype=int)
        for (r, number), (trained_on, _) in members.items():
            if r == ratio and number % 2 == half:
                expected += [row not in trained_on for row in range(dataset.n)]
        assert rows["held_out"].tolist() == expected.tolist()


@pytest.fixture(scope="module")
def divided(recipe, dataset, stores):
    """The same ensemble in shards of one, three and ten, and in the reverse order."""

    def trained(size, order=1):
        part = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"shard": size})})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ensemble, "plan_shards", lambda *arguments: plan_shards(*arguments)[::order])
            return run_ensemble(part, dataset, stores())

    return {"one": trained(1), "three": trained(3), "ten": trained(10), "reverse": trained(2, -1)}


@pytest.mark.parametrize("division", ["one", "three", "ten", "reverse"])
def test_any_division_into_shards_gives_the_same_bytes(run, divided, division):
    """A shard is the unit of resume, a matter of convenience; no score may depend on it."""
    assert same_bytes(run, divided[division])


def test_shards_fold_to_the_same_sums_in_any_order(shards, run, dataset):
    """Launches that share the work finish in any order."""
    parts = []
    for shard in shards:
        kept = shard.read_arrays("members.npz")
        sums = (kept[name].astype(np.int64) for name in SUMS)
        parts.append(Profile((float(kept["ratio"]),), *sums, kept["predicted"].astype(np.int32)))
    stored = run.read_table("profile.parquet")
    for order in itertools.permutations(parts):
        folded = order[0]
        for part in order[1:]:
            folded = folded + part
        columns = folded.columns()
        assert all((stored[name] == columns[name]).all() for name in SUMS)


def test_the_shards_of_a_store_fold_to_its_profile(run, store, recipe, dataset):
    """What a resumed launch starts from is what the first one had."""
    profile, done, _ = finished_shards(store, recipe, dataset)
    assert done == {(ratio, member) for ratio in (0.3, 0.7) for member in range(6)}
    assert all((run.read_table("profile.parquet")[name] == profile.columns()[name]).all() for name in SUMS)


def test_permuting_the_examples_permutes_their_scores(members, dataset):
    """Subsets are drawn by position, so a shuffled data set has other members; the fold itself knows no position."""
    rng = np.random.default_rng(0)
    order = rng.permutation(dataset.n)
    masks = np.array([[row in trained_on for row in range(dataset.n)] for trained_on, _ in members.values()])
    predictions = np.array([prediction for _, prediction in members.values()])
    confidence = rng.random(masks.shape)
    names = [ratio for ratio, _ in members], [number for _, number in members], dataset.n_classes

    def columns(rows):
        profile = shard_profile(masks[:, rows], predictions[:, rows], confidence[:, rows], dataset.labels[rows], *names)
        return pd.DataFrame(cscore_columns(profile, dataset.labels[rows]))

    straight = columns(np.arange(dataset.n)).iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(columns(order), straight, check_exact=True)


def test_never_held_out_is_missing(dataset, stores):
    """Two members at 90 %: most examples are in both subsets, and an unknown score must not look like the hardest."""
    recipe = toy_recipe(subset={"ratios": [0.3, 0.9], "members": 2}, train={"epochs": 1})
    run = run_ensemble(recipe, dataset, stores())
    table = run.read_table("cscore.parquet")
    never = table["held_out_90"] == 0
    assert 60 < never.sum() < 120
    assert table["cscore_90"].isna().equals(never)
    assert (table["cscore"].isna() == never | (table["held_out_30"] == 0)).all()
    assert table["cscore_soft"].isna().equals(table["cscore"].isna())
    assert run.metrics["cscore/missing"] == table["cscore"].isna().sum()
    assert ((table["consensus"] == -1) == (table["held_out"] == 0)).all()


def test_balanced_subsets_hold_every_example_out_equally_often(dataset, stores):
    """So that no score rests on fewer votes than another."""
    subset = {"ratios": [0.25, 0.5], "members": 4, "design": "balanced"}
    table = run_ensemble(toy_recipe(subset=subset, train={"epochs": 1}), dataset, stores()).read_table("cscore.parquet")
    train = table[table["split"] == "train"]
    assert (train["held_out_25"] == 3).all()
    assert (train["held_out_50"] == 2).all()


def nans_for(*words):
    """`fit`, but for one member whose probabilities are not numbers."""

    def fit_with_nan(jobs, *rest):
        requested = []

        def noted():
            for job in jobs:
                requested.append(job.name)
                yield job

        for number, outcome in enumerate(training.fit(noted(), *rest)):
            if words in (requested[number], ()):
                outcome.confidence = np.full_like(outcome.confidence, np.nan)
            yield outcome

    return fit_with_nan


def test_a_diverged_member_is_left_out_and_counted(recipe, dataset, stores, members, monkeypatch):
    """Its answers are noise; what is left must be the ensemble without it."""
    monkeypatch.setattr(members_module, "fit", nans_for("member", "0.7", 4))
    store = stores()
    run = run_ensemble(recipe, dataset, store)
    table = run.read_table("cscore.parquet")
    others = [trained_on for (ratio, number), (trained_on, _) in members.items() if ratio == 0.7 and number != 4]
    assert run.metrics["members/diverged"] == 1
    assert table["held_out_70"].tolist() == [
        sum(row not in trained_on for trained_on in others) for row in range(dataset.n)
    ]
    assert (table["held_out_30"][dataset.n_train :] == 6).all()
    assert finished_shards(store, recipe, dataset)[0].diverged == 1


def test_an_ensemble_that_diverged_as_a_whole_is_failed_however_often_it_is_run(dataset, stores, monkeypatch):
    """A learning rate that is too high is found after hours; the next step is not a report of NaN."""
    store = stores()
    recipe = toy_recipe(subset={"ratios": [0.5], "members": 2})
    monkeypatch.setattr(members_module, "fit", nans_for())
    for _ in range(2):  # the second time all shards are there
        with pytest.raises(StoreError, match=r"all 2 networks diverged.*lower optimizer\.lr \(now "):
            run_ensemble(recipe, dataset, store)
        (run,) = store.find("ensemble")
        assert run.status == "FAILED"
        assert "cscore.parquet" not in run.files
        seen = trained_in(monkeypatch)
    assert seen == []


# ------------------------------------------------------------------------------------------------------------- MLflow


def test_an_ensemble_and_its_shards_are_filed_under_data_set_and_kind(run, shards):
    """All rows of an experiment share their columns."""
    assert {each.experiment for each in [run, *shards]} == {"digits/ensemble"}
    assert [each.status for each in [run, *shards]] == ["FINISHED"] * 7
    assert {shard.parent for shard in shards} == {run.id}
    assert run.name == f"mlp 6x2 {run.tags['study.digest'][:3]}{run.tags['study.data'][:3]}"
    assert {shard.name for shard in shards} >= {"30 %: 0-1", "70 %: 4-5"}


def test_the_first_shard_of_every_ratio_comes_before_the_second_of_any(shards):
    """An ensemble that is stopped half way then has members at every ratio."""
    names = [shard.name for shard in sorted(shards, key=lambda shard: shard.started)]
    assert [name.partition(" %")[0][-2:] for name in names] == ["30", "70"] * 3
    assert names[0].endswith("0-1")
    assert names[-1].endswith("4-5")


def test_params_are_the_flattened_recipe(run, shards, recipe):
    """Parent and children differ by what makes a child, so that "show diff only" is the experiment's idea."""
    assert run.params == flatten(recipe)
    differing = [{key: value for key, value in shard.params.items() if key not in run.params} for shard in shards]
    assert all(shard.params.items() >= run.params.items() for shard in shards)
    assert {tuple(params.items()) for params in differing} >= {(("ratio", "0.3"), ("members", "0-1"))}


def test_tags_tell_what_was_trained_on_what_and_how(run, shards, recipe, dataset):
    """Queries find runs by them, and a resumed launch its precision."""
    for logged, kind in [(run, "ensemble"), *((shard, "shard") for shard in shards)]:
        assert logged.tags["study.kind"] == kind
        assert logged.tags["study.digest"] == recipe.digest()
        assert logged.tags["study.data"] == dataset.digest
    assert run.tags["study.precision"] == "float32"
    assert run.tags["mlflow.note.content"].startswith("> to test\n")


def test_the_recipe_of_a_run_reads_back_to_its_digest(run, recipe, tmp_path):
    """The artifact is what makes a year-old run repeatable."""
    (tmp_path / "recipe.toml").write_text(run.read_text("recipe.toml"))
    assert load(tmp_path / "recipe.toml") == recipe
    assert load(tmp_path / "recipe.toml").digest() == run.tags["study.digest"]


def test_the_data_set_is_named_by_a_chip(run, store, dataset):
    """The UI shows it, and filters by it."""
    (chip,) = store.client.get_run(run.id).inputs.dataset_inputs
    assert (chip.dataset.name, chip.dataset.digest) == (dataset.name, dataset.digest)
    assert [(tag.key, tag.value) for tag in chip.tags] == [("mlflow.data.context", "training")]


def test_members_are_points_of_a_curve_not_runs(shards, members, dataset):
    """2,000 networks are some 200 rows; step = member."""
    for shard in shards:
        kept = shard.read_arrays("members.npz")
        for member, value in shard.read_series("member/holdout_accuracy"):
            trained_on, prediction = members[float(kept["ratio"]), member]
            votes = [prediction[row] == dataset.labels[row] for row in range(dataset.n_train) if row not in trained_on]
            assert value == pytest.approx(np.mean(votes), rel=1e-5)
        steps = [step for step, _ in shard.read_series("member/holdout_accuracy")]
        assert steps == kept["member"].tolist()
        for name in ("train_accuracy", "test_accuracy", "loss"):
            assert [step for step, _ in shard.read_series(f"member/{name}")] == steps


def test_the_parents_curves_are_accuracies_by_ratio(run, members, dataset):
    """J-fig's x axis: how much of the data a network has seen."""
    for name, rows in (("holdout", range(dataset.n_train)), ("test", range(dataset.n_train, dataset.n))):
        expected = []
        for ratio in (0.3, 0.7):
            votes = [
                prediction[row] == dataset.labels[row]
                for (r, _), (trained_on, prediction) in members.items()
                for row in rows
                if r == ratio and row not in trained_on
            ]
            expected.append(np.mean(votes))
        series = run.read_series(f"{name}/accuracy")
        assert [step for step, _ in series] == [30, 70]
        assert [value for _, value in series] == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- resume


def test_a_finished_ensemble_is_not_trained_again(run, recipe, dataset, store, monkeypatch):
    """The same command again is the way to a newer report."""
    monkeypatch.setattr(members_module, "fit", None)
    assert run_ensemble(recipe, dataset, store).id == run.id


def copied(store, tmp_path):
    """A store of its own with all runs and files of `store`."""
    shutil.copytree(store.root, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    import sqlite3

    with sqlite3.connect(store.database) as source, sqlite3.connect(tmp_path / "copy" / "mlflow.db") as target:
        source.backup(target)
    source.close(), target.close()
    return open_store(tmp_path / "copy", sqlite_store.sqlite_uri(tmp_path / "copy" / "mlflow.db"))


@pytest.fixture
def copy(run, store, tmp_path):
    return copied(store, tmp_path)


def trained_in(monkeypatch):
    """The words of the members that are trained from here on."""
    seen = []

    def noted(jobs, *rest):
        return training.fit((seen.append(job.name) or job for job in jobs), *rest)

    monkeypatch.setattr(members_module, "fit", noted)
    return seen


def test_a_damaged_shard_is_named_and_it_alone_is_trained_again(run, recipe, dataset, copy, monkeypatch, capsys):
    """MLflow serves damaged files without a word; a wrong count would go into every score."""
    victim = next(shard for shard in copy.find("shard") if shard.name == "70 %: 2-3")
    content = bytearray(victim.read("members.npz").read_bytes())
    content[len(content) // 2] ^= 1
    victim.read("members.npz").write_bytes(content)
    copy.get(run.id).read("cscore.parquet").unlink()
    seen = trained_in(monkeypatch)
    again = run_ensemble(recipe, dataset, copy)
    messages = capsys.readouterr().err
    assert f"run {victim.id}" in messages
    assert "damaged" in messages
    assert seen == [("member", "0.7", 2), ("member", "0.7", 3)]
    assert again.id == run.id
    assert same_bytes(run, again)


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_folded_again_from_the_shards(run, recipe, dataset, copy, name, monkeypatch):
    """The message of the report says "run its recipe again"; that has to help."""
    copy.get(run.id).read(name).write_bytes(b"damaged")
    seen = trained_in(monkeypatch)
    assert same_bytes(run, run_ensemble(recipe, dataset, copy))
    assert seen == []


def test_more_members_asked_later_are_added_to_the_old_ones(run, recipe, dataset, copy, stores, monkeypatch):
    """Ten networks today, the rest tonight: the result is that of one launch."""
    more = toy_recipe(subset={**SUBSET, "members": 7})
    seen = trained_in(monkeypatch)
    grown = run_ensemble(more, dataset, copy)
    assert seen == [("member", "0.3", 6), ("member", "0.7", 6)]
    assert grown.id != run.id
    assert same_bytes(grown, run_ensemble(more, dataset, stores()))


def test_another_ratio_asked_later_is_added_to_the_old_ones(run, dataset, copy, monkeypatch):
    """Members are known by (ratio, member), not by the list of ratios."""
    seen = trained_in(monkeypatch)
    grown = run_ensemble(toy_recipe(subset={"ratios": [0.3, 0.5, 0.7], "members": 6}), dataset, copy)
    assert seen == [("member", "0.5", number) for number in range(6)]
    assert set(grown.read_table("cscore.parquet")) >= {"cscore_30", "cscore_50", "cscore_70"}


def test_fewer_members_are_cut_from_the_old_ones(run, recipe, dataset, copy, stores, monkeypatch):
    """To see what four networks would have told costs nothing."""
    fewer = toy_recipe(subset={**SUBSET, "members": 4})
    seen = trained_in(monkeypatch)
    cut = run_ensemble(fewer, dataset, copy)
    assert seen == []
    assert same_bytes(cut, run_ensemble(fewer, dataset, stores()))


@pytest.mark.parametrize(
    "change", [{"optimizer": {"lr": 0.05}}, {"seed": 1}, {"subset": {**SUBSET, "design": "balanced", "members": 10}}]
)
def test_a_changed_recipe_takes_nothing_from_the_old_one(run, dataset, copy, change, monkeypatch):
    """Another learning rate gives other networks; mixed C-scores belong to neither."""
    changed = toy_recipe(**{"subset": SUBSET, **change})
    seen = trained_in(monkeypatch)
    other = run_ensemble(changed, dataset, copy)
    assert other.tags["study.digest"] != run.tags["study.digest"]
    assert len(seen) == 2 * changed.subset.members


def test_other_data_under_the_same_recipe_take_nothing_from_the_old(run, recipe, copy, monkeypatch):
    """The recipe names a folder; what lies in it may change."""
    seen = trained_in(monkeypatch)
    run_ensemble(recipe, blobs(seed=1), copy)
    assert len(seen) == 12


MACHINES = (  # what bits depend on, the other way on each
    {"best_precision": "float32", "exact_routing": "highest", "cpu_flags": frozenset({"amx_bf16"}), "cores": {0, 1}},
    {"best_precision": "bfloat16", "exact_routing": "medium", "cpu_flags": frozenset(), "cores": {0, 1, 2, 3}},
)


def on_machine(number, monkeypatch):
    """As if this were one of two machines that differ in all on which bits depend."""
    choices = dict(MACHINES[number])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=choices.pop("cores"): cores, raising=False)
    for rule, choice in choices.items():
        monkeypatch.setattr(f"study.training.placement.{rule}", lambda *arguments, choice=choice: choice)


@pytest.mark.parametrize("first", [0, 1])
def test_a_resumed_launch_trains_as_the_first_on_another_machine(first, recipe, dataset, stores, monkeypatch):
    """Precision, routing, kernel and cores per operation are the run's, whatever the machine would choose."""
    open_choices = {"precision": "auto", "kernel": "auto", "threads": 1}
    auto = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=open_choices)})
    whole, store, stop = stores(), stores(), threading.Event()
    on_machine(first, monkeypatch)
    unbroken = run_ensemble(auto, dataset, whole)
    write = ensemble.write_shard
    monkeypatch.setattr(ensemble, "write_shard", lambda *what: (write(*what), stop.set())[0])
    with pytest.raises(Stopped):
        run_ensemble(auto, dataset, store, stop=stop)
    (parent,) = store.find("ensemble")
    assert parent.status == "KILLED"
    assert "resumes" in parent.tags["study.end"]
    monkeypatch.setattr(ensemble, "write_shard", write)
    on_machine(1 - first, monkeypatch)
    resumed = run_ensemble(auto, dataset, store)
    assert resumed.id == parent.id
    began, ended = (json.loads(run.tags["study.placement"]) for run in (unbroken, resumed))
    assert {key: ended[key] for key in ("precision", "matmul", "kernel", "layout", "cores")} == {
        key: began[key] for key in ("precision", "matmul", "kernel", "layout", "cores")
    }
    assert "study.end" not in resumed.tags
    assert same_bytes(resumed, unbroken)


def test_a_deleted_parent_does_not_take_its_shards_with_it(run, recipe, dataset, copy, monkeypatch):
    """A row tidied away in the UI; its networks are still there."""
    copy.client.delete_run(run.id)
    seen = trained_in(monkeypatch)
    again = run_ensemble(recipe, dataset, copy)
    assert seen == []
    assert same_bytes(run, again)


def test_a_parent_that_died_while_it_was_made_is_completed(run, recipe, dataset, copy, monkeypatch):
    """kill -9 right after MLflow has made the row: the recipe and the data set were not yet told."""
    copy.client.delete_run(run.id)
    monkeypatch.setattr(ensemble, "_train", None)
    monkeypatch.setattr(type(run), "param", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_ensemble(recipe, dataset, copy)
    monkeypatch.undo()
    (left,) = copy.find("ensemble")
    assert left.params == {}
    completed = run_ensemble(recipe, dataset, copy)
    assert completed.id == left.id
    assert completed.params == flatten(recipe)
    assert "recipe.toml" in completed.files
    assert len(copy.client.get_run(completed.id).inputs.dataset_inputs) == 1


def test_a_failed_write_ends_the_training_of_the_others(recipe, dataset, stores, monkeypatch):
    """The disk is full: nobody wants to wait for networks that cannot be kept."""
    store = stores()
    monkeypatch.setattr(ensemble, "write_shard", lambda *_: (_ for _ in ()).throw(StoreError("the disk is full")))
    epochs = []
    epoch = alone.train_epoch
    monkeypatch.setattr(alone, "train_epoch", lambda *what: (epochs.append(1), epoch(*what))[1])
    with pytest.raises(StoreError, match="the disk is full") as caught:
        run_ensemble(recipe, dataset, store)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
    assert caught.value.__traceback__ is not None  # which keeps the frames, as the command line does
    (parent,) = store.find("ensemble")
    assert parent.status == "FAILED"
    assert "the disk is full" in parent.tags["study.end"]


def test_too_few_members_for_a_reliability_are_said(store, capsys):
    """One balanced block cannot be halved: the report would have no ceiling, and nobody would know why."""
    run_ensemble(toy_recipe(subset={"ratios": [0.5], "members": 2, "design": "balanced"}), blobs(), store)
    assert "--set subset.members=4" in capsys.readouterr().err
