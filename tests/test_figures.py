"""Figures: what is drawn is what the table says, and nothing a user can feed them makes them fall over."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from study import figures
from study.figures.classes import LABELLED
from study.figures.distribution import percentages, score_edges
from study.figures.style import legible, short_number

RATIOS = (10, 50, 90)
DENSITY = "kernel_density_input_{}"


def table(scores, labels=None, ratios=RATIOS, held_out=40):
    """A cscore table whose per-ratio scores are the given ones."""
    scores = np.asarray(scores, float)
    labels = np.arange(len(scores)) % 2 if labels is None else np.asarray(labels)
    frame = pd.DataFrame({"example": [f"train/{i:03d}" for i in range(len(scores))], "label": labels})
    frame = frame.assign(split="train", cscore=scores, cscore_soft=scores, consensus=(labels + 1) % 2)
    for ratio in ratios:
        frame[f"cscore_{ratio}"], frame[f"held_out_{ratio}"] = scores, held_out
    return frame


def correlations(values=(0.8, 0.3, -0.1), parts=("all",), repeats=1, ceiling=0.9):
    """A correlations table of the three input densities with these Spearman coefficients."""
    names = [DENSITY.format(name) for name in ("independent", "conditional", "relative")]
    rows = [
        {"proxy": name, "label": name, "family": "density", "easy": "high", "on": "train", "reference": "cscore"}
        | {"part": part, "repeat": r, "spearman": value, "low": value - 0.1, "high": value + 0.1, "kendall": value / 2}
        | {"kendall_low": value / 2 - 0.1, "kendall_high": value / 2 + 0.1, "ceiling": ceiling, "n": 50, "distinct": 9}
        for name, value in zip(names, values, strict=True)
        for part in parts
        for r in range(repeats)
    ]
    return pd.DataFrame(rows)


def curves(epochs):
    """A curves table with a known value per proxy and epoch."""
    names = [f"kernel_density_hidden_{n}" for n in ("relative", "conditional", "independent")]
    names += ["target_confidence", "top_confidence"]
    rows = [(name, e, "cscore", e / 100 + i / 10) for i, name in enumerate(names) for e in range(1, epochs + 1)]
    return pd.DataFrame(rows, columns=["proxy", "epoch", "reference", "spearman"])


def save(figure):
    """Render, as that is when layout, ticks and fonts warn; returns the SVG."""
    drawing = io.BytesIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()


def heights(axes):
    return np.array([bar.get_height() for bar in axes.patches])


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


RNG = np.random.default_rng(0)
DEGENERATE = {
    "all equal": table(np.ones(40)),
    "all wrong": table(np.zeros(40)),
    "spread": table(RNG.random(40)),
    "saturated": table(np.r_[np.ones(990), RNG.random(10)]),
    "one ratio": table(RNG.random(40), ratios=(50,)),
    "no ratio": table(RNG.random(40), ratios=()),
    "all missing": table(np.full(40, np.nan)),
    "some missing": table(np.r_[np.full(20, np.nan), RNG.random(20)]),
    "a class missing": table(np.r_[0.2, np.nan, 0.4, np.nan]),
    "two examples": table([0.2, 0.9]),
    "one example": table([0.5]),
    "two held out": table(RNG.integers(0, 3, 40) / 2, held_out=2),
    "100 classes": table(RNG.random(500), np.arange(500) % 100),
    "30 classes": table(RNG.random(300), np.arange(300) % 30),
}
DRAWN = {
    "histograms_by_ratio": lambda t, c: figures.histograms_by_ratio(t),
    "consistency_profile": lambda t, c: figures.consistency_profile(t, len(c)),
    "class_statistics": lambda t, c: figures.class_statistics(t, c),
    "example_grid": lambda t, c: figures.example_grid(np.zeros((len(t), 1, 8, 8), np.uint8), t, c, per=2),
    "suspects": lambda t, c: figures.suspect_grid(np.zeros((len(t), 3, 8, 8), np.float32), t, c, count=12, maximum=1.0),
    "learning_curves": lambda t, c: figures.learning_curves_by_score(
        np.ones((1, len(t)), bool), t["cscore"].to_numpy()
    ),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN.keys())
@pytest.mark.parametrize("cscores", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_scores_are_drawn_without_a_warning(draw, cscores):
    """A report is written at the end of hours of training; a picture of odd data must not take it down."""
    classes = [f"class {i}" for i in range(max(cscores["label"].max() + 1, 2))]
    assert save(draw(cscores, classes))


@pytest.mark.parametrize("epochs", [0, 1, 2, 40])
@pytest.mark.parametrize("draw", [figures.hidden_density_by_epoch, figures.confidence_by_epoch])
def test_any_number_of_epochs_is_drawn(draw, epochs):
    """A trial run has one epoch, a run without moment proxies has none in the table."""
    assert save(draw(curves(epochs)))


@pytest.mark.parametrize("values", [(np.nan, np.nan, np.nan), (1.0, 1.0, 1.0), (-0.9, np.nan, 0.2)])
@pytest.mark.parametrize("draw", [figures.proxy_ranking, figures.density_table])
def test_odd_correlations_are_drawn_without_a_warning(draw, values):
    """A constant proxy has no correlation; it must leave a gap and not an exception."""
    assert save(draw(correlations(values, parts=("all", "unsaturated"), repeats=2, ceiling=np.nan)))


@pytest.mark.parametrize("spearman", [[np.nan], [0.5], [0.2, np.nan, 0.9]])
def test_odd_point_estimates_are_drawn_without_a_warning(spearman):
    """One ratio is what a first trial runs."""
    ratios = np.linspace(0.1, 0.9, len(spearman))
    assert save(figures.point_estimates(pd.DataFrame({"ratio": ratios, "spearman": spearman, "kendall": spearman})))


def test_the_bars_of_every_histogram_add_up_to_all_examples():
    """A bin lost at 0 or 1 would hide exactly the saturated examples."""
    figure = figures.histograms_by_ratio(table(np.r_[np.zeros(3), RNG.random(50), np.ones(7)]))
    assert [heights(axes).sum() for axes in figure.axes] == pytest.approx([100.0] * 4)


def test_percentages_by_hand():
    """Four scores, two bins, one missing: .5 opens the upper bin and 1 belongs to it."""
    assert percentages([0.1, 0.5, 1.0, 0.7, np.nan], np.array([0, 0.5, 1.0])).tolist() == [25.0, 75.0]


@pytest.mark.parametrize("k", [1, 2, 7, 10, 20])
def test_few_answers_get_a_bin_per_possible_score(k):
    """With ten answers and twenty bins every second bar would be empty, a comb that is not in the data."""
    scores = np.arange(k + 1) / k
    assert percentages(scores, score_edges(table(scores, held_out=k), "cscore_10")) == pytest.approx(100 / (k + 1))


def test_many_answers_get_the_bins_asked_for():
    """Two thousand networks per ratio, as in the paper, have room for all twenty bins."""
    assert len(score_edges(table([0.5], held_out=200), "cscore_10")) == 21


def test_every_ratio_has_the_bins_of_its_own_answers():
    """Two answers at 90 % must not reduce the 180 behind the C-score to three bars."""
    scores = table([0.5, 1.0], ratios=(10, 90)).assign(held_out_10=18, held_out_90=2, held_out=180)
    assert [len(score_edges(scores, f"cscore{end}")) - 1 for end in ("_10", "_90", "")] == [19, 3, 20]


def test_saturated_histograms_get_a_logarithmic_axis():
    """With 75 percent of MNIST at 1 a linear axis shows one bar and a line."""
    figure = figures.histograms_by_ratio(DEGENERATE["saturated"])
    assert figure.axes[0].get_yscale() == "log"


def test_spread_histograms_keep_a_linear_axis():
    """Bars on a logarithmic axis mislead where they can be avoided."""
    assert figures.histograms_by_ratio(DEGENERATE["spread"]).axes[0].get_yscale() == "linear"


def test_the_profile_of_a_bin_is_the_mean_of_its_examples():
    """By hand: two bins, means per ratio."""
    cscores = table([0.1, 0.3, 0.9], ratios=()).assign(cscore_10=[0.0, 0.2, 0.6], cscore_90=[0.2, 0.4, 1.0])
    profile = figures.bin_profile(cscores, bins=2)
    np.testing.assert_allclose(profile[["count", 10.0, 90.0]], [[2, 0.1, 0.3], [1, 0.6, 1.0]])


def test_the_profile_panel_draws_the_profile():
    """The curves that fall below chance are the finding; they must be the table's numbers."""
    cscores = table([0.1, 0.3, 0.9], ratios=()).assign(cscore_10=[0.0, 0.2, 0.6], cscore_90=[0.2, 0.4, 1.0])
    lines = figures.consistency_profile(cscores, 2, bins=2).axes[1].lines
    np.testing.assert_allclose([line.get_ydata() for line in lines[:2]], [[0.1, 0.3], [0.6, 1.0]])


