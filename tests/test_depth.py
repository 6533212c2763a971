"""Prediction depth and the curves of probes, from answers worked out by hand; and the figures they go into."""

import io

import numpy as np
import pandas as pd
import pytest

from study.figures import depth as figures
from study.proxies import PROXIES
from study.proxies.depth import inference_curves, majority, prediction_depth, probe_accuracy, undefined

PROBES = np.array([[0, 1, 1, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 1, 1], [0, 0, 0, 1, 0]])
FINAL = np.array([0, 0, 0, 1, 1])  # right all along; from layer 2, 1, 2 on; the softmax probe disagrees
LABELS = np.array([0, 0, 1, 1, 0])
TRAIN = np.array([True, True, True, False, False])


def test_depth_is_the_first_layer_from_which_all_probes_agree():
    """Agreement that is lost again does not count; data right all along are predicted at the input."""
    assert prediction_depth(PROBES, FINAL).tolist() == [0, 2, 1, 2, 4]


def test_depth_equals_a_loop_over_the_definition():
    """Sec. 2.1: different from the final class after layer l - 1, and equal after every layer from l on."""
    rng = np.random.default_rng(0)
    probes, final = rng.integers(2, size=(6, 500)), rng.integers(2, size=500)
    expected = []
    for predictions, network_class in zip(probes.T.tolist(), final.tolist(), strict=True):
        fits = [depth for depth in range(6) if set(predictions[depth:]) == {network_class}]
        expected.append(min(fits, default=6))
    assert prediction_depth(probes, final).tolist() == expected
    assert set(expected) == set(range(7))


def test_depth_is_undefined_where_the_softmax_probe_disagrees():
    """A.6.1: the paper assigns none; the score is above every depth and the example is counted."""
    lost = undefined(PROBES, FINAL)
    assert lost.tolist() == [False, False, False, False, True]
    assert (prediction_depth(PROBES, FINAL)[lost] > prediction_depth(PROBES, FINAL)[~lost].max()).all()


def test_test_rows_have_a_depth_of_their_own():
    """Fig. 7 sets the two splits' depths side by side; each is a proxy of its rows."""
    assert PROXIES["prediction_depth"].on == "train"
    assert PROXIES["prediction_depth_test"].on == "test"
    assert {PROXIES[name].easy for name in PROXIES if name.startswith("prediction_depth")} == {"low"}


def test_equal_votes_go_to_the_lowest_class():
    """Any rule would do, but it must be one, and it must not look at the label."""
    assert majority(np.array([[1, 3, 3], [5, 0, 5], [0, 1, 6]])).tolist() == [1, 0, 2]


def test_probe_accuracy_is_counted_layer_by_layer():
    """Of the five labels the input's probe has 2 right, and the softmax's 4."""
    assert probe_accuracy(PROBES, LABELS, slice(None)).tolist() == [0.4, 0.2, 0.6, 0.8]
    assert np.isnan(probe_accuracy(PROBES, LABELS, np.zeros(5, bool))).all()


