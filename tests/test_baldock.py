"""Baldock's analyses are what loops over the runs' files say."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from study.errors import AnalysisError
from study.experiments import baldock, baldock_difficulty, baldock_single
from study.experiments.analyses import ANALYSES, run_analyses
from study.experiments.baldock import depths_of, members_of
from study.experiments.baldock_difficulty import middle_against_network, probe_curves
from study.experiments.baldock_single import (
    curve_of,
    learned_table,
    margin_cloud,
    neighbours_of_probes,
    training_name,
)
from study.experiments.findings import FinishedRuns
from study.experiments.select import group_runs
from study.experiments.sweep import CellData
from study.proxies.learning_speed import iteration_learned
from study.runs.ensemble import run_ensemble
from study.runs.shards import depths_and_predictions, probe_sums
from study.runs.single import run_singles
from study.scores.depth_statistics import MemberPredictions
from tests.toys import blobs_with_errors, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

NAMES = ("prediction_depth", "prediction_depth_test", "iteration_learned", "output_margin", "output_margin_test")
PROXIES = {name: {} for name in (*NAMES, "adversarial_margin", "adversarial_margin_test")}
WIDTHS = ([12, 12], [8, 8, 8])


@pytest.fixture(scope="module")
def store(stores):
    return stores()


@pytest.fixture(scope="module")
def dataset():
    return blobs_with_errors()


def of(kind: str, widths: list[int], **tables: object):
    """A recipe of one of the two networks."""
    model = {"name": "mlp", "settings": {"widths": widths}}
    subset = {"ratios": [0.5], "members": 6, "design": "balanced", "depth": True}
    return toy_recipe(kind, model=model, subset=subset, **tables)


@pytest.fixture(scope="module")
def ensembles(store, dataset):
    return [run_ensemble(of("ensemble", widths), dataset, store) for widths in WIDTHS]


@pytest.fixture(scope="module")
def singles(store, dataset):
    """Three repeats of each network, which keep their last state."""
    single = {"repeats": 3, "keep": "final"}
    return [
        run
        for each in WIDTHS
        for run in run_singles(of("single", each, proxies=PROXIES, single=single), dataset, store)
    ]


@pytest.fixture(scope="module")
def runs(store, dataset, ensembles, singles):
    return FinishedRuns(group_runs([*ensembles, *singles]), store, CellData(dataset))


def test_the_members_probes_are_of_examples_held_out(runs, store, dataset):
    """Thirty votes of each member that holds an example out; the softmax probe agrees but where depth is undefined."""
    recipe = of("ensemble", WIDTHS[0])
    votes, predicted = probe_sums(store, recipe, dataset)
    parts = [np.concatenate(each) for each in zip(*depths_and_predictions(store, recipe, dataset), strict=True)]
    depth, inside, final = parts
    outside = (~inside).sum(axis=0)
    assert (votes.sum(axis=2) == 30 * outside).all()
    assert (predicted.sum(axis=2) == outside).all()
    for row in range(dataset.n):
        agreeing = [final[m, row] for m in range(len(final)) if not inside[m, row] and depth[m, row] >= 0]
        undefined = sum(depth[m, row] < 0 for m in range(len(final)) if not inside[m, row])
        assert np.abs(np.bincount(agreeing, minlength=3) - predicted[-1, row]).sum() <= undefined


def test_depths_of_two_halves_agree_as_scipy_says(runs, store, dataset):
    """Every second member; the diagonal is one architecture with other seeds (B-fig2)."""
    (finding,) = run_analyses(["B-fig2"], runs)
    shards = depths_and_predictions(store, of("ensemble", WIDTHS[0]), dataset)
    depth, inside, _ = [np.concatenate(each) for each in zip(*shards, strict=True)]
    means = []
    for half in (0, 1):
        held_out = np.where(inside[half::2] | (depth[half::2] < 0), np.nan, depth[half::2])[:, : dataset.n_train]
        with np.errstate(invalid="ignore"):
            means.append(np.nansum(held_out, axis=0) / np.isfinite(held_out).sum(axis=0))
    both = np.isfinite(means[0]) & np.isfinite(means[1])
    table = finding.table.query("split == 'validation'")
    same = table[table["a"] == table["b"]].iloc[0]
    assert same["spearman"] == pytest.approx(stats.spearmanr(means[0][both], means[1][both]).statistic)
    assert len(table) == 4
    assert finding.png[:4] == b"\x89PNG"


def test_a_middle_layer_is_set_against_the_network(dataset):
    """By hand: the network is right one time in four, the probe of layer 1 of 0 to 2 always (B-fig8)."""
    n, c = dataset.n, dataset.n_classes
    wrong, rows = (dataset.labels + 1) % c, np.arange(n)
    predicted = np.zeros((n, c), dtype=np.int64)
    predicted[rows, dataset.labels], predicted[rows, wrong] = 1, 3
    train, validation = np.zeros(n), np.zeros(n)
    train[1::2], validation[::2] = 1, 1
    folded = MemberPredictions(train, validation, predicted, np.zeros((2, 3, 2), np.int64))
    probes = np.zeros((3, n, c), dtype=np.int64)
    probes[0, rows, wrong] = probes[1, rows, dataset.labels] = probes[2, rows, wrong] = 4
    curves = probe_curves(30 * probes, probes, folded, dataset, count=20)
    (row,) = [
        row
        for row in middle_against_network(curves, folded, dataset)
        if row["type"] == "ambiguous unless the label is given"
    ]
    assert (row["network"], row["middle layer"], row["best layer"], row["its accuracy"]) == (0.25, 1.0, 1, 1.0)
    consensus = curves.query("target == 'consensus' and layer == 1")
    assert consensus["accuracy"].tolist() == [0.0] * len(consensus)


def test_margins_are_correlated_with_depth_over_means(runs):
    """Pearson of mean depths with the logarithms of mean margins, scipy's (B-fig6)."""
    group = next(group for group in runs.groups if group.kind == "single")
    depth, margin, pearson = margin_cloud(group, "test", "output_margin_test")
    tables = [run.read_table("scores.parquet").query("split == 'test'") for run in group.runs]
    layers = len(group.runs[0].read_arrays("probes.npz")["layers"])
    defined = np.all([table["prediction_depth_test"] < layers for table in tables], axis=0)
    expected = np.mean([table["prediction_depth_test"] for table in tables], axis=0)[defined]
    logs = np.log(np.mean([table["output_margin_test"] for table in tables], axis=0)[defined])
    assert depth == pytest.approx(expected)
    assert np.log(margin) == pytest.approx(logs, abs=1e-5)
    assert pearson == pytest.approx(stats.pearsonr(expected, logs).statistic, abs=1e-6)