def test_the_chance_line_is_one_over_the_classes():
    """Below chance means consistently mistaken, above means learned."""
    assert figures.consistency_profile(DEGENERATE["spread"], 4).axes[1].lines[-1].get_ydata()[0] == 0.25


def test_class_means_and_spreads_by_hand():
    """Missing scores are left out, a class without scores is missing and not 0."""
    got = figures.class_table(table([0.2, 0.5, 0.6, np.nan], [0, 1, 0, 2]), 3)
    np.testing.assert_allclose(got, [[2, 0.4, 0.2], [1, 0.5, 0.0], [0, np.nan, np.nan]])


@pytest.mark.parametrize("n_classes", [2, 10, LABELLED])
def test_up_to_forty_classes_each_point_has_its_name(n_classes):
    """A point without a name sends the reader back to the table."""
    labels = np.arange(400) % n_classes
    figure = figures.class_statistics(table(RNG.random(400), labels), [f"c{i}" for i in range(n_classes)])
    assert {f"c{i}" for i in range(n_classes)} <= {t.get_text() for t in figure.axes[0].texts}


@pytest.mark.parametrize("width", [0.05, 0.25, 1.0])
def test_learning_curves_equal_a_naive_loop(width):
    """Vectorised grouping is easy to shift by one bin."""
    scores = np.r_[RNG.random(30), 0.0, 1.0, 0.15, 0.3, np.nan]
    correct = RNG.random((4, len(scores))) < 0.5
    edges, counts, got = figures.grouped_accuracy(correct, scores, width=width)
    for b in range(len(counts)):
        last = b == len(counts) - 1
        rows = [i for i, s in enumerate(scores) if edges[b] <= s + 1e-9 and (last or s + 1e-9 < edges[b + 1])]
        want = [np.mean([correct[e, i] for i in rows]) if rows else np.nan for e in range(4)]
        np.testing.assert_allclose(got[b], want)


