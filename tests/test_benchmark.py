"""Published protocols repeated: their noise, the baselines beside our scores, the table with the published figures."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from toys import blobs, toy_recipe

from study.benchmark.measures import measure
from study.benchmark.protocols import Protocol, Published, protocols
from study.benchmark.run import beside_published, prepare
from study.data import NoiseSpec
from study.errors import AnalysisError
from study.runs.cross_validation import cross_validate, held_out_probabilities
from study.workflows.preflight import check_names

pytest_plugins = ["tests.tracking_fixtures"]


def test_the_image_decides_which_labels_go_wrong_and_for_which_class():
    """Two kinds of images of one class are taken for two other classes; the share is the noise's, tests stay clean."""
    clean = blobs(n_train=3000, n_test=60)
    noisy = clean.with_noise(NoiseSpec(labels="instance", share=0.2), seed=3)
    wrong = noisy.labels != clean.labels
    assert wrong[:3000].mean() == pytest.approx(0.2, abs=0.03)
    assert not wrong[3000:].any()
    counts = np.array([np.bincount(noisy.labels[wrong & (clean.labels == label)], minlength=3) for label in range(3)])
    assert not counts.diagonal().any()
    shares = counts.max(axis=1) / counts.sum(axis=1)
    assert shares.max() > 0.7  # one half each, were it drawn without a look at the image


@pytest.fixture(scope="module")
def noisy():
    return blobs().with_noise(NoiseSpec(labels="symmetric", share=0.3), seed=1)


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe(
        "study", proxies={"aum": {}, "el2n": {}}, subset={"ratios": [0.5], "members": 4}, train={"epochs": 8}
    )


@pytest.fixture(scope="module")
def store(stores):
    return stores()


def protocol(measure="label errors", **more):
    published = (Published("aum", "auroc", 0.9, "a scale", "a source", "printed"),)
    return Protocol("toy", "blobs", "blobs", measure, {}, published=published, **more)


def test_folds_hold_every_example_out_once_and_a_second_call_finds_the_run(noisy, recipe, store):
    """The probabilities are what tools such as cleanlab take: out of sample, a row of ones in sum for each example."""
    run = cross_validate(recipe, noisy, store, folds=3)
    probabilities = held_out_probabilities(run)
    assert probabilities.shape == (noisy.n_train, noisy.n_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    clean = noisy.clean_labels[: noisy.n_train]
    assert (probabilities.argmax(axis=1) == clean).mean() > 0.45  # chance is a third
    assert cross_validate(recipe, noisy, store, folds=3).id == run.id


def test_a_protocol_says_the_published_figure_beside_ours(noisy, recipe, store, monkeypatch):
    """Ours with an interval, the published one in its row; cleanlab's scores where it is installed, random always."""
    rank = SimpleNamespace(get_label_quality_scores=lambda labels, p, method: p[np.arange(len(labels)), labels])
    for name in ("cleanlab", "cleanlab.rank"):
        monkeypatch.setitem(sys.modules, name, rank)
    table = beside_published(measure(protocol(), recipe, noisy, store), protocol())
    auroc = table[table["measure"] == "auroc"].set_index("score")
    assert auroc.loc["aum", ["published", "source"]].tolist() == [0.9, "a source"]
    assert auroc.loc["aum", "value"] > 0.9
    assert auroc.loc["self_confidence", "value"] > 0.6
    assert auroc.loc["random", "low"] < 0.5 < auroc.loc["random", "high"]
    assert (table["published"].notna()).sum() == 1


def test_dropping_and_pruning_train_by_each_rule(noisy, recipe, store):
    """Every rule is measured on all data and on the part, so that the rules can be told from the lists."""
    dropped = measure(protocol("dropping", shares=(0.1,), by=("aum",)), recipe, noisy, store)
    assert set(zip(dropped["score"], dropped["measure"], strict=True)) == {
        ("all", "nothing dropped"),
        ("aum", "10 % dropped"),
    }
    pruned = measure(protocol("pruning", shares=(0.3,), by=("random",), small_batch=4), recipe, noisy, store)
    rules = [f"30 % kept, {rule}" for rule in ("as many epochs", "as many updates", "small batches")]
    assert pruned["measure"][pruned["score"] == "random"].tolist() == rules
    assert not pruned["value"].isna().any()


def test_every_protocol_is_a_recipe_that_can_be_read(tmp_path):
    """The file is data: a key that a recipe refuses would show only when somebody runs the row."""
    for place in ("mnist/MNIST/raw", "cifar10-jpeg", "cifar10n", "cifar10-features"):
        (tmp_path / place).mkdir(parents=True)
    for file in ("cifar10-jpeg/train.parquet", "cifar10n/cifar10n-human-labels.npz", "cifar10-features/features.npz"):
        (tmp_path / file).touch()
    listed = protocols()
    assert len(listed) >= 12
    for each in listed:
        check_names(each.recipe(tmp_path))
        assert all(figure.source and figure.reading for figure in each.published)


def test_a_row_without_data_is_left_out_with_the_reason(tmp_path, store):
    """One line names what is missing and the option; the other rows go on."""
    ready, left_out = prepare(protocols(["mnist-flips"]), tmp_path, store)
    assert (ready, len(left_out)) == ([], 1)
    assert "mnist-flips: left out, no mnist below" in left_out[0]
    assert "--data" in left_out[0]
    with pytest.raises(AnalysisError, match="did you mean 'mnist-flips'"):
        protocols(["mnist-flip"])
