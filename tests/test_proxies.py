"""Every registered proxy: contract, planted truth, by hand, by the formula; and the registry itself."""

import doctest
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import pearsonr

from study import proxies
from study.errors import AnalysisError, RecipeError
from study.kernels import kde
from study.proxies import registry
from study.scores import detection, rank_statistics
from tests import planted as plants
from tests.planted import CLASSES, HARD, N

SPECS = list(proxies.PROXIES.values())
every_proxy = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@pytest.fixture(scope="module")
def planted() -> dict[str, SimpleNamespace]:
    """Train and test rows with their evidence, by the name that a spec's `on` has."""
    return plants.planted()


def test_the_papers_proxies_are_registered():
    """A loop over an empty registry passes everything below."""
    assert len(SPECS) >= 24
    assert {"cbtl", "cbgl", "forgetting_events", "malgeneralizing_events", "target_confidence"} <= set(proxies.PROXIES)


@every_proxy
def test_scores_pass_the_gate(spec, planted):
    """(n,) finite float64 from plausible evidence: what the tables are made of."""
    assert proxies.compute(spec, planted[spec.on].signals).shape == (N,)


@every_proxy
def test_all_evidence_words_are_planted(spec):
    """A proxy on a word that tests/planted.py does not make would escape the tests below."""
    assert set(spec.signals) <= set(plants.WORD)


@pytest.mark.parametrize("word", plants.WORD)
def test_planted_evidence_has_the_axes_of_its_word(word, planted):
    """Evidence that no source would give proves nothing."""
    sizes = {"n": N, "c": CLASSES, "e": plants.EPOCHS, "t": plants.EPOCHS + 1}
    for data in planted.values():
        shape = data.signals[word].shape
        assert shape == tuple(sizes.get(axis, length) for axis, length in zip(axes(word), shape, strict=True))


def axes(word: str) -> tuple[str, ...]:
    return proxies.SIGNALS[word].axes


@every_proxy
def test_computing_twice_gives_the_same_bits(spec, planted):
    """A score that cannot be computed again cannot be compared."""
    first, second = (proxies.compute(spec, planted[spec.on].signals) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@every_proxy
def test_scores_follow_their_examples(spec, planted):
    """Permuting the examples permutes the scores: no proxy may know the order of the data."""
    evidence, order = planted[spec.on].signals, np.random.default_rng(3).permutation(N)
    moved = {word: evidence[word].take(order, axis=axes(word).index("n")) for word in spec.signals}
    np.testing.assert_allclose(
        proxies.compute(spec, moved), proxies.compute(spec, evidence)[order], rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(
    ("spec", "plant"),
    [(spec, plant) for spec in SPECS for plant in HARD if plant not in spec.blind_to],
    ids=lambda value: getattr(value, "name", value),
)
def test_planted_examples_look_hard(spec, plant, planted):
    """Three tidy blobs with flipped labels and strays: a proxy that ranks those as easy is wired backwards."""
    data = planted[spec.on]
    tidy = ~np.any([data.where[each] for each in HARD], axis=0)
    seen = tidy | data.where[plant]
    scores = proxies.oriented(spec, proxies.compute(spec, data.signals))
    assert detection.auroc(-scores[seen], data.where[plant][seen]).value > 0.9


@pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if not {"stray", "duplicate"} & set(spec.blind_to)], ids=lambda spec: spec.name
)
def test_exact_copies_look_easier_than_strays(spec, planted):
    """What comes five times over is as regular as examples get."""
    data = planted[spec.on]
    copies, seen = data.where["duplicate"], data.where["duplicate"] | data.where["stray"]
    scores = proxies.oriented(spec, proxies.compute(spec, data.signals))
    assert detection.auroc(scores[seen], copies[seen]).value > 0.9


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "flip" in spec.blind_to], ids=lambda spec: spec.name)
def test_proxies_blind_to_flips_do_not_see_them(spec, planted):
    """`blind_to` is a claim about the formula, not an excuse for one that fails: other labels, same scores."""
    if spec.name in MISLED:
        return
    data = planted[spec.on]
    relabelled = SimpleNamespace(**vars(data) | {"labels": (data.labels + 1) % CLASSES})
    again = {word: plants.WORD[word](relabelled) for word in spec.signals}
    before, after = (proxies.compute(spec, each) for each in (data.signals, again))
    np.testing.assert_allclose(after, before, rtol=1e-6)  # kernel sums add up class by class, in part in float32