def test_learning_curves_leave_missing_scores_out():
    """An example without a C-score belongs to no group, not to the lowest."""
    _, counts, _ = figures.grouped_accuracy(np.ones((2, 3), bool), np.array([0.0, np.nan, 1.0]))
    assert (counts.sum(), counts[0], counts[-1]) == (2, 1, 1)


def test_learning_curves_refuse_scores_of_other_examples():
    """Train and test rows share one axis; a forgotten slice would group the wrong examples."""
    with pytest.raises(ValueError, match="not \\(e, n\\) with n = 4"):
        figures.grouped_accuracy(np.ones((2, 3), bool), np.zeros(4))


def test_density_curves_are_the_tables_numbers():
    """Three lines, three names: swapped colours would swap the paper's conclusion."""
    axes = figures.hidden_density_by_epoch(curves(3)).axes[0]
    np.testing.assert_allclose([x.get_ydata() for x in axes.lines[1:]], np.add.outer([0, 0.1, 0.2], [0.01, 0.02, 0.03]))


def test_other_references_are_not_mixed_in():
    """The table holds correlations with several references; a mean over them means nothing."""
    both = pd.concat([curves(2), curves(2).assign(reference="published", spearman=-1.0)])
    assert figures.confidence_by_epoch(both).axes[0].lines[1].get_ydata().min() > 0


