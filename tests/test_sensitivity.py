"""Slopes with respect to the inputs: against autograd one example at a time, by hand, by law."""

import numpy as np
import pytest
import torch
from gradient_toys import SmallConv, images_of, state_of, toy_checkpoint
from torch.nn import functional
from toys import blobs

from study.errors import AnalysisError, RecipeError
from study.figures import sensitivity as figures
from study.proxies import sensitivity
from study.recipe import Train
from study.signals import derivatives, input_gradients, weight_gradients
from study.training.device_data import Examples

both_networks = pytest.mark.parametrize("kind", ["mlp", "conv"])
SOURCES = [
    input_gradients.loss_sensitivity,
    input_gradients.critical_samples,
    input_gradients.adversarial_margins,
    input_gradients.logit_gradients_over_time,
    weight_gradients.gradient_norms,
    weight_gradients.last_layer_gradient_density,
    weight_gradients.gradient_density,
    weight_gradients.tangent_density_last,
]
every_source = pytest.mark.parametrize("function", SOURCES, ids=lambda function: function.__name__)


def given(function, kind):
    """The array that a source of one word gives."""
    result = function(toy_checkpoint(kind))
    return result["critical_steps"] if isinstance(result, dict) else result


def slope_of(value, image):
    return torch.autograd.grad(value, image)[0].flatten()