MISLED = {"variability"}
"""They look at the label and yet take flips for easy, as their docstrings say."""


@every_proxy
def test_signals_are_left_as_they_were(spec, planted):
    """Many proxies share one trajectory; one that writes into it would spoil the next."""
    frozen = {word: array.copy() for word, array in planted[spec.on].signals.items()}
    for array in frozen.values():
        array.setflags(write=False)
    proxies.compute(spec, frozen)


CORRECT = [[0, 1, 0, 0], [1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0]]  # flips, forgotten once, never learned, learned late
PREDICTED = [[0, 1, 2], [0, 2, 0], [0, 2, 1], [0, 2, 2]]  # always the same, from epoch 1 on, from epoch 3 on
LEARNED = [0, 1 / 2.8, 3 / 2.8]  # 2.8 is the 95th percentile of 0, 1, 3
PROBES = [[1, 0, 1], [0, 0, 1], [1, 0, 1]]  # from the last layer on, from the first, never
DENSITY = [[0.5, 0.125], [0.25, 0.5], [0.5, 0.5]]
BY_HAND = {
    "cbtl": ({"correct": CORRECT}, [2, 3, 0, 2]),
    "cbgl": ({"correct": CORRECT}, [2, 3, 0, 2]),
    "forgetting_events": ({"correct": CORRECT}, [1, 1, 4, 1]),
    "malgeneralizing_events": ({"correct": CORRECT}, [1, 1, 4, 1]),
    "first_epoch_learned": ({"correct": CORRECT}, [2, 1, 5, 2]),
    "target_confidence": ({"target_confidence_now": [0.5, 0.25]}, [0.5, 0.25]),
    "top_confidence": ({"top_confidence_now": [0.5, 0.75]}, [0.5, 0.75]),
    "cumulative_confidence": ({"confidence": [[0.5, 0.25], [1, 0.75], [0, 0.5]]}, [0.5, 0.5]),
    "variability": ({"confidence": [[0.5, 0.25], [1, 0.25], [0.5, 0.25], [0, 0.25]]}, [0.125**0.5, 0]),
    "cumulative_loss": ({"loss": [[0.5, 0.25], [1, 0.75], [0, 0.5]]}, [0.5, 0.5]),
    "el2n": ({"error_norm": [[0.5, 0.25], [1, 0.75]]}, [0.5, 0.25]),
    "aum": ({"margin": [[3, -1], [1, -2]]}, [2, -1.5]),
    "output_margin": ({"output_margin_now": [2.5, 0]}, [2.5, 0]),
    "output_margin_test": ({"output_margin_now": [2.5, 0]}, [2.5, 0]),
    "softmax_margin": ({"softmax_margin_now": [0.5, 0.75]}, [0.5, 0.75]),
    "cbtl_online": ({"online_correct": CORRECT}, [2, 3, 0, 2]),
    "forgetting_events_online": ({"online_correct": CORRECT}, [1, 1, 4, 1]),
    "iteration_learned": ({"predicted": PREDICTED}, LEARNED),
    "iteration_learned_test": ({"predicted": PREDICTED}, LEARNED),
    "local_outlier_factor": ({"local_density": [2, 0.5], "neighbor_density": [[2, 1], [2, 1]]}, [0.75, 3]),
    "prediction_depth": ({"probe_class": PROBES, "final_class": [1, 0, 0]}, [2, 0, 3]),
    "prediction_depth_linear": ({"linear_probe_class": PROBES, "final_class": [1, 0, 0]}, [2, 0, 3]),
    "prediction_depth_test": ({"probe_class": PROBES, "final_class": [1, 0, 0]}, [2, 0, 3]),
    "kernel_density_input_relative": ({"input_density": DENSITY, "labels": [0, 0, 1]}, [0.375, -0.25, 0]),
    "kernel_density_input_conditional": ({"input_density": DENSITY, "labels": [0, 0, 1]}, [0.5, 0.25, 0.5]),
    "kernel_density_input_independent": ({"input_density": DENSITY}, [0.625, 0.75, 1]),
    "kernel_density_hidden_relative": ({"hidden_density": DENSITY, "labels": [0, 0, 1]}, [0.375, -0.25, 0]),
    "kernel_density_hidden_conditional": ({"hidden_density": DENSITY, "labels": [0, 0, 1]}, [0.5, 0.25, 0.5]),
    "kernel_density_hidden_independent": ({"hidden_density": DENSITY}, [0.625, 0.75, 1]),
    "loss_sensitivity": ({"loss_sensitivity": [[0.5, 2], [1.5, 1]]}, [1, 1.5]),
    "critical_sample_steps": ({"critical_steps": [3, 21]}, [3, 21]),
    "adversarial_margin": ({"adversarial_margin_now": [0.5, 0]}, [0.5, 0]),
    "adversarial_margin_test": ({"adversarial_margin_now": [0.5, 0]}, [0.5, 0]),
    "variance_of_gradients": (
        {"logit_gradient_variance": [[0, 0, 0], [1, 3, 7]], "labels": [0, 0, 1]},
        [-1, 1, 0],
    ),
    "grand": ({"gradient_norm": [0.5, 2]}, [0.5, 2]),
    "grand_first": ({"gradient_norm_first": [0.5, 2]}, [0.5, 2]),
    "gradient_density_last_layer": ({"last_layer_gradient_density": DENSITY}, [0.625, 0.75, 1]),
    "gradient_density": ({"gradient_density": DENSITY}, [0.625, 0.75, 1]),
    "tangent_density_first": ({"tangent_density_first": DENSITY, "labels": [0, 0, 1]}, [0.375, -0.25, 0]),
    "tangent_density_last": ({"tangent_density_last": DENSITY, "labels": [0, 0, 1]}, [0.375, -0.25, 0]),
}