def test_the_peak_of_the_point_estimates_is_marked():
    """The peak is what chooses the subset ratio when only one can be afforded."""
    frame = pd.DataFrame({"ratio": [0.1, 0.3, 0.5], "spearman": [0.7, 0.9, 0.8], "kendall": [0.6, 0.5, 0.4]})
    assert texts(figures.point_estimates(frame)) == ["Spearman peaks at 30 %: .90", "Kendall peaks at 10 %: .60"]


def test_the_best_proxy_stands_on_top():
    """The picture opens the report; its order is its message."""
    labels = figures.proxy_ranking(correlations((0.3, 0.8, -0.2))).axes[0].get_yticklabels()
    names = [label.get_text().rsplit("_", 1)[1] for label in labels]
    assert names == ["relative", "independent", "conditional"]


def test_repeats_are_averaged():
    """Three repeats of one training must not become three proxies."""
    rows = correlations(repeats=3)
    rows.loc[rows["repeat"] == 1, "spearman"] += 0.3
    means = figures.mean_over_repeats(rows)
    np.testing.assert_allclose(means["spearman"], [0.9, 0.4, 0.0], atol=1e-12)


def test_the_density_table_puts_our_numbers_under_the_papers():
    """Columns in another order than the paper's would compare conditional with relative."""
    drawn = figures.density_table(correlations((0.111, 0.234, -0.333))).axes[0].texts
    at = {text.get_text(): text.get_position()[0] for text in drawn}
    assert [at["0.094"], at["0.396"], at["0.302"]] == [at["0.111"], at["0.234"], at["−0.333"]]


PRINTED = """
MNIST 0.094 0.396 0.302 0.070 0.298 0.224
CIFAR-10 −0.064 −0.009 0.083 −0.042 −0.006 0.055
CIFAR-100 −0.098 0.117 0.105 −0.066 0.078 0.070
"""


def test_the_papers_table_is_drawn_as_printed():
    """Our own numbers are judged by these."""
    drawn = set(texts(figures.density_table(correlations())))
    cells = PRINTED.split()
    assert {cell if cell[0] in "0−" else f"{cell}, paper" for cell in cells} <= drawn


def test_high_middle_and_low_are_what_they_say():
    """The grid is read as a ranking."""
    chosen = figures.choose_examples(table([0.0, 0.1, 0.5, 0.55, 0.9, 1.0, 0.7], [0] * 7), 0, per=2)
    assert {k: v.tolist() for k, v in chosen.items()} == {"high": [5, 4], "middle": [2, 3], "low": [0, 1]}


def test_the_middle_of_saturated_scores_is_not_the_top():
    """With three quarters of the scores at 1 the median is 1; the middle column would show prototypes again."""
    scores = np.r_[np.ones(30), 0.0, 0.1, 0.4, 0.5, 0.6]
    chosen = figures.choose_examples(table(scores, np.zeros(35, int)), 0, per=2)
    assert set(chosen["middle"]) <= {32, 33, 34}


def test_no_example_is_shown_twice():
    """A class of four has no room for eight pictures per column."""
    chosen = figures.choose_examples(table([0.1, 0.4, 0.6, 0.9], [0] * 4), 0, per=8)
    rows = np.concatenate(list(chosen.values()))
    assert len(rows) == len(set(rows)) == 3


def test_suspects_are_the_lowest_scores_in_order():
    """A practitioner works from the first picture on."""
    sheet = figures.suspect_grid(np.zeros((4, 1, 2, 2), np.uint8), table([0.9, 0.1, np.nan, 0.0]), ["a", "b"], count=2)
    assert [t for t in texts(sheet) if t.startswith("train/")] == ["train/003", "train/001"]


