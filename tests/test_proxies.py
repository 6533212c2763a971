"""Every registered proxy: contract, planted truth, by hand, by the formula; and the registry itself."""

import doctest
import math
from types import SimpleNamespace

import numpy as np
import pytest

from study import proxies, ranks
from study.errors import AnalysisError, RecipeError
from study.proxies import neighbors, registry

SPECS = list(proxies.PROXIES.values())
EPOCHS, CLASSES = 20, 3
every_proxy = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def blobs(seed: int) -> SimpleNamespace:
    """Three tidy blobs of 100 examples; in each 6 labels are flipped and 5 examples stray past the middle."""
    rng = np.random.default_rng(seed)
    tidy = np.repeat(np.arange(CLASSES), 100)
    angle = 2 * np.pi * tidy / CLASSES
    features = 3 * np.stack((np.cos(angle), np.sin(angle)), axis=1) + rng.normal(scale=0.5, size=(300, 2))
    stray, flip = np.zeros(300, bool), np.zeros(300, bool)
    for start in range(0, 300, 100):
        odd = start + rng.permutation(100)[:11]
        stray[odd[:5]], flip[odd[5:]] = True, True
    features[stray] = -0.4 * features[stray] + rng.normal(scale=0.15, size=(15, 2))
    labels = np.where(flip, (tidy + rng.integers(1, CLASSES, size=300)) % CLASSES, tidy)
    order = rng.permutation(300)
    return SimpleNamespace(
        features=features[order], labels=labels[order], where={"flip": flip[order], "stray": stray[order]}
    )


def softmax(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    logits = np.c_[features, np.ones(len(features))] @ weights
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def softmax_regression(train: SimpleNamespace, seed: int) -> list[np.ndarray]:
    """Weights (d + 1, c) at each epoch end of plain SGD."""
    rng, weights, history = np.random.default_rng(seed), np.zeros((3, CLASSES)), []
    for _ in range(EPOCHS):
        for batch in np.array_split(rng.permutation(300), 10):
            error = softmax(train.features[batch], weights) - np.eye(CLASSES)[train.labels[batch]]
            weights -= 0.05 * np.c_[train.features[batch], np.ones(len(batch))].T @ error / len(batch)
        history.append(weights.copy())
    return history


def evidence_of(data: SimpleNamespace, history: list[np.ndarray]) -> dict[str, np.ndarray]:
    outputs = np.array([softmax(data.features, weights) for weights in history])
    confidence = outputs[:, np.arange(300), data.labels]
    density, _ = neighbors.class_kernel_sums(data.features, data.labels, CLASSES)
    return {
        "labels": data.labels,
        "correct": outputs.argmax(axis=2) == data.labels,
        "confidence": confidence.astype(np.float32),
        "top_confidence": outputs.max(axis=2).astype(np.float32),
        "target_confidence_now": confidence[-1].astype(np.float32),
        "top_confidence_now": outputs.max(axis=2)[-1].astype(np.float32),
        "input_density": density,
        "hidden_density": density,
    }


@pytest.fixture(scope="module")
def planted() -> dict[str, SimpleNamespace]:
    """Train and test rows with their evidence, by the name that a spec's `on` has."""
    splits = {"train": blobs(0), "test": blobs(1)}
    history = softmax_regression(splits["train"], seed=2)
    for data in splits.values():
        data.evidence = evidence_of(data, history)
    return splits


def test_the_papers_proxies_are_registered():
    """A loop over an empty registry passes everything below."""
    assert len(SPECS) >= 14
    assert {"cbtl", "cbgl", "forgetting_events", "malgeneralizing_events", "target_confidence"} <= set(proxies.PROXIES)


@every_proxy
def test_scores_pass_the_gate(spec, planted):
    """(n,) finite float64 from plausible evidence: what the tables are made of."""
    assert proxies.compute(spec, planted[spec.on].evidence).shape == (300,)


@every_proxy
def test_all_evidence_words_are_made(spec, planted):
    """The planted evidence must offer every word of the vocabulary, or a new proxy would escape these tests."""
    assert set(planted[spec.on].evidence) == set(proxies.WORDS)


@every_proxy
def test_computing_twice_gives_the_same_bits(spec, planted):
    """A score that cannot be computed again cannot be compared."""
    first, second = (proxies.compute(spec, planted[spec.on].evidence) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@every_proxy
def test_scores_follow_their_examples(spec, planted):
    """Permuting the examples permutes the scores: no proxy may know the order of the data."""
    data, order = planted[spec.on], np.random.default_rng(3).permutation(300)
    moved = {word: array[..., order] for word, array in data.evidence.items() if "density" not in word}
    density, _ = neighbors.class_kernel_sums(data.features[order], data.labels[order], CLASSES)
    moved |= {"input_density": density, "hidden_density": density}
    np.testing.assert_allclose(
        proxies.compute(spec, moved), proxies.compute(spec, data.evidence)[order], rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(
    ("spec", "plant"),
    [(spec, plant) for spec in SPECS for plant in proxies.PLANTS if plant not in spec.blind_to],
    ids=lambda value: getattr(value, "name", value),
)
def test_planted_examples_look_hard(spec, plant, planted):
    """Three tidy blobs with flipped labels and strays: a proxy that ranks those as easy is wired backwards."""
    data = planted[spec.on]
    tidy = ~(data.where["flip"] | data.where["stray"])
    seen = tidy | data.where[plant]
    scores = proxies.oriented(spec, proxies.compute(spec, data.evidence))
    assert ranks.auroc(-scores[seen], data.where[plant][seen]) > 0.9


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "flip" in spec.blind_to], ids=lambda spec: spec.name)
def test_proxies_blind_to_flips_do_not_see_them(spec, planted):
    """`blind_to` is a claim about the formula, not an excuse for one that fails: other labels, same scores."""
    evidence = planted[spec.on].evidence
    relabelled = evidence | {"labels": (evidence["labels"] + 1) % CLASSES}
    assert "labels" not in spec.evidence
    np.testing.assert_array_equal(proxies.compute(spec, relabelled), proxies.compute(spec, evidence))


@every_proxy
def test_evidence_is_left_as_it_was(spec, planted):
    """Fourteen proxies share one trajectory; one that writes into it would spoil the next."""
    frozen = {word: array.copy() for word, array in planted[spec.on].evidence.items()}
    for array in frozen.values():
        array.setflags(write=False)
    proxies.compute(spec, frozen)


CORRECT = [[0, 1, 0, 0], [1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0]]  # flips, forgotten once, never learned, learned late
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
    "kernel_density_input_relative": ({"input_density": DENSITY, "labels": [0, 0, 1]}, [0.375, -0.25, 0]),
    "kernel_density_input_conditional": ({"input_density": DENSITY, "labels": [0, 0, 1]}, [0.5, 0.25, 0.5]),
    "kernel_density_input_independent": ({"input_density": DENSITY}, [0.625, 0.75, 1]),
    "kernel_density_hidden_relative": ({"hidden_density": DENSITY, "labels": [0, 0, 1]}, [0.375, -0.25, 0]),
    "kernel_density_hidden_conditional": ({"hidden_density": DENSITY, "labels": [0, 0, 1]}, [0.5, 0.25, 0.5]),
    "kernel_density_hidden_independent": ({"hidden_density": DENSITY}, [0.625, 0.75, 1]),
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
    density, _ = neighbors.class_kernel_sums(x, y, CLASSES)
    scores = proxies.compute(proxies.get(f"kernel_density_{space}_{kind}"), {f"{space}_density": density, "labels": y})
    np.testing.assert_allclose(scores, naive, rtol=2e-6, atol=1e-7)


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
        ({"input_density": np.ones((3, 2))}, "lacks evidence: labels"),
        ({"input_density": np.ones((3, 2)), "labels": np.zeros(4, int)}, "labels is"),
        ({"input_density": np.ones(3), "labels": np.zeros(3, int)}, "input_density is"),
    ],
)
def test_evidence_that_does_not_fit_names_the_proxy(evidence, fault):
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


