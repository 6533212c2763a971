"""The page shows what the runs hold: figures of one training only where it has kept what they draw."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from study import analysis
from study.analysis.single_run import depth_and_margins
from study.experiments.sweep import train_parts
from study.proxies.depth import prediction_depth
from study.report import sections, tables
from tests.toys import blobs_with_errors, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

SUBSET = {"ratios": [0.3, 0.7], "members": 4}
INNER = {"B-fig1", "B-fig3", "B-fig4", "B-fig5", "B-fig8", "A-class", "A-csr"}
WITH_PROBES = (
    "prediction_depth",
    "prediction_depth_test",
    "output_margin",
    "loss_sensitivity",
    "critical_sample_steps",
)


@pytest.fixture(scope="module")
def dataset():
    return blobs_with_errors()


@pytest.fixture(scope="module")
def study_results(dataset, stores):
    """A function from names of proxies to the results of a study's ensemble and single run, in a store of their own."""

    def of(*proxies):
        store = stores()
        recipe = toy_recipe("study", subset=SUBSET, proxies={name: {} for name in proxies})
        train_parts(recipe, dataset, store)
        return analysis.compute_results(analysis.load_runs(recipe, dataset, store), recipe, dataset, store)

    return of


@pytest.fixture(scope="module")
def full(study_results):
    return study_results(*WITH_PROBES)


def ids(results):
    """Of the sections on the page, in order."""
    return [section.id for section in sections.figure_sections(results)]


def test_depth_and_sensitivity_are_shown_where_they_were_taken(full):
    """Who asks for them sees them, without opening an array."""
    assert set(ids(full)) >= INNER | {"Z-fig2"}


def test_what_was_not_taken_is_not_on_the_page(study_results):
    """Empty frames would make a long page longer; the plane of regularity needs no more than the trajectory."""
    result = study_results("cbtl")
    assert not set(ids(result)) & INNER
    assert "Z-fig2" in ids(result)
    assert "depth and margins" not in result.facts
    assert "probes.npz" not in {file.name for file in tables.file_entries(result)}


def test_the_files_of_the_probes_are_named(full):
    """With the run that holds them."""
    assert ("probes.npz", full.runs.singles[0].id) in {(file.name, file.run) for file in tables.file_entries(full)}


def test_the_depths_are_those_of_the_probes(full, dataset):
    """Rows in the order of the data set, beside their own C-scores."""
    depths = analysis.single_run_depths(full.runs, dataset)
    kept = full.runs.singles[0].read_arrays("probes.npz")
    scores = full.runs.scores[0]
    train = dataset.rows("train")
    np.testing.assert_array_equal(depths.table["depth"], prediction_depth(kept["probe_class"], kept["final_class"]))
    np.testing.assert_array_equal(depths.table["depth"][train], scores["prediction_depth"][train])
    np.testing.assert_array_equal(depths.table["cscore"], full.runs.cscores["cscore"])
    assert depths.layers == ("input", "blocks.0", "blocks.1", "softmax")


def test_changed_labels_have_curves_of_their_own(full, dataset):
    """B-fig5: the mislabeled, by their new labels and by those that they were found with, worked out in a loop."""
    depths = analysis.single_run_depths(full.runs, dataset)
    assert list(depths.curves) == ["unchanged", "mislabeled", "original labels", "test"]
    predictions = full.runs.singles[0].read_arrays("probes.npz")["probe_class"]
    changed = [row for row in range(dataset.n_train) if dataset.labels[row] != dataset.labels_before_noise[row]]
    assert len(changed) == 12
    for layer, share in enumerate(depths.curves["original labels"]):
        assert share == np.mean([predictions[layer, row] == dataset.labels_before_noise[row] for row in changed])


def test_probe_curves_are_means_over_the_lowest_and_highest_scores(full, dataset):
    """B-fig8 without an ensemble that knows depths: thirty test examples, a third in each group, in plain loops."""
    curves = analysis.probe_curves(full.runs, dataset, None)
    kept, cscores = full.runs.singles[0].read_arrays("probes.npz"), full.runs.cscores
    test = cscores[cscores["split"] == "test"].sort_values("cscore", kind="stable").index
    assert list(dict.fromkeys(curves["group"])) == [f"{g} C-scores, test" for g in ("lowest", "middle", "highest")]
    for group, rows in (("lowest C-scores, test", test[:10]), ("highest C-scores, test", test[-10:])):
        for target, classes in (("ground truth", dataset.labels), ("consensus", cscores["consensus"].to_numpy())):
            curve = curves[(curves["group"] == group) & (curves["target"] == target)]
            assert curve["layer"].tolist() == [0, 1, 2, 3]
            assert (curve["n"] == 10).all()
            for layer in range(4):
                sure = np.mean([kept["votes"][layer, row, classes[row]] / 30 for row in rows])
                right = np.mean([kept["probe_class"][layer, row] == classes[row] for row in rows])
                assert curve["confidence"].iloc[layer] == pytest.approx(sure, abs=1e-3)  # one is kept as float16
                assert curve["accuracy"].iloc[layer] == pytest.approx(right)


