"""A whole study ends with a report whose numbers are those of its tables, in a local store and through a server."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from study.analysis import load_runs
from study.errors import AnalysisError, Stopped, StoreError
from study.figures import mean_over_repeats
from study.proxies import PROXIES
from study.recipe import flatten, load
from study.report import build
from study.report.build import run_report
from study.runs.reference import log_reference
from study.tracking import open_store
from study.workflows.study import run_study
from tests.toys import blobs, toy_recipe, two_figures

pytest_plugins = ["tests.tracking_fixtures"]

SUBSET = {"ratios": [0.3, 0.7], "members": 4}


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe("study", subset=SUBSET, single={"repeats": 2})


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def runs(recipe, dataset, store):
    return run_study(recipe, dataset, store)


@pytest.fixture(scope="module")
def report(runs):
    return runs[-1]


@pytest.fixture(scope="module")
def correlations(report):
    return report.read_table("correlations.parquet")


def test_a_study_is_an_ensemble_its_single_runs_and_a_report(runs):
    """Each in its experiment, all of them finished."""
    kinds = ["ensemble", "single", "single", "report"]
    assert [run.tags["study.kind"] for run in runs] == kinds
    assert [run.experiment for run in runs] == [f"digits/{kind}" for kind in kinds]
    assert {run.status for run in runs} == {"FINISHED"}


def test_the_report_names_the_runs_that_it_has_read(runs, report, recipe, dataset):
    """So that its numbers can be traced."""
    assert report.tags["study.ensemble"] == runs[0].id
    assert report.tags["study.singles"].split() == [runs[1].id, runs[2].id]
    assert report.tags["study.data"] == dataset.digest
    assert report.params.items() >= flatten(recipe.part("ensemble")).items()
    page = report.read_text("report.html")
    assert all(run.id in page for run in runs[:3])


def test_every_file_of_the_report_is_there_and_whole(report):
    """`read` checks the sha256; the UI would serve a damaged one without a word."""
    figures = {name for name in report.files if name.startswith("figures/")}
    expected = {"fig2", "fig3", "fig4", "fig5", "fig6", "fig8", "fig9a", "fig9b", "tab1"}
    sections = {"proxies", "suspects", "leaderboard", "matrix", "by_epoch", "B-consensus", "Z-fig2"}
    assert figures == {f"figures/{name}.png" for name in [*sections, *(f"J-{id}" for id in expected)]}
    tables = {f"{name}.parquet" for name in ("correlations", "points", "curves", "leaderboard", "matrix", "influence")}
    assert tables | {"recipe.toml", "report.html"} <= set(report.files)
    assert all(report.read(name).stat().st_size > 0 for name in report.files)


def test_the_recipe_of_the_report_is_the_whole_study(report, recipe, tmp_path):
    """Who has the report can run the study."""
    (tmp_path / "recipe.toml").write_text(report.read_text("recipe.toml"))
    assert load(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("group", "reference", "part"),
    [("rank", "cscore", "all"), ("unsaturated", "cscore", "unsaturated"), ("soft", "cscore_soft", "all")],
)
def test_the_metrics_are_the_rows_of_the_table(runs, report, correlations, group, reference, part):
    """Averaged over the repeats; who sorts the runs in the UI by them must see the table's numbers."""
    rows = correlations[(correlations["reference"] == reference) & (correlations["part"] == part)]
    assert sorted(rows["repeat"].unique()) == [0, 1]
    for name in ("spearman", "kendall"):
        means = rows.groupby("proxy")[name].mean()
        logged = {proxy: report.metrics[f"{group}/{name}/{proxy}"] for proxy in means.index}
        assert logged == pytest.approx(means.to_dict(), abs=1e-6, nan_ok=True)  # logged with six decimals
    assert set(rows["proxy"]) == set(runs[1].read_json("scores.json"))


def test_the_tables_numbers_are_on_the_page(report, correlations):
    """The page is what people quote."""
    means = mean_over_repeats(correlations)
    row = means[(means["proxy"] == "cbtl") & (means["reference"] == "cscore") & (means["part"] == "all")].iloc[0]
    page = report.read_text("report.html")
    assert f"{row['spearman']:.3f}" in page or f"{row['spearman']:.2f}" in page
    assert "cumulative binary training loss" in page