def test_iteration_learned_is_averaged_at_each_depth(runs):
    """Over all pairs of run and example; examples without a depth are left out (B-fig5 left)."""
    group = next(group for group in runs.groups if group.kind == "single")
    pairs: dict[int, list[float]] = {}
    for run in group.runs:
        train = (run.read_table("scores.parquet")["split"] == "train").to_numpy()
        learned = iteration_learned(run.read_arrays("trajectory.npz")["predicted"][:, train])
        for depth, value in zip(depths_of(run, train)[0], learned, strict=True):
            pairs.setdefault(int(depth), []).append(value)
    pairs.pop(-1, None)
    table = learned_table(group).query("split == 'train'").set_index("depth")
    assert table["learned"].to_dict() == pytest.approx({depth: np.mean(values) for depth, values in pairs.items()})
    assert table["share"].sum() == pytest.approx(1)


def test_other_numbers_of_neighbours_need_no_training(runs, store, dataset, singles):
    """The runs of one training are told apart by their recipes' k (B-k)."""
    with pytest.raises(AnalysisError, match="needs one training scored with several k"):
        list(neighbours_of_probes(runs))
    single = {"repeats": 3, "keep": "final"}
    recipe = of("single", WIDTHS[0], proxies=PROXIES, single=single, signals={"probes": {"k": 3}})
    scored = run_singles(recipe, dataset, store)
    assert {run.tags["study.scored_from"] for run in scored} <= {run.id for run in singles}
    (finding,) = run_analyses(["B-k"], runs)
    mine = finding.table.query("probe == 'k = 3' and split == 'test'")
    assert mine["mean"].tolist() == pytest.approx(curve_of(scored).query("split == 'test'")["mean"].tolist())