@every_proxy
def test_scores_equal_those_worked_out_by_hand(spec):
    """The smallest arrays that tell right from nearly right; a new proxy needs a row in BY_HAND."""
    evidence, expected = BY_HAND[spec.name]
    np.testing.assert_array_equal(proxies.compute(spec, evidence), expected)


def forgetting_by_loop(correct: np.ndarray) -> list[float]:
    epochs, n = correct.shape
    events = [sum(correct[t - 1, i] and not correct[t, i] for t in range(1, epochs)) for i in range(n)]
    return [float(events[i]) if any(correct[:, i]) else float(epochs) for i in range(n)]


@pytest.mark.parametrize("name", ["forgetting_events", "malgeneralizing_events"])
@pytest.mark.parametrize("epochs", [2, 3, 50])
def test_events_equal_a_loop_over_equation_1(name, epochs):
    """Zhang's sum, epoch by epoch and example by example."""
    correct = np.random.default_rng(epochs).random((epochs, 40)) < 0.4
    assert proxies.compute(proxies.get(name), {"correct": correct}).tolist() == forgetting_by_loop(correct)


@pytest.mark.parametrize("name", ["cbtl", "forgetting_events", "first_epoch_learned"])
def test_never_learned_ranks_strictly_hardest(name):
    """Several tools give it 0 events and drop it as easy."""
    spec, correct = proxies.get(name), np.random.default_rng(0).random((9, 200)) < 0.3
    correct[0, 0] = True
    scores = proxies.oriented(spec, proxies.compute(spec, {"correct": correct}))
    never = ~correct.any(axis=0)
    assert never.any()
    assert scores[never].max() < scores[~never].min()


@pytest.mark.parametrize("space", ["input", "hidden"])
@pytest.mark.parametrize("kind", ["relative", "conditional", "independent"])
def test_densities_equal_a_loop_over_equations_3_to_5(kind, space, planted):
    """From the features to the score, in plain Python, h half the mean of all pairwise distances."""
    data = planted["train"]
    x, y = data.features[:60], data.labels[:60]
    distance = [[math.dist(a, b) for b in x] for a in x]
    h = sum(map(sum, distance)) / (60 * 59) / 2
    weight = {
        "relative": lambda same: 2 * (same - 0.5),
        "conditional": lambda same: float(same),
        "independent": lambda same: 1.0,
    }[kind]
    naive = [
        sum(weight(y[i] == y[j]) * math.exp(-(distance[i][j] ** 2) / h**2) for j in range(60)) / 60 for i in range(60)
    ]
    density, _ = kde.class_kernel_sums(x, y, CLASSES)
    scores = proxies.compute(proxies.get(f"kernel_density_{space}_{kind}"), {f"{space}_density": density, "labels": y})
    np.testing.assert_allclose(scores, naive, rtol=2e-6, atol=1e-7)