def test_stop_before_the_report_ends_the_study(runs, recipe, dataset, store):
    """The report of 60,000 examples takes a while; SIGTERM means seconds."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        run_study(recipe, dataset, store, stop=stop)


def test_stop_in_the_report_ends_it_as_killed(runs, recipe, dataset, store, monkeypatch, few_figures):
    """Between two figures; the same command makes it again."""
    monkeypatch.setattr(build, "_existing_report", lambda *_, mark: None)
    stop, figure = threading.Event(), type(runs[0]).figure
    monkeypatch.setattr(type(runs[0]), "figure", lambda *what: (figure(*what), stop.set()))
    with pytest.raises(Stopped):
        run_report(recipe, dataset, store, stop=stop)
    (run,) = store.find("report", max=1)
    assert (run.status, len([name for name in run.files if name.startswith("figures/")])) == ("KILLED", 1)


def test_a_report_that_fails_is_marked(recipe, dataset, store, runs, monkeypatch, few_figures):
    """A half report must not look like one."""
    monkeypatch.setattr(build, "_existing_report", lambda *_, mark: None)
    monkeypatch.setattr(build, "write_report", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        run_report(recipe, dataset, store)
    assert store.find("report", max=1)[0].status == "FAILED"


def test_the_same_report_is_not_made_twice(runs, report, recipe, dataset, store, monkeypatch, capsys):
    """The same recipe, the same runs, the same code: a second row of the same name would only be in the way."""
    monkeypatch.setattr(build.analysis, "compute_results", lambda *_, **__: pytest.fail("computed again"))
    assert run_report(recipe, dataset, store).id == report.id
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["recipe", "code", "page"])
def test_a_report_is_made_again_when_anything_in_it_may_have_changed(
    runs, report, recipe, dataset, store, monkeypatch, change
):
    """Another reason on top, another program, or a page that is damaged."""
    if change == "recipe":
        recipe = recipe.model_copy(update={"why": "to see"})
    elif change == "code":
        monkeypatch.setattr(build, "package_digest", lambda: "another program")
    else:
        read = type(report).read
        broken = StoreError("report.html is damaged")
        monkeypatch.setattr(
            type(report), "read", lambda run, name: read(run, name) if name != "report.html" else raised(broken)
        )
    monkeypatch.setattr(build.analysis, "compute_results", lambda *_, **__: raised(KeyError("computed again")))
    with pytest.raises(KeyError, match="computed again"):
        run_report(recipe, dataset, store)


def raised(error):
    raise error


# --------------------------------------------------------------------------------------------------------- other kinds


def metrics(report, group):
    """The proxies' Spearman correlations of one group."""
    return {name for name in report.metrics if name.startswith(f"{group}/spearman/")}


@pytest.fixture(scope="module")
def untested(recipe, stores):
    """A study of a few color images without a test split, as a folder may hold them."""
    return run_study(recipe, blobs(24, 0, n_classes=4, shape=(3, 8, 8)), stores())


def test_a_data_set_without_a_test_split_has_its_study(untested):
    """No CBGL, no test accuracy, everything else."""
    assert "test/accuracy" not in untested[0].metrics | untested[1].metrics
    assert set(untested[0].read_table("cscore.parquet")["split"]) == {"train"}
    computed = set(untested[1].read_json("scores.json"))
    assert metrics(untested[-1], "rank") == {f"rank/spearman/{name}" for name in computed}
    assert {PROXIES[name].on for name in computed} == {"train"}


def test_the_report_of_a_few_images_has_its_figures(untested):
    """Some have next to nothing to show."""
    assert len([name for name in untested[-1].files if name.startswith("figures/")]) == 16
    assert "report.html" in untested[-1].files


@pytest.fixture(scope="module")
def narrow(recipe, dataset, stores):
    """A study of one proxy, and of ten members at 30 %: one balanced block, so no second half."""
    block = recipe.subset.model_copy(update={"design": "balanced", "ratios": (0.3,), "members": 10})
    return run_study(recipe.model_copy(update={"subset": block, "proxies": {"cbtl": {}}}), dataset, stores())


def test_a_study_of_one_proxy_has_its_report(narrow):
    """Figures of what was not computed say so instead of failing after hours of training."""
    assert metrics(narrow[-1], "rank") == {"rank/spearman/cbtl"}
    assert "report.html" in narrow[-1].files


def test_a_study_without_a_second_half_has_no_ceiling(narrow):
    """No reliability is not a reliability of 0 or 1."""
    assert not any(name.startswith("reliability/") for name in narrow[0].metrics)
    assert narrow[-1].read_table("correlations.parquet")["ceiling"].isna().all()


@pytest.fixture(scope="module")
def again(runs, recipe, dataset, store, stores, tmp_path_factory):
    """The same command once more, after published scores were given."""
    copy = stores()
    shutil.copytree(store.root, copy.root, dirs_exist_ok=True)
    copy = open_store(copy.root, copy.uri)
    ours = runs[0].read_table("cscore.parquet")["cscore"][: dataset.n_train]
    table = pd.DataFrame({"label": dataset.labels[: dataset.n_train], "cscore": ours.fillna(0.5)})
    file = tmp_path_factory.mktemp("published") / "theirs.csv"
    table.to_csv(file)
    log_reference(file, "digits", dataset, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "figure_sections", two_figures)
        return run_study(recipe, dataset, copy)