@pytest.mark.parametrize(
    "scores", [[3.0], [1, 2, 3, 4], [0, 0, 5], [0, 0], np.random.default_rng(0).exponential(size=99)]
)
def test_gini_is_the_mean_absolute_difference(scores):
    """Half the mean of |a - b| over all pairs, over the mean: the definition, in n x n numbers."""
    scores = np.asarray(scores, float)
    pairs = np.abs(scores[:, None] - scores).mean()
    expected = pairs / (2 * scores.mean()) if scores.any() else 0
    assert sensitivity.gini(scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scores", [[], [1, -1], [1, np.nan]])
def test_gini_refuses_what_has_no_share(scores):
    """With negative scores the coefficient leaves 0 to 1 and means nothing."""
    with pytest.raises(ValueError, match="not negative"):
        sensitivity.gini(scores)


@both_networks
def test_loss_sensitivity_equals_autograd_one_by_one(kind):
    """The block's sum must hold each example's own gradient, also behind BatchNorm in evaluation mode."""
    checkpoint = toy_checkpoint(kind)
    network, expected = checkpoint.snapshot.network(), []
    for image, label in images_of(checkpoint)[:40]:
        image = image.clone().requires_grad_()
        expected.append(float(slope_of(functional.cross_entropy(network(image), label), image).abs().sum()))
    np.testing.assert_allclose(input_gradients.loss_sensitivity(checkpoint), expected, rtol=1e-9)


@both_networks
def test_class_matrix_equals_a_loop_over_examples_and_classes(kind):
    """Entry i, j: loss towards class i at inputs of class j; transposed it would still look plausible."""
    checkpoint = toy_checkpoint(kind)
    network, labels = checkpoint.snapshot.network(), checkpoint.dataset.labels[:40]
    towards = np.zeros((40, 3))
    for row, (image, _) in enumerate(images_of(checkpoint)[:40]):
        for index in range(3):
            image = image.clone().requires_grad_()
            loss = functional.cross_entropy(network(image), torch.tensor([index]))
            towards[row, index] = slope_of(loss, image).abs().sum()
    expected = np.array([[towards[labels == j, i].mean() for j in range(3)] for i in range(3)])
    input_gradients.loss_sensitivity(checkpoint)
    np.testing.assert_allclose(checkpoint.memory["arrays"]["class_sensitivity"], expected[None], rtol=1e-9)
    input_gradients.loss_sensitivity(checkpoint)
    assert checkpoint.memory["arrays"]["class_sensitivity"].shape == (2, 3, 3)
    assert checkpoint.memory["arrays"]["epochs"].tolist() == [1, 1]


def test_gini_is_of_the_mean_so_far():
    """The coefficient goes with the score that is reported: the average over training up to that epoch."""
    early, late = toy_checkpoint(steps=1, epoch=1), toy_checkpoint(steps=9, epoch=2)
    late.memory = early.memory
    taken = np.stack([input_gradients.loss_sensitivity(early), input_gradients.loss_sensitivity(late)])
    metrics = early.memory["metrics"]
    assert metrics[1]["sensitivity/gini"] == pytest.approx(sensitivity.gini(taken[0]))
    assert metrics[2]["sensitivity/gini"] == pytest.approx(sensitivity.gini(taken.mean(axis=0)))
    np.testing.assert_allclose(sensitivity.loss_sensitivity(taken), taken.mean(axis=0))


def test_confident_examples_keep_their_order_in_float32():
    """Softmax less one-hot rounds to 0 at a confidence of 1 - 1e-8; half of MNIST would tie there."""
    logits = torch.tensor([[0.0, 25.0, 0.0], [0.0, 30.0, 0.0]])
    gradient = derivatives.loss_gradient(logits, torch.tensor([1, 1]))
    others = torch.softmax(logits.double(), dim=1)[:, [0, 2]]
    torch.testing.assert_close(gradient[:, [0, 2]].double(), others, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient[:, 1].double(), -others.sum(dim=1), rtol=1e-5, atol=0)


@both_networks
def test_adversarial_margin_equals_a_loop(kind):
    """min over j of |z_i - z_j| / |grad (z_i - z_j)|, the paper's formula, class by class."""
    checkpoint = toy_checkpoint(kind)
    network, expected = checkpoint.snapshot.network(), []
    for image, _ in images_of(checkpoint):
        ratios = []
        for other in range(3):
            image = image.clone().requires_grad_()
            logits = network(image)[0]
            top = int(logits.argmax())
            if other != top:
                gap = logits[top] - logits[other]
                ratios.append(float(gap.detach() / slope_of(gap, image).norm()))
        expected.append(min(ratios))
    np.testing.assert_allclose(input_gradients.adversarial_margins(checkpoint), expected, rtol=1e-9)


def linear_moment(weight, bias=(0.0, 0.0), images=None):
    """Two classes on images of two pixels, with the logits of one linear layer on top of what ReLU leaves."""
    dataset = blobs(8, 2, n_classes=2, shape=(1, 1, 2))
    checkpoint = toy_checkpoint("mlp", dataset, steps=0)
    network = checkpoint.snapshot.network()
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        first, second = network.blocks
        first.weight[:2, :2] = torch.eye(2)
        second.weight[:2, :2] = torch.eye(2)
        network.classifier.weight[:, :2] = torch.tensor(weight, dtype=torch.float64)
        network.classifier.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    if images is not None:
        checkpoint.snapshot.examples.images[:] = torch.tensor(images, dtype=torch.float64).reshape(-1, 1, 1, 2)
    return checkpoint


def test_adversarial_margin_of_a_plane_is_the_distance_to_it():
    """z = (3 x, 4 y): the difference 3 x - 4 y has slope 5, so the margin is |3 x - 4 y| / 5, worked out by hand."""
    images = np.random.default_rng(0).uniform(0.1, 1, size=(10, 2))
    margins = input_gradients.adversarial_margins(linear_moment([[3.0, 0.0], [0.0, 4.0]], images=images))
    np.testing.assert_allclose(margins, np.abs(3 * images[:, 0] - 4 * images[:, 1]) / 5, rtol=1e-9)


def test_an_example_without_slope_gets_the_largest_margin():
    """Behind dead units no small change reaches another class: it must be finite, and not hardest by 0 / 0."""
    images = np.full((10, 2), 0.5)
    images[3] = -1.0  # both units are dead
    images[5] = (0.5, 0.4)
    margins = input_gradients.adversarial_margins(linear_moment([[3.0, 0.0], [0.0, 4.0]], images=images))
    assert np.isfinite(margins).all()
    assert margins[3] == margins.max() == pytest.approx(0.1)
    assert margins[5] == pytest.approx(0.02)


def test_a_collapsed_network_has_no_margins():
    """One line that says why, not ten thousand infinities."""
    with pytest.raises(AnalysisError, match="all input gradients are 0"):
        input_gradients.adversarial_margins(linear_moment([[0.0, 0.0], [0.0, 0.0]]))


def test_search_without_noise_needs_the_steps_that_a_plane_asks_for():
    """z = (x, y): a step brings x - y nearer by twice its length, so ceil(gap / 2 step) by hand."""
    gaps = np.array([0.011, 0.03, 0.05, 0.07, 0.09, 0.15, 0.19, 0.21, 0.5, 0.9])
    images = np.stack([np.full(10, 0.95), 0.95 - gaps], axis=1)
    checkpoint = linear_moment([[1.0, 0.0], [0.0, 1.0]], images=images)
    steps = input_gradients.critical_samples(checkpoint, radius=0.1, step=0.01, noise=0.0, steps=12)["critical_steps"]
    assert steps.tolist() == [1, 2, 3, 4, 5, 8, 10, 13, 13, 13]
    assert checkpoint.memory["metrics"][1]["sensitivity/critical_ratio_train"] == pytest.approx(7 / 8)
    assert checkpoint.memory["metrics"][1]["sensitivity/critical_ratio_test"] == 0


def test_the_box_is_in_shares_of_the_pixel_range():
    """With inputs at SD 1 the same box must hold the same images, or the ratio would hang on the scaling."""
    checkpoint = toy_checkpoint(train=Train(normalize="standard"))
    frozen = derivatives.Frozen(checkpoint)
    scale = float(checkpoint.snapshot.examples.scale.flatten()[0]) * 255
    assert scale > 1.5
    seen = []
    original = derivatives.Frozen.__call__
    images = checkpoint.snapshot.examples.block(0, 50)

    def spy(self, batch):
        seen.append(batch.detach())
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivatives.Frozen, "__call__", spy)
        input_gradients.critical_samples(checkpoint, radius=0.05, step=0.04, noise=0.1, steps=3)
    moved = max(float((batch - images).abs().max()) for batch in seen if len(batch) == 50)
    assert frozen.dtype == torch.float64
    assert moved == pytest.approx(0.05 * scale, rel=1e-6)