def learned_by_loop(classes: np.ndarray) -> list[int]:
    checkpoints, n = classes.shape
    values = []
    for i in range(n):
        learned = checkpoints - 1
        while learned and classes[learned - 1, i] == classes[-1, i]:
            learned -= 1
        values.append(learned)
    return values


@pytest.mark.parametrize("name", ["iteration_learned", "iteration_learned_test"])
@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_iteration_learned_equals_a_walk_back_from_the_end(name, epochs):
    """Baldock, Sec. 3.2: another class at t - 1, the last one from t on; 0 for those that have it from the start."""
    classes = np.random.default_rng(epochs).integers(3, size=(epochs + 1, 60))
    learned = np.array(learned_by_loop(classes))
    scores = proxies.compute(proxies.get(name), {"predicted": classes})
    np.testing.assert_allclose(scores * np.percentile(learned, 95), learned)


def test_iteration_learned_stays_in_epochs_where_nearly_all_are_learned_at_once():
    """A 95th percentile of 0 is no scale."""
    classes = np.zeros((4, 60), int)
    classes[:2, 0] = 1
    assert proxies.compute(proxies.get("iteration_learned"), {"predicted": classes})[:2].tolist() == [2, 0]


@pytest.mark.parametrize(("epoch", "row"), [(0, 2), (1, 0), (30, 29)])
def test_el2n_is_taken_at_the_epoch_asked_for(epoch, row):
    """0 is a tenth of the training: Paul's epoch 20 of 200."""
    norms = np.random.default_rng(0).random((30, 5))
    assert (proxies.compute(proxies.get("el2n"), {"error_norm": norms}, {"epoch": epoch}) == norms[row]).all()


@pytest.mark.parametrize("epoch", [-1, 31])
def test_el2n_of_an_epoch_that_is_not_there_is_a_line(epoch):
    """It names the epochs that there are."""
    with pytest.raises(AnalysisError, match=rf"'el2n': epoch = {epoch}, and the training has 1 to 30"):
        proxies.compute(proxies.get("el2n"), {"error_norm": np.ones((30, 5))}, {"epoch": epoch})


def test_who_wavers_is_more_variable_than_who_is_certain():
    """Data maps: ambiguous is in the middle, not at the hard end."""
    steady, never, wavers = np.full(20, 0.95), np.full(20, 0.05), np.tile([0.2, 0.8], 10)
    spec = proxies.get("variability")
    scores = proxies.oriented(spec, proxies.compute(spec, {"confidence": np.stack([steady, never, wavers], axis=1)}))
    assert scores[2] < min(scores[:2])


CONFIDENT = ("cumulative_confidence", "variability")


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("name", CONFIDENT)
def test_a_direction_that_turns_with_the_stage_is_declared(name, stage):
    """Flips stay near 0 until the network learns them by heart; then they are what varied most."""
    epochs = 10 if stage == "early" else 40
    rng = np.random.default_rng(0)
    tidy = 0.97 - 0.6 * np.exp(-np.arange(epochs) / 2)[:, None]
    flipped = np.where(np.arange(epochs) < 20, 0.05, 0.95)[:, None]
    confidence = np.concatenate([np.repeat(tidy, 50, axis=1), np.repeat(flipped, 50, axis=1)], axis=1)
    confidence += rng.normal(scale=0.01, size=confidence.shape)
    spec = proxies.get(name)
    scores = proxies.oriented(spec, proxies.compute(spec, {"confidence": confidence}))
    auroc = detection.auroc(-scores, np.arange(100) >= 50).value
    assert auroc > 0.9 if stage == "late" or not spec.stage_dependent else auroc < 0.1
    assert ("before that" in spec.direction) == spec.stage_dependent


@pytest.mark.parametrize(("epochs", "name"), [(0, "cbtl_online"), (0, "forgetting_events_online")])
def test_no_whole_pass_has_no_states_in_passing(epochs, name):
    """`train.steps` may end the training before everyone was seen."""
    with pytest.raises(AnalysisError, match=r"no pass .* was whole.*train\.steps"):
        proxies.compute(proxies.get(name), {"online_correct": np.empty((epochs, 3), bool)})


