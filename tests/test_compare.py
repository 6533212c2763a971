"""What is said of runs side by side is what a loop over their files says."""

import itertools

import numpy as np
import pytest
from scipy import stats

from study.analysis.by_epoch import trajectory
from study.errors import AnalysisError, StoreError
from study.experiments import compare
from study.experiments.page import write_folder, write_run
from study.experiments.select import group_runs, runs_of, runs_where
from study.experiments.sweep import run_sweep
from study.recipe import parse
from study.runs.single import run_singles
from study.scores.regularity_plane import representation, sample_density
from study.workflows.compare import work_comparison
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

NAMES = ("pearson", "spearman", "kendall")


@pytest.fixture(scope="module")
def recipe():
    """Two rates, two repeats each, one ensemble for both."""
    base = toy_recipe("study", proxies={"cbtl": {}, "cbgl": {}}, train={"epochs": 12, "batch_size": 16})
    table = {"single.optimizer.lr": [0.05, 0.005], "repeats": 2}
    return parse({**base.model_dump(), "sweep": table}, "toy sweep")


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def sweep(recipe, store):
    return run_sweep(recipe, store, dataset=blobs())


@pytest.fixture(scope="module")
def comparison(recipe, store, sweep):
    return work_comparison([recipe], "", store)


@pytest.fixture(scope="module")
def pair(store, sweep):
    """The single runs of both rates, by repeats."""
    singles = sorted(store.find("single"), key=lambda run: (-float(run.params["optimizer.lr"]), run.params["repeat"]))
    return singles[:2], singles[2:]


def test_columns_are_the_parameters_that_differ(comparison):
    """And nothing that all runs share; the ensemble has no rate of its own."""
    table = comparison.accuracies
    assert table.columns[:3].tolist() == ["kind", "optimizer.lr", "runs"]
    assert table["runs"].tolist() == [1, 2, 2]
    assert table["optimizer.lr"].fillna("").tolist() == ["", "0.05", "0.005"]


def test_accuracies_are_means_over_the_repeats(comparison, pair):
    """Read from the series of each run, the last ten of twelve epochs."""
    for row, runs in zip(comparison.accuracies.to_dict("records")[1:], pair, strict=True):
        last = [[value for _, value in run.read_series("test/accuracy")] for run in runs]
        assert all(len(values) == 12 for values in last)
        assert row["test/accuracy"] == pytest.approx(np.mean([values[-1] for values in last]))
        assert row[compare.LAST_COLUMN] == pytest.approx(np.mean([values[2:] for values in last]))
        assert row["test/accuracy, SD"] == pytest.approx(np.std([values[-1] for values in last], ddof=1))


def naive(a, b):
    """The three coefficients by scipy."""
    return stats.pearsonr(a, b)[0], stats.spearmanr(a, b)[0], stats.kendalltau(a, b)[0]


def test_agreement_of_proxies_is_scipys(comparison, pair):
    """Of means over the repeats, not the mean of coefficients."""
    for name, split in (("cbtl", "train"), ("cbgl", "test")):
        means = []
        for runs in pair:
            tables = [run.read_table("scores.parquet") for run in runs]
            means.append(np.mean([table.loc[table["split"] == split, name] for table in tables], axis=0))
        rows = comparison.agreement
        (row,) = rows[(rows["score"] == name) & (rows["split"] == split)].to_dict("records")
        assert [row[each] for each in NAMES] == pytest.approx(naive(*means))
        assert all(row[f"{each}_low"] <= row[each] <= row[f"{each}_high"] for each in NAMES)
        assert (row["a"], row["b"], row["n"]) == (
            "optimizer.lr = 0.05",
            "optimizer.lr = 0.005",
            120 if split == "train" else 30,
        )


def test_agreement_of_densities_is_scipys(comparison, pair):
    """A density of each run, then their mean, then Pearson's r (Z-fig11)."""
    means = []
    for runs in pair:
        correct = [trajectory(run)["correct"][:, :120] for run in runs]
        means.append(np.mean([sample_density(*representation(each)) for each in correct], axis=0))
    rows = comparison.agreement
    (row,) = rows[(rows["score"] == compare.DENSITY) & (rows["split"] == "train")].to_dict("records")
    assert row["pearson"] == pytest.approx(np.corrcoef(*means)[0, 1])