def unknown_word(labelz):
    """Read something that nobody makes."""


def variadic(labels, *others):
    """Take anything."""


def no_default(labels, *, width):
    """Leave a setting open."""


@pytest.mark.parametrize(
    ("function", "declared", "fault"),
    [
        (undocumented, {}, "no docstring"),
        (unknown_word, {}, "unknown evidence words"),
        (variadic, {}, "other than evidence and settings"),
        (no_default, {}, "without a plain default"),
        (toy, {"easy": "up"}, "easy is 'up'"),
        (toy, {"on": "validation"}, "on is 'validation'"),
        (toy, {"blind_to": ("noise",)}, "unknown plants"),
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
    assert proxies.words(specs) == {"correct", "input_density", "labels"}


def test_oriented_turns_low_and_leaves_high():
    """High means easy everywhere behind this function."""
    scores = np.array([1.0, 2.0])
    assert proxies.oriented(proxies.get("cbtl"), scores).tolist() == [1, 2]
    assert proxies.oriented(proxies.get("forgetting_events"), scores).tolist() == [-1, -2]


def test_moments_read_only_words_of_one_moment():
    """What is computed after every epoch must not need the whole trajectory."""
    for spec in SPECS:
        assert spec.moment == any("now" in word or "hidden" in word for word in spec.evidence)


def test_markdown_has_a_row_per_proxy():
    """The README's table is made, never written."""
    rows = proxies.proxies_markdown().splitlines()
    assert len(rows) == len(SPECS) + 2
    assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize("module", [ranks, proxies.speed], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module):
    """A docstring's example is the first thing that a reader tries."""
    found = doctest.testmod(module, extraglobs={"np": np})
    assert (found.failed, found.attempted > 0) == (0, True)
