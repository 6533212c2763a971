"""Runs are found by asking MLflow, tables are joined by example, and proxies are turned the way that they declare."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study import analysis
from study.analysis import StudyRuns, correlations, correlations_by_ratio, load_runs, parts
from study.errors import AnalysisError, StoreError
from study.proxies import PROXIES
from study.runs import ensemble
from study.runs.ensemble import keys
from study.runs.reference import log_reference
from study.scores.ceilings import Truth, rank_correlation
from study.scores.cscore import Profile, cscore_columns, half_lengths, half_scores, shard_profile
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

RATIOS = (0.3, 0.7)
MEMBERS = 12
NAMES = ("cbtl", "forgetting_events", "first_epoch_learned", "target_confidence", "cbgl", "malgeneralizing_events")


@pytest.fixture(scope="module")
def dataset():
    return blobs(80, 20)


@pytest.fixture(scope="module")
def recipe():
    subset = {"ratios": list(RATIOS), "members": MEMBERS}
    return toy_recipe("study", subset=subset, proxies={name: {} for name in NAMES})


@pytest.fixture(scope="module")
def profile(dataset) -> Profile:
    """Made-up votes: a third of the examples always right, some always wrong, one never held out at 70 %."""
    rng = np.random.default_rng(0)
    ease = np.where(np.arange(dataset.n) % 3 == 0, 1.0, rng.random(dataset.n) * (np.arange(dataset.n) % 10 != 1))
    masks = rng.random((2 * MEMBERS, dataset.n)) < np.repeat(RATIOS, MEMBERS)[:, None]
    masks[:, dataset.n_train :] = False
    masks[MEMBERS:, 5] = True
    right = rng.random(masks.shape) < ease
    predictions = np.where(right, dataset.labels, (dataset.labels + 1) % 3)
    confidence = np.clip(np.where(right, 0.9, 0.2) + rng.normal(0, 0.05, masks.shape), 0, 1)
    members = np.repeat(RATIOS, MEMBERS).tolist(), [*range(MEMBERS)] * 2, 3
    return shard_profile(masks, predictions, confidence, dataset.labels, *members)


@pytest.fixture(scope="module")
def cscores(profile, dataset) -> pd.DataFrame:
    frame = pd.DataFrame({"example": dataset.ids, "label": dataset.labels, "split": dataset.split()})
    return frame.assign(**cscore_columns(profile, dataset.labels))


@pytest.fixture(scope="module")
def scores(cscores) -> pd.DataFrame:
    """Proxies that follow the C-score with noise, in the direction that each declares, with ties."""
    rng = np.random.default_rng(1)
    table = cscores[["example", "label", "split"]].copy()
    for name in NAMES:
        spec = PROXIES[name]
        noisy = np.round(10 * np.nan_to_num(cscores["cscore"]) + rng.normal(0, 1, len(table)))
        values = noisy if spec.easy == "high" else -noisy
        table[name] = np.where(table["split"] == spec.on, values, np.nan).astype(np.float32)
    return table


@pytest.fixture(scope="module")
def log(profile, cscores, scores, recipe, dataset):
    """A function that writes made-up runs of a recipe to a store, as launches do."""

    def write(store, *, cscores=cscores, scores=scores, dataset=dataset, recipe=recipe, repeat=0, members=MEMBERS):
        part = recipe.part("ensemble")
        part = part.model_copy(update={"subset": part.subset.model_copy(update={"members": members})})
        size = {"study.kind": "ensemble", "study.size": ensemble.size_tag(part)}
        with store.start("digits/ensemble", "one", params={}, tags=keys(part, dataset) | size) as whole:
            whole.table("cscore.parquet", cscores)
            long = pd.DataFrame(profile.columns())
            whole.table("profile.parquet", long)
        part = recipe.part("single")
        tags = keys(part, dataset) | {"study.kind": "single", "study.repeat": str(repeat), "study.evaluate_every": "1"}
        with store.start("digits/single", "one", params={}, tags=tags) as single:
            single.table("scores.parquet", scores)
            declaration = {"settings": {}, "signals": {}, "due": None}
            single.json("scores.json", dict.fromkeys(scores.columns[3:], declaration))
            single.arrays("trajectory.npz", correct=np.zeros((2, 13), np.uint8))
            single.arrays("curves.npz", epochs=np.array([], dtype=int))
        return whole, single

    return write


@pytest.fixture(scope="module")
def logged(stores, log):
    """A store with the runs of one study, and these runs."""
    store = stores()
    return store, *log(store)


@pytest.fixture(scope="module")
def runs(logged, recipe, dataset) -> StudyRuns:
    return load_runs(recipe, dataset, logged[0])


@pytest.fixture(scope="module")
def table(runs) -> pd.DataFrame:
    return correlations(runs)


def test_runs_are_found_by_recipe_and_data(runs, logged):
    """Nobody writes down run ids."""
    assert [run.id for run in runs.all_runs] == [logged[1].id, logged[2].id]


def one(table, **wanted):
    result = table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
    assert len(result) == 1
    return result.iloc[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reference", ["cscore", "cscore_soft"])
def test_correlations_equal_scipys_on_the_same_columns(table, cscores, scores, name, reference):
    """Turned by the declared direction and nothing else; examples without a C-score are left out."""
    row = one(table, proxy=name, reference=reference, part="all")
    scored = (cscores["split"] == PROXIES[name].on) & cscores["cscore"].notna()
    turned = scores[name][scored].astype(float) * (1 if PROXIES[name].easy == "high" else -1)
    assert row["spearman"] == pytest.approx(stats.spearmanr(turned, cscores[reference][scored]).statistic)
    assert row["kendall"] == pytest.approx(stats.kendalltau(turned, cscores[reference][scored]).statistic)
    assert row["n"] == scored.sum()
    assert row["distinct"] == turned.nunique()


def test_proxies_whose_low_end_is_easy_come_out_positive(table):
    """The plant follows the C-score; a sign that is lost shows as minus."""
    low = table[(table["easy"] == "low") & (table["part"] == "all")]
    assert set(low["proxy"]) == {"forgetting_events", "first_epoch_learned", "malgeneralizing_events"}
    assert (low["spearman"] > 0.5).all()


def test_the_unsaturated_part_leaves_0_and_1_out(table, cscores, scores):
    """On MNIST three quarters tie at 1; also for the soft score the part is that of the hard one."""
    inside = (cscores["split"] == "train") & (cscores["cscore"] > 0) & (cscores["cscore"] < 1)
    for reference in ("cscore", "cscore_soft"):
        row = one(table, proxy="cbtl", reference=reference, part="unsaturated")
        assert row["n"] == inside.sum() < 60
        expected = stats.spearmanr(scores["cbtl"][inside], cscores[reference][inside]).statistic
        assert row["spearman"] == pytest.approx(expected)


def test_parts_of_scores_by_hand():
    """Missing is in no part."""
    result = parts(np.array([0.0, 0.4, 1.0, np.nan]))
    assert result["all"].tolist() == [True, True, True, False]
    assert result["unsaturated"].tolist() == [False, True, False, False]


def test_every_row_says_its_ceiling(table, profile, cscores):
    """What a perfect proxy could reach, from the halves of the same rows and the same kind of score."""
    rows = ((cscores["split"] == "train") & cscores["cscore"].notna()).to_numpy()
    for reference, (first, second) in zip(("cscore", "cscore_soft"), half_scores(profile, rows), strict=True):
        truth = Truth.from_halves(first, second, cscores[reference][rows], half_lengths(profile, rows))
        row = one(table, proxy="cbtl", reference=reference, part="all")
        assert row["ceiling"] == pytest.approx(truth.reach(rank_correlation))
        assert 0 < row["kendall_ceiling"] < row["ceiling"] <= 1


def test_intervals_hold_their_value(table):
    """A value outside of its interval is a mix-up of columns."""
    assert ((table["low"] <= table["spearman"]) & (table["spearman"] <= table["high"])).all()
    assert ((table["kendall_low"] <= table["kendall"]) & (table["kendall"] <= table["kendall_high"])).all()


def test_test_proxies_are_held_against_test_rows(table):
    """CBGL has nothing to say of training examples."""
    assert set(table["on"][table["proxy"] == "cbgl"]) == {"test"}
    assert one(table, proxy="cbgl", reference="cscore", part="all")["n"] == 20


def test_point_estimates_equal_scipys(cscores):
    """J-fig5, over training rows with both scores."""
    result = correlations_by_ratio(cscores)
    assert result["percent"].tolist() == [30, 70]
    train = cscores[(cscores["split"] == "train") & cscores["cscore"].notna()]
    expected = [stats.spearmanr(train["cscore"], train[f"cscore_{share}"]).statistic for share in (30, 70)]
    assert result["spearman"].tolist() == pytest.approx(expected)
    taus = [stats.kendalltau(train["cscore"], train[f"cscore_{share}"]).statistic for share in (30, 70)]
    assert result["kendall"].tolist() == pytest.approx(taus)


# ----------------------------------------------------------------------------------------------------------- the join


def test_tables_in_another_order_give_the_same_correlations(table, stores, log, recipe, dataset, cscores, scores):
    """They are joined by example, so the order of a table says nothing."""
    rng, store = np.random.default_rng(2), stores()
    log(store, cscores=cscores.iloc[rng.permutation(100)], scores=scores.iloc[rng.permutation(100)])
    result = correlations(load_runs(recipe, dataset, store))
    pd.testing.assert_frame_equal(result, table)


def test_without_runs_the_command_is_named(store, recipe, dataset):
    """`study report` before anything was run."""
    with pytest.raises(
        AnalysisError, match=r"no finished single run of this recipe .*run `study single` with it first"
    ):
        load_runs(recipe, dataset, store)


def test_runs_on_other_data_are_refused(logged, recipe, dataset):
    """The same recipe, after the folder of images has changed."""
    with pytest.raises(AnalysisError, match=rf"was trained on other data .*digest {dataset.digest}, now changed"):
        load_runs(recipe, replace(dataset, digest="changed"), logged[0])


def test_runs_of_another_recipe_are_not_seen(logged, dataset, recipe):
    """A changed learning rate is another study."""
    changed = recipe.model_copy(update={"seed": 1})
    with pytest.raises(AnalysisError, match="no finished single run of this recipe"):
        load_runs(changed, dataset, logged[0])


@pytest.mark.parametrize("which", ["cscores", "scores"])
def test_tables_with_other_labels_are_refused(store, log, recipe, dataset, cscores, scores, which):
    """Cleaned labels under old ids: a C-score of the wrong label looks like any other."""
    wrong = {"cscores": cscores, "scores": scores}[which].copy()
    wrong.loc[3, "label"] = (wrong.loc[3, "label"] + 1) % 3
    log(store, **{which: wrong})
    with pytest.raises(AnalysisError, match=r"1 labels differ from blobs's, first at train/0003") as caught:
        load_runs(recipe, dataset, store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "renamed", "double"])
def test_tables_with_other_examples_are_refused(store, log, recipe, dataset, cscores, change):
    """An inner join would drop them without a word."""
    table = {
        "missing": cscores.iloc[1:],
        "renamed": cscores.assign(example=["x", *cscores["example"][1:]]),
        "double": cscores.iloc[[1, *range(1, 100)]],
    }[change]
    log(store, cscores=table)
    with pytest.raises(AnalysisError, match=r"cscore\.parquet holds other examples than blobs"):
        load_runs(recipe, dataset, store)


def test_a_damaged_table_is_named(store, log, recipe, dataset):
    """With the run and the cure."""
    whole, _ = log(store)
    whole.read("cscore.parquet").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=rf"run {whole.id} .*cscore\.parquet is damaged"):
        load_runs(recipe, dataset, store)


def test_the_ensemble_is_the_one_that_the_recipe_asks_for(store, log, recipe, dataset):
    """Twelve members and six share a digest; the newer one is the smaller."""
    whole, _ = log(store)
    smaller, _ = log(store, members=6)
    assert load_runs(recipe, dataset, store).ensemble.id == whole.id
    six = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"members": 6})})
    assert load_runs(six, dataset, store).ensemble.id == smaller.id
    more = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"members": 24})})
    with pytest.raises(AnalysisError, match=r"asks for 24 at 30, 70 %.* has 6 at 30, 70 %; run `study ensemble`"):
        load_runs(more, dataset, store)


def test_the_single_run_is_one_with_the_proxies_of_the_recipe(store, log, recipe, dataset, scores):
    """A newer run for one proxy must not take the others out of the report."""
    _, all_of_them = log(store)
    log(store, scores=scores[["example", "label", "split", "cbtl"]])
    assert [run.id for run in load_runs(recipe, dataset, store).singles] == [all_of_them.id]


def test_as_many_repeats_as_the_recipe_says_are_read(store, log, recipe, dataset):
    """In their order, each once: the newest."""
    runs = [log(store, repeat=repeat)[1] for repeat in (10, 2, 0, 0)]
    eleven = recipe.model_copy(update={"single": recipe.single.model_copy(update={"repeats": 11})})
    assert [run.id for run in load_runs(eleven, dataset, store).singles] == [runs[index].id for index in (3, 1, 0)]
    assert [run.id for run in load_runs(recipe, dataset, store).singles] == [runs[3].id]


def test_published_scores_of_this_data_are_a_reference_of_their_own(
    store, log, recipe, dataset, scores, cscores, tmp_path
):
    """Held against their own unsaturated part, without a ceiling: nobody knows their halves."""
    log(store)
    published = np.linspace(0, 1, dataset.n_train)
    np.savez(tmp_path / "theirs.npz", labels=dataset.labels[: dataset.n_train], scores=published)
    log_reference(tmp_path / "theirs.npz", "digits", dataset, store)
    table = correlations(load_runs(recipe, dataset, store))
    row = one(table, proxy="cbtl", reference="published", part="all")
    assert row["spearman"] == pytest.approx(stats.spearmanr(scores["cbtl"][:80], published).statistic)
    assert np.isnan(row["ceiling"])
    assert one(table, proxy="cbtl", reference="published", part="unsaturated")["n"] == 78
    assert not len(table[(table["reference"] == "published") & (table["on"] == "test")])


def test_published_scores_are_compared_with_unchanged_labels(stores, log, recipe, dataset, scores, tmp_path):
    """They are of the clean labels; an example that got another label is another example, and is reported apart."""
    labels = dataset.labels.copy()
    labels[:30] = (labels[:30] + 1) % 3
    noisy = replace(dataset, labels=labels, labels_before_noise=dataset.labels)
    store, published = stores(), np.linspace(0, 1, dataset.n_train)
    ensemble_scores, proxies = (each.assign(label=labels) for each in (scores.assign(cscore=0.5), scores))
    log(store, cscores=ensemble_scores, scores=proxies, dataset=noisy)
    np.savez(tmp_path / "theirs.npz", labels=dataset.labels[: dataset.n_train], scores=published)
    log_reference(tmp_path / "theirs.npz", "digits", noisy, store)
    table = correlations(load_runs(recipe, noisy, store))
    row = one(table, proxy="cbtl", reference="published", part="all")
    assert row["n"] == 50
    assert row["spearman"] == pytest.approx(stats.spearmanr(scores["cbtl"][30:80], published[30:]).statistic)
    changed = one(table, proxy="cbtl", reference="published", part="changed labels")
    assert changed["spearman"] == pytest.approx(stats.spearmanr(scores["cbtl"][:30], published[:30]).statistic)


def test_published_scores_of_other_data_are_not_read(logged, recipe, dataset, runs):
    """They belong to a digest of pixels and labels."""
    store = logged[0]
    other = replace(dataset, digest="other")
    frame = pd.DataFrame({"example": other.ids, "label": other.labels, "cscore": 0.5})
    with store.start(
        "digits/reference", "theirs", params={}, tags={"study.kind": "reference", "study.data": "other"}
    ) as run:
        run.table("reference.parquet", frame)
    assert load_runs(recipe, dataset, store).reference is None


def test_a_proxy_that_is_no_longer_registered_is_left_out(runs):
    """A table of last year may hold one; the others are still worth a row."""
    old = runs.scores[0].assign(gone=1.0)
    table = correlations(replace(runs, scores=(old,)))
    assert "gone" not in set(table["proxy"])
    with pytest.raises(AnalysisError, match="still registered"):
        correlations(replace(runs, scores=(old[["example", "label", "split", "gone"]],)))


def test_a_constant_proxy_has_no_correlation(runs):
    """Undefined is missing, not 0 and not an error."""
    flat = runs.scores[0].assign(cbtl=np.float32(3))
    row = one(correlations(replace(runs, scores=(flat,))), proxy="cbtl", reference="cscore", part="all")
    assert np.isnan(row["spearman"])
    assert row["distinct"] == 1


def test_curves_give_each_moment_its_correlation(runs, dataset, cscores, monkeypatch):
    """J-fig8 from what the run keeps, J-fig9b from the trajectory."""
    rng = np.random.default_rng(3)
    confidence = rng.random((2, dataset.n)).astype(np.float32)
    density = rng.random((1, dataset.n_train)).astype(np.float32)
    kept = {
        "trajectory.npz": {
            "epochs": np.array([1, 2]),
            "correct": np.packbits(confidence > 0.5, axis=1),
            "n": np.int64(confidence.shape[1]),
            "confidence": confidence,
            "top_confidence": np.maximum(confidence, 1 - confidence),
        },
        "curves.npz": {"epochs": np.array([2]), "kernel_density_hidden_relative": density},
    }
    monkeypatch.setattr(type(runs.singles[0]), "read_arrays", lambda run, name: kept[name])
    table = analysis.curves(runs, dataset)
    scored = cscores["cscore"][: dataset.n_train].notna()
    target = cscores["cscore"][: dataset.n_train][scored]
    for name, epoch, values in (
        ("target_confidence", 1, confidence[0, : dataset.n_train]),
        ("target_confidence", 2, confidence[1, : dataset.n_train]),
        ("kernel_density_hidden_relative", 2, density[0]),
    ):
        row = one(table, proxy=name, epoch=epoch, reference="cscore")
        assert row["spearman"] == pytest.approx(stats.spearmanr(values[scored], target).statistic)
    assert set(table["epoch"][table["proxy"] == "kernel_density_hidden_relative"]) == {2}