def test_densities_are_within_the_radius_of_their_run(stores):
    """`study compare` took the paper's radius, whatever the recipe said."""
    recipe = toy_recipe("single", single={"density_radius": 3.0}, train={"epochs": 5, "batch_size": 16})
    (run,) = run_singles(recipe, blobs(60, 0), stores())
    (group,) = group_runs([run])
    scores = compare.group_scores(group, [compare.DENSITY])[compare.DENSITY, "train"]
    plane = representation(trajectory(run)["correct"])
    np.testing.assert_allclose(scores, sample_density(*plane, radius=3.0))
    assert not np.allclose(scores, sample_density(*plane))


def test_cscores_of_ensembles_are_compared(stores):
    """Two seeds: the same ensembles otherwise, so the seed is what differs."""
    store = stores()
    table = {"model.settings.widths": [[8], [16]], "repeats": 2}
    recipe = parse({**toy_recipe("study").model_dump(), "kind": "ensemble", "sweep": table}, "toy sweep")
    run_sweep(recipe, store, dataset=blobs())
    comparison = work_comparison([recipe], "", store)
    assert comparison.accuracies["runs"].tolist() == [2, 2]
    means = []
    for widths in ("8", "16"):
        runs = [run for run in store.find("ensemble") if run.params["model.settings.widths"] == widths]
        tables = [run.read_table("cscore.parquet")["cscore_soft"][:120] for run in runs]
        means.append(np.mean(tables, axis=0))
    (row,) = comparison.agreement[comparison.agreement["score"] == "cscore_soft"].to_dict("records")
    defined = np.isfinite(means).all(axis=0)
    assert [row[each] for each in NAMES] == pytest.approx(naive(*np.array(means)[:, defined]))


def test_learning_curves_are_those_of_a_loop(store, sweep, pair):
    """Share of the repeats that are right, example by example, against the shared ensemble's scores."""
    groups = group_runs([run for runs in pair for run in runs])
    curves = compare.learning_curves(groups, store)
    (ensemble,) = store.find("ensemble")
    for curve, runs in zip(curves, pair, strict=True):
        loop = np.zeros((12, 120))
        for run, epoch, example in itertools.product(runs, range(12), range(120)):
            loop[epoch, example] += trajectory(run)["correct"][epoch, example] / 2
        assert np.array_equal(curve.correct, loop)
        assert np.array_equal(curve.cscore, ensemble.read_table("cscore.parquet")["cscore"][:120], equal_nan=True)


def test_runs_are_chosen_by_mlflows_syntax(store, sweep):
    """As in the search field of the MLflow UI; what MLflow cannot read is the user's to mend."""
    assert len(runs_where("params.`optimizer.lr` = '0.05' and tags.`study.kind` = 'single'", store)) == 2
    assert len(runs_where(f"tags.`study.sweep.{sweep.tags['study.sweep']}` != ''", store)) == 5
    with pytest.raises(StoreError, match="a condition is such as"):
        runs_where("params.x ~~ 1", store)


def test_other_data_are_not_paired(store, sweep, pair):
    """Other label noise, other examples: a row of the one is not a row of the other."""
    groups = group_runs([run for runs in pair for run in runs])
    elsewhere = [groups[0], compare.Group("elsewhere", "single", "other data", groups[1].runs, {})]
    assert compare.agreement(elsewhere).empty


def test_a_score_that_no_run_has_is_refused(recipe, store, sweep):
    """A typo must not look like runs without agreement."""
    with pytest.raises(AnalysisError, match="none of these runs has a score foo"):
        work_comparison([recipe], "", store, only=["cbtl", "foo"])


def test_nothing_to_compare_is_one_line(store):
    """A condition that fits no run."""
    with pytest.raises(AnalysisError, match="no finished runs"):
        work_comparison([], "tags.`study.kind` = 'none'", store)


def test_a_comparison_is_kept_with_the_sweep_and_written_to_a_folder(recipe, store, comparison, tmp_path):
    """The same files; a second comparison replaces them."""
    _, sweep = runs_of(recipe, store)
    names = {"accuracies.csv", "agreement.csv", "learning_curves.png", "comparison.html"}
    assert {path.name for path in write_folder(comparison, tmp_path / "new")} == names
    assert {f"comparison/{name}" for name in names} <= set(sweep.files)
    write_run(comparison, sweep)
    page = sweep.read_text("comparison/comparison.html")
    assert "optimizer.lr = 0.005" in page
    assert "data:image/png" in page
