"""Zhang's analyses over repeats are what loops over the runs' files say."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from study.analysis.by_epoch import trajectory
from study.errors import RecipeError
from study.experiments import zhang
from study.experiments.analyses import run_analyses
from study.experiments.findings import FinishedRuns
from study.experiments.page import write_folder
from study.experiments.paper_numbers import alike_pairs, paper_numbers
from study.experiments.reproduce import reproduce
from study.experiments.select import Group, group_runs
from study.experiments.sweep import CellData, run_sweep
from study.experiments.zhang_robustness import STATISTICS, agreement_of_statistics
from study.experiments.zhang_synchronization import penultimate_features
from study.figures.plane_pictures import nearest_to_centres
from study.recipe import parse
from study.scores.regularity_plane import representation, sample_density
from study.workflows.compare import work_comparison
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

PROXIES = ("cbtl", "cbgl", "forgetting_events", "malgeneralizing_events", "cbtl_online", "forgetting_events_online")


@pytest.fixture(scope="module")
def recipe():
    """One training, three repeats, and the analyses that the recipe names."""
    base = toy_recipe("single", proxies={name: {} for name in PROXIES}, train={"epochs": 12}, single={"keep": "final"})
    table = {"model.settings.widths": [[16, 8]], "repeats": 3, "analyses": ["Z-fig6"]}
    return parse({**base.model_dump(), "sweep": table}, "toy sweep")


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def sweep(recipe, store):
    return run_sweep(recipe, store, dataset=blobs())


@pytest.fixture(scope="module")
def runs(store, sweep):
    return FinishedRuns(group_runs(store.find("single")), store, CellData(blobs()))


@pytest.fixture(scope="module")
def correct(runs):
    """{split: correct (e, n) of each repeat}."""
    of_runs = [trajectory(run)["correct"] for run in runs.groups[0].runs]
    n_train = blobs().n_train
    return {"train": [each[:, :n_train] for each in of_runs], "test": [each[:, n_train:] for each in of_runs]}


def test_density_correlations_are_the_mean_over_all_pairs(runs, correct):
    """By scipy, of densities counted repeat by repeat (Z-fig6)."""
    (finding,) = zhang.density_correlations(runs)
    for split, of_repeats in correct.items():
        densities = [sample_density(*representation(each)) for each in of_repeats]
        expected = np.mean([stats.pearsonr(a, b)[0] for a, b in itertools.combinations(densities, 2)])
        assert finding.numbers[f"Z-fig6/density_pearson_{split}"] == pytest.approx(expected)


def test_analyses_of_a_recipe_are_kept_with_the_sweep(recipe, store, sweep, tmp_path):
    """Their figures and tables below comparison/, their numbers as metrics."""
    comparison = work_comparison([recipe], "", store)
    kept = store.get(sweep.id)
    assert {"comparison/Z-fig6.png", "comparison/Z-fig6.csv"} <= set(kept.files)
    assert np.isfinite(kept.metrics["Z-fig6/density_pearson_train"])
    written = {file.name for file in write_folder(comparison, tmp_path)}
    assert {"Z-fig6.png", "Z-fig6.csv"} <= written
    assert "Density vectors of 3 repeats" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_an_analysis_that_is_not_there_is_named(runs):
    """With the one that was meant."""
    with pytest.raises(RecipeError, match=r"no analysis 'Z-fig66'; did you mean 'Z-fig6'"):
        run_analyses(["Z-fig66"], runs)


def test_repeats_that_are_not_there_are_named(runs, caplog):
    """One run says nothing of repeats; the other analyses are made."""
    one = FinishedRuns(group_runs(runs.groups[0].runs[:1]), runs.store)
    assert [finding.name for finding in run_analyses(["Z-fig6", "Z-fig7"], one)] == ["Z-fig7"]
    assert "Z-fig6 is left out: needs single runs with at least 2 repeats" in caplog.text


def test_the_plane_is_that_of_the_means(runs, correct):
    """Right epochs and events are averaged over the repeats first, densities are counted afterwards (Z-fig2)."""
    planes = zhang.mean_planes(runs.groups[0])
    for split, of_repeats in correct.items():
        right, events = (np.mean([representation(each)[axis] for each in of_repeats], axis=0) for axis in (0, 1))
        assert planes[split]["right"].to_numpy() == pytest.approx(right)
        assert planes[split]["events"].to_numpy() == pytest.approx(events)
        radius = np.hypot(np.ptp(right) / 30, np.ptp(events) / 30)
        near = np.hypot(right[:, None] - right, events[:, None] - events) <= radius
        assert planes[split]["density"].to_numpy() == pytest.approx(near.sum(axis=1) / (np.pi * radius**2))


def test_event_epochs_are_those_of_a_loop(runs, correct):
    """Right after one epoch, wrong after the next; an example of the middle and one of the end (Z-fig5)."""
    table = zhang.event_epochs(runs.groups[0])
    assert len(table) == 4 * 3
    ids = {example: number for number, example in enumerate(blobs().ids)}
    for row in table.to_dict("records"):
        place = ids[row["example"]] - (blobs().n_train if row["split"] == "test" else 0)
        states = correct[row["split"]][row["repeat"]][:, place]
        expected = [epoch + 1 for epoch in range(1, len(states)) if states[epoch - 1] and not states[epoch]]
        assert (row["epoch"], row["events"], row["right"]) == (expected, len(expected), states.sum())


def test_histograms_of_events_are_compared_over_common_bins(runs, correct):
    """By scipy, on shares of the examples; the mean over the repeats is the number (Z-fig7)."""
    (finding,) = zhang.memorization_and_generalization(runs)
    expected = []
    for train, test in zip(correct["train"], correct["test"], strict=True):
        events = [representation(each)[1] for each in (train, test)]
        bins = range(max(map(max, events)) + 2)
        expected.append(stats.pearsonr(*(np.histogram(each, bins)[0] / len(each) for each in events))[0])
    assert finding.table["pearson"].tolist() == pytest.approx(expected)
    assert finding.numbers["Z-fig7/histogram_pearson"] == pytest.approx(np.mean(expected))
    numbers = paper_numbers().query("id == 'Z-fig7'")
    table = reproduce(runs.store, numbers)
    assert table["value"].tolist() == pytest.approx([np.mean(expected)] * len(numbers))
    assert set(table["verdict"]) == {"other scale"}


def trajectory_online(run):
    """(e, n_train) right before the step on the example."""
    arrays = run.read_arrays("trajectory.npz")
    return np.unpackbits(arrays["online_correct"], axis=1, count=int(arrays["n_train"])).astype(bool)


def test_online_counts_are_compared_repeat_by_repeat(runs):
    """CBTL as each run has logged it; of forgetting events the never right have none here, by Eq. 1 (Z-online)."""
    (finding,) = zhang.online_counts(runs)
    expected = [run.metrics["online/cbtl_pearson"] for run in runs.groups[0].runs]
    assert finding.table.query("statistic == 'cbtl'")["pearson"].tolist() == pytest.approx(expected, abs=1e-5)
    errors = []
    for run in runs.groups[0].runs:
        online = trajectory_online(run)
        counts = [representation(each)[1] for each in (trajectory(run)["correct"][:, : online.shape[1]], online)]
        errors.append(np.abs(counts[0] - counts[1]).mean())
    table = reproduce(runs.store, paper_numbers().query("statistic == 'online/forgetting_events/mean_absolute_error'"))
    assert table["value"].tolist() == pytest.approx([np.mean(errors)])


def test_pictures_stand_for_their_parts_of_the_plane(runs):
    """No two in one part; each example lies in its part (Z-fig2)."""
    points = zhang.mean_planes(runs.groups[0])["train"]
    right, events = points["right"].to_numpy(), points["events"].to_numpy()
    chosen = nearest_to_centres(right, events)
    assert len(chosen) > 3
    for (column, row), number in chosen.items():
        assert column in (int((right[number] - right.min()) / np.ptp(right) * 9), 8)
        assert row in (int((events[number] - events.min()) / np.ptp(events) * 6), 5)


def test_every_analysis_of_repeats_draws(runs):
    """From one set of runs, with files of different names; the test of support vectors is a table."""
    findings = run_analyses(["Z-fig2", "Z-fig3", "Z-fig5", "Z-fig6", "Z-fig7", "Z-online", "Z-sync"], runs)
    assert len({finding.name for finding in findings}) == len(findings) == 10
    assert all(finding.png.startswith(b"\x89PNG") for finding in findings[:-1])
    assert set(findings[-1].table) == {"example", "trained_on", "synchronized", "with", "without"}


def test_the_penultimate_layer_is_that_of_the_kept_network(runs):
    """Of the run that is asked, in the order of the data set: its features tell the classes apart."""
    features = penultimate_features(runs.groups[0].runs[0], blobs())
    assert features.shape == (150, 8)
    train = slice(0, blobs().n_train)
    classifier = LinearDiscriminantAnalysis().fit(features[train], blobs().labels[train])
    assert classifier.score(features[train], blobs().labels[train]) > 0.8


@pytest.fixture(scope="module")
def two(runs):
    """The repeats as two trainings of different networks."""
    first, *others = runs.groups[0].runs
    data = runs.groups[0].data
    groups = (Group("a", "single", data, (first,), {}), Group("b", "single", data, tuple(others), {}))
    return FinishedRuns(groups, runs.store, runs.data)


def test_statistics_between_trainings_are_of_means_over_repeats(two, correct):
    """By scipy; densities are counted run by run (Z-tab2, Z-fig11)."""
    table = agreement_of_statistics(two.groups).set_index("statistic")["pearson"]
    assert table.index.tolist() == list(STATISTICS.values())
    for (name, split), title in STATISTICS.items():
        points = [representation(each) for each in correct[split]]
        of_runs = {
            "right": [point[0] for point in points],
            "events": [point[1] for point in points],
            "density": [sample_density(*point) for point in points],
        }[name]
        assert table[title] == pytest.approx(stats.pearsonr(of_runs[0], np.mean(of_runs[1:], axis=0))[0])


def test_trainings_are_drawn_next_to_each_other(two, runs, caplog):
    """And named as missing where there is one."""
    findings = run_analyses(["Z-tab2", "Z-fig11"], two)
    assert [len(finding.table) for finding in findings] == [6, 2]
    assert all(finding.png for finding in findings)
    assert run_analyses(["Z-tab2"], runs) == []
    assert "Z-tab2 is left out: needs two trainings" in caplog.text


def test_optimizers_are_compared_on_one_network():
    """Of several pairs the one counts that differs in the fewest parameters, on the paper's data first."""

    def training(width, optimizer, data="digits"):
        params = {"data.name": data, "model.name": "mlp", "width": width, "optimizer.name": optimizer, "seed": width}
        return Group(
            f"{width} {optimizer} {data}",
            "single",
            data,
            (SimpleNamespace(params=params, experiment="mnist/single"),),
            {},
        )

    sgd, adam = (
        [training("32", "sgd"), training("64", "sgd")],
        [training("64", "adam"), training("8", "adam", "cifar10")],
    )
    (first, second), *_ = alike_pairs([*sgd, training("16", "sgd", "cifar10")], adam, "cifar10", "any")
    assert (first.label, second.label) == ("16 sgd cifar10", "8 adam cifar10")
    (first, second), _ = alike_pairs(sgd, adam, "cifar10", "any")
    assert (first.label, second.label) == ("64 sgd digits", "64 adam digits")