def test_the_inference_curve_has_a_line_per_split():
    """B-fig5 without changed labels: train and test."""
    curves = inference_curves(PROBES, LABELS, TRAIN)
    assert list(curves) == ["train", "test"]
    np.testing.assert_allclose(curves["train"], [2 / 3, 1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curves["test"], [0, 0, 0.5, 1])


def test_changed_labels_split_the_training_rows():
    """B-fig5: the mislabeled are first taken for what they were, later for what they are called."""
    curves = inference_curves(PROBES, LABELS, TRAIN, original=np.array([0, 1, 1, 1, 0]))
    assert list(curves) == ["unchanged", "mislabeled", "original labels", "test"]
    np.testing.assert_allclose(curves["mislabeled"], [0, 0, 1, 1])
    np.testing.assert_allclose(curves["original labels"], [1, 1, 0, 0])
    np.testing.assert_allclose(curves["unchanged"], [1, 0.5, 0.5, 0.5])


# ------------------------------------------------------------------------------------------------------------ figures

LAYERS = ("input", "blocks.0", "blocks.1", "softmax")
RNG = np.random.default_rng(0)
TABLES = {
    "both splits": pd.DataFrame(
        {"split": np.repeat(["train", "test"], 100), "depth": RNG.integers(0, 5, 200), "cscore": RNG.random(200)}
    ).assign(correct=lambda table: table["cscore"] > 0.5),
    "one split": pd.DataFrame({"split": "train", "depth": [0, 0, 1], "cscore": [1.0, 0.5, np.nan], "correct": True}),
    "one depth": pd.DataFrame({"split": "test", "depth": [2.0] * 9, "cscore": 1.0, "correct": False}),
    "nothing": pd.DataFrame({"split": ["train"], "depth": [np.nan], "cscore": [np.nan], "correct": [False]}),
}


def drawn(figure):
    """Rendered, as that is when layout, ticks and fonts warn; gives the first axes, None where a sentence stands."""
    figure.savefig(io.BytesIO(), format="svg", metadata={"Date": None})
    return figure.axes[0] if figure.axes else None


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("draw", ["depth_distribution", "accuracy_by_depth", "cscore_by_depth"])
def test_figures_of_depth_draw_whatever_the_table(name, draw):
    """A report must not fall over because a network was shallow, or sure of itself."""
    axes = drawn(getattr(figures, draw)(TABLES[name], LAYERS))
    assert (axes is None) == (name == "nothing")


def test_the_distribution_shows_every_layer_and_the_undefined():
    """Fig. 1: percent of the examples of a split at each depth."""
    axes = drawn(figures.depth_distribution(TABLES["one split"], LAYERS))
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [200 / 3, 100 / 3, 0, 0, 0])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [*LAYERS, "undefined"]


def test_accuracy_by_depth_is_the_share_of_right_answers():
    """Fig. 4 right: one point per depth and split."""
    axes = drawn(figures.accuracy_by_depth(TABLES["both splits"], LAYERS))
    table = TABLES["both splits"].query("split == 'test' and depth < 4")
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["test"], 100 * table.groupby("depth")["correct"].mean())


def test_cscore_by_depth_shows_the_mean_of_each_depth():
    """Fig. 3 and 4: the deeper, the less consistent."""
    axes = drawn(figures.cscore_by_depth(TABLES["both splits"], LAYERS))
    table = TABLES["both splits"].query("split == 'train' and depth < 4")
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(lines["train, mean"], table.groupby("depth")["cscore"].mean())


def test_the_inference_curve_is_drawn_as_it_is():
    """Fig. 5 right: accuracy of the probes in percent, from the input to the softmax."""
    curves = inference_curves(PROBES, LABELS, TRAIN)
    axes = drawn(figures.inference_learning_curve(curves, LAYERS))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 100 * curves["train"])
    assert drawn(figures.inference_learning_curve({}, LAYERS)) is None


def test_probe_curves_are_drawn_solid_and_dotted():
    """Fig. 8: confidence solid, accuracy dotted, a panel for each class that counts as right."""
    rows = [
        (g, t, layer, 0.1 * layer, 0.2 * layer, 9) for g in "ab" for t in ("truth", "consensus") for layer in range(4)
    ]
    table = pd.DataFrame(rows, columns=["group", "target", "layer", "confidence", "accuracy", "n"])
    figure = figures.probe_confidence(table, LAYERS)
    assert drawn(figure) is not None
    assert len(figure.axes) == 2
    solid, dotted = figure.axes[1].lines[:2]
    np.testing.assert_allclose(solid.get_ydata(), [0, 10, 20, 30])
    np.testing.assert_allclose(dotted.get_ydata(), [0, 20, 40, 60])
    assert (solid.get_linestyle(), dotted.get_linestyle()) == ("-", ":")
    assert drawn(figures.probe_confidence(table[:0], LAYERS)) is None


def test_many_layers_keep_their_names_apart():
    """ResNet-110 has 56 placements; names that lie over each other say nothing."""
    names = ("input", *(f"layer{i // 18}.{i % 18}" for i in range(54)), "softmax")
    table = pd.DataFrame({"split": "train", "depth": np.arange(56), "cscore": 0.5, "correct": True})
    axes = drawn(figures.depth_distribution(table, names))
    assert len(axes.get_xticks()) <= 20