def test_agreement_in_passing_is_pearson_and_mean_absolute_error():
    """Z-online reports these two."""
    ends, online = np.random.default_rng(0).random((2, 50))
    pearson, error = proxies.learning_speed.online_agreement(ends, online)
    assert pearson == pytest.approx(pearsonr(ends, online).statistic)
    assert error == pytest.approx(sum(abs(a - b) for a, b in zip(ends, online, strict=True)) / 50)
    assert math.isnan(proxies.learning_speed.online_agreement(np.ones(3), np.arange(3.0))[0])


def test_one_epoch_has_no_events():
    """A user who trains for one epoch reads which setting to change."""
    with pytest.raises(AnalysisError, match=r"'forgetting_events': .*train.epochs"):
        proxies.compute(proxies.get("forgetting_events"), {"correct": [[True, False]]})


def test_scores_that_are_not_finite_name_proxy_and_row():
    """A diverged network must not become a table with holes."""
    with pytest.raises(AnalysisError, match=r"'target_confidence': 1 of 3 scores are not finite, first in train row 1"):
        proxies.compute(proxies.get("target_confidence"), {"target_confidence_now": [0.5, np.nan, 0.5]})


@pytest.mark.parametrize(
    ("evidence", "fault"),
    [
        ({"input_density": np.ones((3, 2))}, "lacks signals: labels"),
        ({"input_density": np.ones((3, 2)), "labels": np.zeros(4, int)}, "labels is"),
        ({"input_density": np.ones(3), "labels": np.zeros(3, int)}, "input_density is"),
    ],
)
def test_signals_that_do_not_fit_name_the_proxy(evidence, fault):
    """Broadcasting would turn a wiring error into plausible numbers."""
    with pytest.raises(ValueError, match=f"'kernel_density_input_relative'.*{fault}"):
        proxies.compute(proxies.get("kernel_density_input_relative"), evidence)


@pytest.mark.parametrize(
    "wrong", [lambda labels: labels.astype(np.float32), lambda labels: np.zeros(1), lambda labels: [0.0, 1.0]]
)
def test_results_of_the_wrong_kind_are_refused(wrong):
    """One gate: whatever passes is (n,) float64."""

    def bad(labels):
        """Wrong."""
        return wrong(labels)

    with pytest.raises(ValueError, match="proxy 'bad' gave"):
        proxies.compute(registry.specify(bad, **DECLARED), {"labels": np.arange(2)})


DECLARED = {"family": "x", "easy": "high", "unit": "1", "label": "x", "source": "x"}


def toy(labels, *, width: float = 0.5, count: int = 3, name: str = "a", sharp: bool = False):
    """Scores for trying settings."""
    return labels.astype(np.float64) * width


def test_settings_are_filled_and_an_int_does_for_a_float():
    """TOML writes 1 where it means 1.0."""
    bound = proxies.bind(registry.specify(toy, **DECLARED), {"width": 1, "sharp": True})
    assert bound == {"width": 1.0, "count": 3, "name": "a", "sharp": True}
    assert isinstance(bound["width"], float)


def test_a_proxy_without_settings_says_so():
    """A hint with nothing in it is none."""
    with pytest.raises(RecipeError, match="'cbtl' has no setting 'foo'; it takes no settings"):
        proxies.bind(proxies.PROXIES["cbtl"], {"foo": 1})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"widht": 1.0}, "has no setting 'widht'; did you mean 'width'"),
        ({"count": 1.5}, "proxies.toy.count is 1.5; it must be of type int"),
        ({"count": True}, "must be of type int"),
        ({"sharp": 1}, "must be of type bool"),
        ({"name": 2.0}, "must be of type str"),
    ],
)
def test_wrong_settings_are_a_line(settings, line):
    """A wrong recipe fails in a second, not after the training."""
    with pytest.raises(RecipeError, match=line):
        proxies.bind(registry.specify(toy, **DECLARED), settings)


def test_unknown_proxy_suggests_the_nearest():
    """One letter off must not cost a look in the source."""
    with pytest.raises(RecipeError, match="unknown proxy 'cbtll'; did you mean 'cbtl'"):
        proxies.get("cbtll")


def undocumented(labels):
    return labels


def reads_unknown_signal(labelz):
    """Read something that nobody makes."""


def variadic(labels, *others):
    """Take anything."""


def no_default(labels, *, width):
    """Leave a setting open."""


