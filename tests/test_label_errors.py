"""What each score finds of changed labels: from a whole study to the table, the files and the page."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from study import analysis
from study.analysis.label_errors import LabelErrors
from study.errors import AnalysisError
from study.report import label_errors as page
from study.runs.ensemble import run_ensemble
from study.runs.single import run_singles
from tests.toys import blobs_with_errors, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def dataset():
    return blobs_with_errors()


@pytest.fixture(scope="module")
def runs(dataset, stores):
    """An ensemble and two single runs."""
    store = stores()
    recipe = toy_recipe("study", single={"repeats": 2}, proxies={"cbtl": {}, "aum": {}, "cbgl": {}})
    run_ensemble(recipe.part("ensemble"), dataset, store)
    run_singles(recipe.part("single"), dataset, store)
    return analysis.load_runs(recipe, dataset, store)


@pytest.fixture(scope="module")
def errors(runs, dataset) -> LabelErrors:
    return analysis.label_errors(runs, dataset)


def test_every_score_of_training_examples_has_a_row(errors):
    """Hard, soft, each ratio, votes, proxies; CBGL scores test examples, which have no changed labels."""
    ratios = {"cscore_30", "cscore_70"}
    assert set(errors.table["score"]) == {"cscore", "cscore_soft", "consensus_disagreement", "cbtl", "aum"} | ratios


def test_c_scores_are_measured_as_sklearn_does(errors, runs, dataset):
    """A low score is suspect."""
    wrong = (dataset.labels != dataset.clean_labels)[dataset.rows("train")]
    scores = -runs.cscores["cscore_soft"][: dataset.n_train]
    wrong, scores = wrong[scores.notna()], scores.dropna()  # some are held out by no network of one ratio
    row = errors.table.set_index("score").loc["cscore_soft"]
    assert row["auroc"] == pytest.approx(roc_auc_score(wrong, scores))
    assert row["average_precision"] == pytest.approx(average_precision_score(wrong, scores))
    assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]


def test_proxies_are_means_over_the_repeats(errors, runs, dataset):
    """High AUM means easy, so it is turned."""
    wrong = (dataset.labels != dataset.clean_labels)[dataset.rows("train")]
    repeats = [average_precision_score(wrong, -scores["aum"][: dataset.n_train]) for scores in runs.scores]
    assert len(repeats) == 2
    assert errors.table.set_index("score").loc["aum", "average_precision"] == pytest.approx(np.mean(repeats))


def test_curves_begin_at_nothing_and_end_at_all(errors):
    """Whoever inspects everything finds everything."""
    for _, curve in errors.curves.groupby("score"):
        assert (curve["recall"].iloc[0], curve["recall"].iloc[-1]) == (0, pytest.approx(1))
        assert curve["recall"].is_monotonic_increasing


def test_true_noise_is_counted(errors, dataset):
    """Twelve examples under the next class."""
    assert (errors.n, errors.errors) == (120, 12)
    assert errors.true.sum() == 120
    assert errors.true.trace() == 108
    assert sum(errors.true[(label + 1) % 3, label] for label in range(3)) == 12


def test_flags_and_suggestions_are_those_of_a_loop(errors, runs, dataset):
    """Precision and recall of what the confident joint flags; the consensus of wrong labels."""
    table = runs.cscores[: dataset.n_train]
    thresholds = {label: rows["cscore"].mean() for label, rows in table.groupby("label")}
    flagged, right, wrong = set(), 0, set()
    for row, example in table.iterrows():
        confident = example["consensus_consistency"] >= thresholds[example["consensus"]] - 1e-12
        if confident and example["consensus"] != example["label"]:
            flagged.add(row)
        if example["label"] != dataset.clean_labels[row]:
            wrong.add(row)
            right += example["consensus"] == dataset.clean_labels[row]
    assert errors.flagged == len(flagged)
    assert errors.flagged_precision.value == pytest.approx(len(flagged & wrong) / len(flagged))
    assert errors.flagged_recall.value == pytest.approx(len(flagged & wrong) / len(wrong))
    assert errors.suggestions.value == pytest.approx(right / len(wrong))


def test_labels_that_nobody_knows_to_be_wrong_are_refused(runs, dataset):
    """One line, which says how to plant some."""
    clean = replace(dataset, labels_before_noise=None)
    with pytest.raises(AnalysisError, match=r"noise\.labels=symmetric"):
        analysis.label_errors(runs, clean)


def test_files_hold_what_the_table_holds(errors, dataset, tmp_path):
    """For other tools, and for a paper."""
    files = page.write_folder(errors, dataset.classes, tmp_path / "out")
    assert {file.name for file in files} == {
        "label_errors.csv",
        "inspection_curves.csv",
        "noise_matrix.csv",
        "inspection.png",
        "noise_matrix.png",
    }
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "label_errors.csv"), errors.table)
    assert pd.read_csv(tmp_path / "out" / "noise_matrix.csv")["true"].sum() == errors.n


def test_the_page_shows_curves_matrices_and_a_table(errors, dataset):
    """In the report of a study whose labels were changed."""
    assert [section.id for section in page.figure_sections(errors, dataset.classes)] == ["label-errors", "noise-matrix"]
    assert len(page.table_section(errors).frame) == len(errors.table)