def test_search_does_not_depend_on_the_size_of_a_block(monkeypatch):
    """Blocks follow the memory of the machine; scores must not."""
    dataset = blobs(300, 20)

    def steps():
        checkpoint = toy_checkpoint("mlp", dataset)
        return input_gradients.critical_samples(checkpoint, radius=0.2, step=0.02, noise=0.05)["critical_steps"]

    whole = steps()
    monkeypatch.setattr(derivatives, "ROWS", 64)
    assert len(set(whole)) > 3
    assert steps().tolist() == whole.tolist()


def test_before_the_last_epoch_a_sample_of_each_split_is_searched(monkeypatch):
    """The ratio over the epochs needs no more, and searching all is what costs; the same rows each time."""
    requested = []
    batch = Examples.batch
    monkeypatch.setattr(Examples, "batch", lambda self, rows: (requested.append(rows.tolist()), batch(self, rows))[1])
    for epoch in (1, 2):
        checkpoint = toy_checkpoint("mlp", blobs(40, 10), epoch=epoch)
        checkpoint.last = False
        assert input_gradients.critical_samples(checkpoint, sample=12) == {}
        assert set(checkpoint.memory["metrics"][epoch]) == {
            f"sensitivity/critical_ratio_{s}" for s in ("train", "test")
        }
    assert requested[0] == requested[1] == sorted(set(requested[0]))
    assert (len(requested[0]), sum(row >= 40 for row in requested[0])) == (22, 10)


def test_a_sample_of_everyone_has_the_ratio_of_everyone():
    """The same examples and the same noise, by row numbers instead of in passing."""
    part, whole = (toy_checkpoint("mlp", blobs(40, 10)) for _ in range(2))
    part.last = False
    for checkpoint in (part, whole):
        input_gradients.critical_samples(checkpoint, radius=0.2, step=0.02, noise=0.05, sample=40)
    assert part.memory["metrics"] == whole.memory["metrics"]
    assert 0 < part.memory["metrics"][1]["sensitivity/critical_ratio_train"] < 1


def test_no_sample_is_no_search(monkeypatch):
    """Who draws no figure pays nothing before the end."""
    checkpoint = toy_checkpoint("mlp")
    checkpoint.last = False
    assert input_gradients.critical_samples(checkpoint, sample=0) == {}
    assert "metrics" not in checkpoint.memory


@pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"step": -0.1}, {"steps": 0}, {"noise": -1.0}, {"sample": -1}])
def test_a_search_that_cannot_move_is_refused(wrong):
    """A radius of 0 would call every example easy."""
    with pytest.raises(RecipeError, match="critical_samples"):
        input_gradients.critical_samples(toy_checkpoint(), **wrong)