def test_with_published_scores_the_same_command_makes_a_new_report_of_the_same_runs(runs, again, correlations):
    """Nothing is trained, nothing is overwritten, the numbers stay."""
    assert [run.id for run in again[:3]] == [run.id for run in runs[:3]]
    assert again[3].id != runs[3].id
    table = again[3].read_table("correlations.parquet")
    computed = table[table["reference"] != "published"].reset_index(drop=True)
    pd.testing.assert_frame_equal(computed, correlations, check_exact=True)


def test_published_scores_are_in_the_next_report(again):
    """As metrics of their own, and as rows of the table."""
    assert "published/spearman/cbtl" in again[3].metrics
    assert "published" in set(again[3].read_table("correlations.parquet")["reference"])


def test_single_runs_alone_are_held_against_published_scores(recipe, dataset, stores, tmp_path, monkeypatch):
    """One ResNet, with the authors' file or without: no ensemble of one's own is needed."""
    store, alone = stores(), recipe.model_copy(update={"kind": "single"})
    without = run_study(alone, dataset, store)[-1]
    listed = pd.read_csv(without.read("suspects.csv"))
    assert len(listed) == dataset.n_train  # a proxy of the training scores no test example
    assert listed["target_confidence"].is_monotonic_increasing
    assert "Check these first" in without.read_text("report.html")
    assert {"figures/Z-fig2.png", "figures/matrix.png"} <= set(without.files)
    unranked = without.read_table("leaderboard.parquet")
    assert unranked["spearman"].isna().all()
    assert unranked["seeds"].notna().any()
    labels = dataset.labels[: dataset.n_train]
    np.savez(tmp_path / "theirs.npz", labels=labels, scores=np.linspace(0, 1, dataset.n_train))
    log_reference(tmp_path / "theirs.npz", "digits", dataset, store)
    monkeypatch.setattr(build, "figure_sections", two_figures)
    report = run_report(alone, dataset, store)
    assert set(report.read_table("correlations.parquet")["reference"]) == {"published"}
    assert metrics(report, "published")


def test_an_ensemble_alone_has_its_report(runs, recipe, dataset, store):
    """Suspects by the soft C-score, and every figure that reads no proxy."""
    report = run_report(recipe.model_copy(update={"kind": "ensemble"}), dataset, store)
    listed = pd.read_csv(report.read("suspects.csv"))
    assert listed["cscore_soft"].is_monotonic_increasing
    assert {"figures/J-fig4.png", "figures/J-fig2.png"} <= set(report.files)
    assert "figures/proxies.png" not in report.files
    assert "% of unseen images right" in report.read_text("report.html")


def test_permuted_examples_give_a_study_of_their_own(runs, recipe, dataset, store):
    """The same images in another order draw other subsets, and have another digest: nothing is mixed."""
    order = np.r_[np.random.default_rng(0).permutation(120), np.arange(120, 150)]
    permuted = replace(
        dataset, images=dataset.images[order], labels=dataset.labels[order], ids=dataset.ids[order], digest="permuted"
    )
    with pytest.raises(AnalysisError, match="was trained on other data"):
        load_runs(recipe, permuted, store)


# -------------------------------------------------------------------------------------------------------------- server


def test_a_study_through_a_server_gives_the_same_bytes(
    runs, recipe, dataset, served, tmp_path, monkeypatch, few_figures
):
    """MLFLOW_TRACKING_URI is all that a team changes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served[0])
    remote = open_store(tmp_path / "client")
    one = recipe.model_copy(update={"data": recipe.data.model_copy(update={"label": "served"})})
    there = run_study(one, dataset, remote)
    assert [run.experiment for run in there] == ["served/ensemble", "served/single", "served/single", "served/report"]
    for name in ("cscore.parquet", "profile.parquet"):
        assert there[0].read(name).read_bytes() == runs[0].read(name).read_bytes()
    for here, far in zip(runs[1:3], there[1:3], strict=True):
        assert far.read("scores.parquet").read_bytes() == here.read("scores.parquet").read_bytes()
    assert there[3].read("correlations.parquet").read_bytes() == runs[3].read("correlations.parquet").read_bytes()
    assert remote.link(there[3]).startswith(served[0])


def test_text_in_suspects_is_no_formula():
    """A class `=cmd|...` would be run by a spreadsheet."""
    table = pd.DataFrame({"class": ["=cmd|' /C calc'!A0", "+1", "cat"], "score": [-1.0, 0.5, 1.0]})
    quoted = build.readable_in_spreadsheets(table)
    assert quoted["class"].tolist() == ["'=cmd|' /C calc'!A0", "'+1", "cat"]
    assert quoted["score"].tolist() == [-1.0, 0.5, 1.0]