def test_suspects_go_by_the_soft_score_with_digits_enough():
    """With a few networks most hard scores of suspects are 0, and ".00" under each says nothing."""
    scores = table([0.0, 0.0, 0.5]).assign(cscore_soft=[0.04, 0.0003, 0.002])
    sheet = figures.suspect_grid(np.zeros((3, 1, 2, 2), np.uint8), scores, ["a", "b"])
    shown = texts(sheet)
    assert [t for t in shown if t.startswith("train/")] == ["train/001", "train/002", "train/000"]
    assert {".0003", ".002", ".04"} <= set(shown)


def test_a_suspect_says_what_the_networks_take_it_for():
    """Label and consensus side by side are how a label error is recognised."""
    sheet = figures.suspect_grid(np.zeros((1, 1, 2, 2), np.uint8), table([0.1], [0]), ["six", "nought"])
    assert {"six", "→ nought"} <= set(texts(sheet))


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 1, 8, 8)])
def test_pictures_of_other_examples_are_refused(shape):
    """Images and table share the axis n; the wrong slice would caption every picture with another's score."""
    with pytest.raises(ValueError, match="with n = 4 rows"):
        figures.suspect_grid(np.zeros(shape), table([0.1, 0.2, 0.3, 0.4]), ["a", "b"])


@pytest.mark.parametrize("name", ["$x$ & <b>", "a\nb", "猫", "ä ß", "\\frac{", "", "x" * 300])
def test_any_class_name_is_drawn_without_a_warning(name):
    """Folder names are class names: dollar signs start mathtext elsewhere, missing glyphs warn."""
    classes, cscores = [name, "other"], DEGENERATE["spread"]
    images = np.zeros((len(cscores), 1, 4, 4), np.uint8)
    figure = figures.class_statistics(cscores, classes), figures.suspect_grid(images, cscores, classes, count=4)
    assert all(map(save, figure))


def test_long_strings_lose_their_middle():
    """The end of a path tells files apart."""
    assert legible("train/cat/img 1.png", 12) == "tra…mg 1.png"


@pytest.mark.parametrize(
    ("value", "text"), [(0.864, ".86"), (-0.06, "−.06"), (1.0, "1"), (0.999, "1"), (-0.001, ".00"), (np.nan, "–")]
)
def test_scores_are_written_short(value, text):
    """Captions have room for three letters."""
    assert short_number(value) == text


def test_threads_draw_at_the_same_time():
    """A launcher may draw while another thread does: the look belongs to the process, so it is locked."""
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: save(figures.consistency_profile(DEGENERATE["spread"], 2)), range(8)))
    assert len(set(drawn)) == 1


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    """A user who draws in the same notebook keeps his own look."""
    before = dict(matplotlib.rcParams)
    save(figures.histograms_by_ratio(DEGENERATE["spread"]))
    assert dict(matplotlib.rcParams) == before


def test_a_figure_keeps_the_look_when_it_is_saved_elsewhere():
    """The tracking store saves figures with no idea of our style: a class name with a $ must survive that."""
    figure = figures.class_statistics(DEGENERATE["spread"], ["$a$", "$b"])
    with matplotlib.rc_context({"text.parse_math": True, "font.size": 20}):
        assert isinstance(figure, Figure)
        assert save(figure) == save(figures.class_statistics(DEGENERATE["spread"], ["$a$", "$b"]))


def test_pyplot_is_not_loaded():
    """pyplot keeps every figure alive and picks a window system; a fresh process shows who loads it."""
    code = (
        "import io, sys, pandas as pd; from study import figures;"
        "t = pd.DataFrame({'label': [0, 1], 'cscore': [0.1, 0.9], 'cscore_50': [0.1, 0.9]});"
        "figures.consistency_profile(t, 2).savefig(io.BytesIO(), format='svg');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