@both_networks
def test_variance_of_gradients_equals_numpys(kind):
    """Running sums, taken block by block over the checkpoints, against var over the stacked gradients."""
    memory, stacked = {}, []
    for number in range(4):
        checkpoint = toy_checkpoint(kind, steps=3 * number, epoch=number + 1)
        checkpoint.memory = memory
        result = input_gradients.logit_gradients_over_time(checkpoint)
        network, gradients = checkpoint.snapshot.network(), []
        for image, label in images_of(checkpoint)[:40]:
            image = image.clone().requires_grad_()
            gradients.append(slope_of(network(image)[0, label], image).numpy())
        stacked.append(gradients)
        np.testing.assert_allclose(result, np.var(stacked, axis=0).mean(axis=1), rtol=1e-9, atol=1e-15)
    assert result.min() > 0


def test_variance_of_gradients_is_normalized_within_the_class():
    """Mean 0 and standard deviation 1 in each class, by hand; a class of equals gets 0."""
    variance = np.array([[0.0] * 5, [1.0, 3.0, 7.0, 7.0, 7.0]])
    labels = np.array([0, 0, 1, 1, 1])
    assert sensitivity.variance_of_gradients(variance, labels).tolist() == [-1, 1, 0, 0, 0]
    assert sensitivity.variance_of_gradients(variance, labels, within_class=False).tolist() == [1, 3, 7, 7, 7]


def test_one_due_epoch_has_no_variance():
    """All 0, it would rank every example alike without a word."""
    with pytest.raises(ValueError, match=r"lower single\.signals_every"):
        sensitivity.variance_of_gradients(np.zeros((1, 4)), np.zeros(4, int))


@both_networks
@every_source
def test_sources_leave_the_network_as_it_was(function, kind):
    """The weights are those that train on; a gradient left behind would move the next step."""
    checkpoint = toy_checkpoint(kind)
    network = checkpoint.snapshot.network()
    before = state_of(network)
    function(checkpoint)
    after = state_of(network)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if torch.is_tensor(value) else value == after[name], name
    assert not network.training


@both_networks
@every_source
def test_sources_do_not_depend_on_the_size_of_a_block(function, kind, monkeypatch):
    """A budget of one example at a time gives the scores of a whole block."""
    whole = given(function, kind)
    monkeypatch.setattr(derivatives, "BUDGET", 1)
    np.testing.assert_allclose(given(function, kind), whole, rtol=1e-9, atol=1e-12)


@every_source
def test_sources_tell_how_far_they_are(function):
    """A pass of minutes must be seen, and can be stopped where it reports."""
    checkpoint, messages = toy_checkpoint(), []
    checkpoint.progress = messages.append
    function(checkpoint)
    assert messages == sorted(messages)
    assert messages[-1] == pytest.approx(1)
    assert 0 < messages[0] <= 1


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 4)])
def test_memory_of_one_example_counts_its_activations(shape):
    """Blocks are cut by this number; without the weights, which are there once."""
    checkpoint = toy_checkpoint("conv", blobs(40, 10, shape=shape))
    pixels = shape[1] * shape[2]
    kept = derivatives.Frozen(checkpoint).image_bytes()
    assert 8 * (shape[0] + 2 * 4) * pixels <= kept <= 8 * (shape[0] + 40) * pixels + 1000
    assert isinstance(checkpoint.snapshot.network(), SmallConv)


def test_figures_draw():
    """One matrix, one series: what a report embeds."""
    matrix = figures.class_sensitivity(np.random.default_rng(0).uniform(size=(3, 3)), ["a", "b", "$c"])
    assert len(matrix.axes) == 2
    series = figures.sensitivity_by_epoch([1, 2, 3], {"sensitivity/gini": [0.1, 0.2, 0.3]})
    assert [line.get_ydata().tolist() for line in series.axes[0].get_lines()] == [[0.1, 0.2, 0.3]]


def test_figures_without_data_say_so():
    """An empty panel looks like a fault."""
    assert not figures.sensitivity_by_epoch([], {}).axes
    assert not figures.class_sensitivity(np.full((2, 2), np.nan), ["a", "b"]).axes