def test_probe_curves_follow_the_corners_where_they_are_known(full, dataset):
    """The groups are the paper's: the examples nearest to each form of difficulty."""
    rows = {"easy": [3, 5, 8], "ambiguous": [40, 41]}
    corners = pd.DataFrame(
        [(name, dataset.ids[row]) for name in rows for row in rows[name]], columns=["type", "example"]
    )
    curves = analysis.probe_curves(full.runs, dataset, SimpleNamespace(corners=corners))
    kept = full.runs.singles[0].read_arrays("probes.npz")
    assert list(dict.fromkeys(curves["group"])) == list(rows)
    for name, members in rows.items():
        accuracy = curves[(curves["group"] == name) & (curves["target"] == "ground truth")]["accuracy"]
        expected = (kept["probe_class"][:, members] == dataset.labels[members]).mean(axis=1)
        np.testing.assert_allclose(accuracy, expected)


def test_the_series_of_sensitivity_are_the_metrics(full):
    """One row per due epoch."""
    run = full.runs.singles[0]
    series = analysis.sensitivity_series(run)
    assert set(series) == {f"sensitivity/{name}" for name in ("gini", "critical_ratio_train", "critical_ratio_test")}
    assert series.index.tolist() == [1, 2, 3]
    assert series["sensitivity/gini"].iloc[-1] == run.metrics["sensitivity/gini"]


def test_the_matrix_of_sensitivity_is_the_mean_over_training(full, dataset):
    """A-class, averaged over the moments that the run has kept."""
    run = full.runs.singles[0]
    kept = run.read_arrays("loss_sensitivity.npz")["class_sensitivity"]
    assert kept.shape == (3, dataset.n_classes, dataset.n_classes)
    np.testing.assert_allclose(analysis.mean_class_sensitivity(run), (kept[0] + kept[1] + kept[2]) / 3)


def test_depth_and_margins_correlate_as_scipy_says(full, dataset):
    """B-fig6: Pearson with the logarithm of the margin, in the facts, over the examples with a depth."""
    from scipy.stats import pearsonr

    scores = full.runs.scores[0][dataset.rows("train")]
    shallow = scores[scores["prediction_depth"] < 4]
    expected = pearsonr(shallow["prediction_depth"], np.log(shallow["output_margin"])).statistic
    assert f"output margin {expected:.3f} (train)".replace("-", "−") in full.facts["depth and margins"]


def test_an_undefined_depth_in_one_repeat_leaves_the_example_out(full, dataset):
    """Its stand-in, one above the last layer, must not be averaged with depths."""
    scores = full.runs.scores[0]
    other = scores.copy()
    other.loc[:39, "prediction_depth"] = 4
    both = replace(full.runs, scores=(scores, other))
    rest = [table[40:].reset_index(drop=True) for table in (scores, other)]
    kept = replace(dataset, n_train=dataset.n_train - 40)
    result = depth_and_margins(both, dataset)
    assert "output margin" in result["depth and margins"]
    assert result == depth_and_margins(replace(full.runs, scores=tuple(rest)), kept)


def test_the_plane_counts_every_example(full, dataset):
    """Train and test apart; the density is that of its own split."""
    planes = analysis.planes(full.runs.singles[0], dataset)
    assert {split: len(table) for split, table in planes.items()} == {"train": 120, "test": 30}
    assert all((table["density"] > 0).all() for table in planes.values())
    wide = analysis.planes(full.runs.singles[0], dataset, radius=1000.0)["train"]
    assert wide["density"].to_numpy() == pytest.approx(120 / (np.pi * 1000**2))


def test_every_section_has_its_place_on_the_page(full):
    """A section that ORDER does not know would end the report."""
    assert sorted(ids(full), key=sections.ORDER.index) == ids(full)
    assert len(set(sections.ORDER)) == len(sections.ORDER)