def test_linear_probes_are_scikit_learns_logistic_regressions(runs, store, dataset):
    """On standardized features, here the inputs; the curve joins those of the neighbours (B-k, E.48)."""
    proxies = {name: {} for name in ("prediction_depth", "prediction_depth_linear")}
    trained = run_singles(of("single", WIDTHS[0], proxies=proxies, single={"keep": "final"}), dataset, store)
    predicted = trained[0].read_arrays("linear_probes.npz")["linear_probe_class"][0]
    inputs = StandardScaler().fit(dataset.images[: dataset.n_train].reshape(dataset.n_train, -1) / 255.0)
    features = inputs.transform(dataset.images.reshape(dataset.n, -1) / 255.0)
    other = LogisticRegression(max_iter=1000).fit(features[: dataset.n_train], dataset.labels[: dataset.n_train])
    assert (predicted == other.predict(features)).mean() > 0.99
    (finding,) = run_analyses(["B-k"], FinishedRuns(group_runs(trained), store, CellData(dataset)))
    assert "logistic regression" in set(finding.table["probe"])


def test_trainings_are_named_as_in_the_papers_table(store, dataset):
    """A training of a single step is the untrained control (B-hinge)."""
    trained = []
    for loss, size, steps in (("zero_hinge", 0, 4), ("cross_entropy", 16, 4), ("cross_entropy", 16, 1)):
        train = {"loss": loss, "batch_size": size, "steps": steps}
        proxies = {"prediction_depth": {}, "output_margin": {}, "output_margin_test": {}}
        trained += run_singles(of("single", WIDTHS[0], train=train, proxies=proxies), dataset, store)
    runs = FinishedRuns(group_runs(trained), store, CellData(dataset))
    assert [training_name(group.runs[0].params) for group in runs.groups] == ["0-Hinge, GD", "CE, SGD", "untrained"]
    (finding,) = run_analyses(["B-hinge"], runs)
    assert finding.table["paper: output margin"].tolist() == pytest.approx([0.0002, 16, np.nan], nan_ok=True)
    column = trained[1].read_table("scores.parquet")["output_margin"]
    assert finding.table["output margin, train"][1] == pytest.approx(column.mean())


def test_every_analysis_draws_what_it_has(runs, store, dataset, monkeypatch):
    """Those of an ensemble and of its single runs, each by its id; rendering would take most of the time."""
    for module in (baldock, baldock_difficulty, baldock_single):
        monkeypatch.setattr(module, "png_bytes", lambda figure: b"")
    names = [name for name in ANALYSES if name.startswith("B-") and name not in ("B-fig2", "B-hinge", "B-k")]
    runs = FinishedRuns([runs.groups[0], runs.groups[2]], store, CellData(dataset))
    findings = run_analyses(names, runs)
    assert len(names) == 9
    assert {name for name in names if any(each.name.startswith(name) for each in findings)} == set(names)
    folded, _ = next(iter(members_of(runs).values()))
    table = next(each.table for each in findings if each.name == "B-fig4-one")
    pairs = folded.by_depth[1]
    at_zero = table.query("what == 'accuracy' and split == 'validation' and depth == 0").iloc[0]
    assert at_zero["accuracy"] == pytest.approx(pairs[0, 1] / pairs[0, 0])
