"""Images that do not belong: mixed in from another data set or replaced by noise, marked, and found by scores."""

import numpy as np
import pandas as pd
import pytest
from toys import blobs, toy_recipe

from study.analysis import compute_results, load_runs, planted_images, suspects
from study.data import DataSpec, NoiseSpec, open_data
from study.data.foreign import mixed
from study.errors import DataError
from study.experiments.sweep import train_parts
from study.report.tables import odd_images, table_sections

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture(scope="module")
def both():
    """A tenth of other images and a tenth of noise."""
    noisy = blobs().with_noise(NoiseSpec(inputs="gaussian", input_share=0.1), seed=1)
    return mixed(noisy, blobs(seed=9), 0.1)


def test_foreign_images_come_behind_the_training_examples_under_random_labels(both):
    """Rows of the test split move back as a whole; both kinds are marked, and no others."""
    clean = blobs()
    rows = slice(clean.n_train, both.n_train)
    assert both.n_train - clean.n_train == 12
    assert set(both.planted[rows]) == {"foreign"}
    assert (both.planted[: clean.n_train] == "random image").sum() == 12
    assert set(both.planted[both.n_train :]) == {""}
    assert both.ids[rows][0].startswith("foreign/blobs/train/")
    assert len(set(both.labels[rows].tolist())) > 1
    np.testing.assert_array_equal(both.images[both.n_train :], clean.images[clean.n_train :])
    assert both.digest != clean.digest


def test_marks_follow_the_examples_into_tables_and_lists(both, tmp_path):
    """A keep list cuts them as it cuts the labels."""
    assert both.label_columns["planted"] is both.planted
    (tmp_path / "keep.csv").write_text("example\n" + "\n".join(both.ids[10 : both.n_train]), encoding="utf-8")
    assert both.with_only(tmp_path / "keep.csv").planted.tolist() == both.planted[10:].tolist()


def test_a_recipe_names_the_other_data_set(tmp_path):
    """Its images get the shape of the recipe's; what does not fit is one line."""
    data = DataSpec("digits", foreign={"name": "digits", "share": 0.05}, limit=20)
    opened = open_data(data)
    assert (opened.planted == "foreign").sum() == 10
    assert opened.spec.foreign.share == 0.05
    with pytest.raises(DataError, match=r"lower data\.foreign\.share"):
        mixed(blobs(), blobs(n_train=6), 0.5)


def test_scores_are_measured_on_each_kind(both, stores):
    """Networks that have not seen them disagree about images that belong nowhere, whatever their label says."""
    recipe, store = toy_recipe("study", proxies={"aum": {}}, subset={"ratios": [0.5], "members": 8}), stores()
    train_parts(recipe, both, store)
    runs = load_runs(recipe, both, store)
    measured = planted_images(runs, both)
    assert measured["kind"].drop_duplicates().tolist() == ["foreign", "random image"]
    assert measured.loc[measured["score"] == "aum", "auroc"].min() > 0.7
    assert set(suspects(runs, both)["planted"]) == {"", "foreign", "random image"}
    assert planted_images(runs, blobs()).empty
    results = compute_results(runs, recipe, both, store)
    pd.testing.assert_frame_equal(results.tables["planted_images"], measured)
    titles = [section.title for section in table_sections(results, suspects(runs, both), odd_images(both))]
    assert "Images that do not belong" in titles