def test_an_unknown_signal_is_told_when_the_proxy_is_used(monkeypatch):
    """Not at import: a source that gives it may be registered later."""
    spec = registry.specify(reads_unknown_signal, family="f", easy="high", unit="u", label="l", source="s")
    monkeypatch.setitem(registry.PROXIES, spec.name, spec)
    with pytest.raises(RecipeError, match="unknown signal 'labelz'; did you mean 'labels'"):
        registry.chosen({spec.name: {}})
    with pytest.raises(RecipeError, match="unknown signal 'labelz'"):
        registry.compute(spec, {"labelz": np.zeros(3)})


@pytest.mark.parametrize(
    ("function", "declared", "fault"),
    [
        (undocumented, {}, "no docstring"),
        (variadic, {}, "other than signals and settings"),
        (no_default, {}, "without a plain default"),
        (toy, {"easy": "up"}, "easy is 'up'"),
        (toy, {"on": "validation"}, "on is 'validation'"),
        (toy, {"blind_to": ("noise",)}, "unknown plants"),
        (toy, {"cost": "cheap"}, "cost is 'cheap'"),
        (toy, {"source": ""}, "source is empty"),
        (toy, {"sign": -1}, "sign"),
    ],
)
def test_a_faulty_declaration_fails_at_import(function, declared, fault):
    """The author of a proxy learns it at once, the user never."""
    with pytest.raises(ValueError, match=f"proxy '{function.__name__}'.*{fault}"):
        proxies.proxy(**(DECLARED | declared))(function)


def test_a_name_twice_fails_at_import():
    """Two functions of one name would leave the column to chance."""
    with pytest.raises(ValueError, match="'cbtl' is defined twice"):
        proxies.proxy(**DECLARED)(proxies.get("cbtl").function)


def test_words_are_the_union():
    """A launch collects what its proxies read, and nothing else."""
    specs = [proxies.get("cbtl"), proxies.get("kernel_density_input_relative")]
    assert proxies.signals_of(specs) == {"correct", "input_density", "labels"}


def test_oriented_turns_low_and_leaves_high():
    """High means easy everywhere behind this function."""
    scores = np.array([1.0, 2.0])
    assert proxies.oriented(proxies.get("cbtl"), scores).tolist() == [1, 2]
    assert proxies.oriented(proxies.get("forgetting_events"), scores).tolist() == [-1, -2]


def test_moments_read_only_words_of_one_moment():
    """What is computed after every epoch must not need the whole trajectory, unless it is told which epoch to take."""
    for spec in SPECS:
        if spec.single_checkpoint and "epoch" not in spec.settings:
            assert not {axis for word in spec.signals for axis in axes(word)} & {"e", "t", "w"}, spec.name
        if any(word.endswith("_now") for word in spec.signals):
            assert spec.single_checkpoint, spec.name


def test_a_moment_with_a_setting_for_its_epoch_is_asked_for_each():
    """EL2N after epoch 3 is EL2N at epoch 3, whatever the recipe takes for the final score."""
    assert proxies.at_epoch(proxies.get("el2n"), {"epoch": 1}, 3) == {"epoch": 3}
    assert proxies.at_epoch(proxies.get("output_margin"), {}, 3) == {}


def test_none_named_are_the_usual_ones_and_all_is_all():
    """A small recipe must not pay for gradients that nobody asked for."""
    assert {spec.cost for spec in proxies.chosen({})} <= {"free", "pass", "n x n"}
    assert proxies.chosen({"all": {}, "cbtl": {}}) == SPECS
    assert [spec.name for spec in proxies.chosen({"cbtl": {}, "aum": {}})] == ["cbtl", "aum"]


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ({"all": {}, "cbtll": {}}, "unknown proxy 'cbtll'"),
        ({"all": {"epoch": 3}}, r"proxies\.all takes no settings"),
    ],
)
def test_wrong_choices_are_a_line(named, line):
    """`all` does not hide a misspelt name beside it."""
    with pytest.raises(RecipeError, match=line):
        proxies.chosen(named)


def test_markdown_has_a_row_per_proxy():
    """The README's table is made, never written."""
    rows = proxies.proxies_markdown().splitlines()
    assert len(rows) == len(SPECS) + 2
    assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize("module", [rank_statistics, proxies.learning_speed], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module):
    """A docstring's example is the first thing that a reader tries."""
    result = doctest.testmod(module, extraglobs={"np": np})
    assert (result.failed, result.attempted > 0) == (0, True)
