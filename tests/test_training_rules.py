"""Update rules: torch.optim's, alone, stacked, and with settings of their own in every row."""

import pytest
import torch
from loops import OPTIMIZERS, torch_rule
from torch import Tensor, nn

from study.models.build import create
from study.models.spec import NetworkSpec
from study.recipe import Optimizer
from study.training.mlp import MLPLearner
from study.training.optimizers import update_rule

STEPS = 12
MODEL = NetworkSpec(name="mlp", settings={"widths": (16, 8)})
WHERE = ("cpu", torch.float64, torch.float64)
ROWS = {  # three settings of each rule, as a search tries them
    "sgd": [{"momentum": 0.0}, {"momentum": 0.9, "weight_decay": 1e-2}, {"momentum": 0.5, "weight_decay": 5e-4}],
    "nesterov": [{"momentum": momentum, "nesterov": True, "weight_decay": 1e-3} for momentum in (0.9, 0.5, 0.1)],
    "adam": [{"momentum": 0.9, "beta2": 0.99}, {"momentum": 0.5, "weight_decay": 1e-2}, {"eps": 1e-3}],
    "adamax": [{"momentum": 0.9, "beta2": 0.99}, {"momentum": 0.5, "weight_decay": 1e-2}, {"eps": 1e-3}],
    "adagrad": [{"weight_decay": 1e-2}, {}, {"eps": 1e-3}],
}


def rows_of(name: str) -> list[Optimizer]:
    """The settings of three rows."""
    return [Optimizer(name="sgd" if name == "nesterov" else name, **row) for row in ROWS[name]]


def drawn_gradients(seed: int = 0) -> list[Tensor]:
    """Some steps' gradients of three rows."""
    return list(torch.randn(STEPS, 3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def theirs(optimizer: Optimizer, start: Tensor, gradients: list[Tensor], rates: list[float]) -> Tensor:
    """Where torch's own rule goes from `start`."""
    weights = nn.Parameter(start.clone())
    rule = torch_rule(optimizer, [weights])
    for gradient, lr in zip(gradients, rates, strict=True):
        rule.param_groups[0]["lr"] = lr
        weights.grad = gradient.clone()
        rule.step()
    return weights.detach()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_rule_equals_torch_optim(name):
    """Definitions of momentum, Nesterov and the adaptive rules differ between libraries; ours are torch's."""
    settings = Optimizer(**OPTIMIZERS[name])
    gradients = [each[0] for each in drawn_gradients()]
    ours = drawn_gradients(1)[0][0]
    expected = theirs(settings, ours, gradients, [settings.lr] * STEPS)
    update = update_rule(settings, ours)
    for gradient in gradients:
        update.step(ours, gradient, settings.lr)
    assert float((ours - expected).abs().max()) < 1e-12


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_settings_of_its_own(name):
    """A search trains trials with different rates, momenta and weight decays as one stack."""
    optimizers, gradients = rows_of(name), drawn_gradients()
    rates = [[0.1 * (1 - step / STEPS), 0.01, 0.003 * step] for step in range(STEPS)]
    ours = drawn_gradients(1)[0]
    expected = [
        theirs(optimizer, ours[row], [each[row] for each in gradients], [each[row] for each in rates])
        for row, optimizer in enumerate(optimizers)
    ]
    update = update_rule(optimizers, ours)
    for gradient, lr in zip(gradients, rates, strict=True):
        update.step(ours, gradient, torch.tensor(lr, dtype=torch.float64))
    assert float((ours - torch.stack(expected)).abs().max()) < 1e-12
    assert update.optimizers == optimizers


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_begins_anew_forgets(name):
    """A pruned trial's place goes to the next one: no velocity, no count of steps, settings of its own."""
    optimizers, gradients = rows_of(name), drawn_gradients()
    ours = drawn_gradients(1)[0]
    start, late = ours.clone(), ours[2].clone()
    update = update_rule([optimizers[0], optimizers[0], optimizers[2]], ours)
    for step, gradient in enumerate(gradients):
        if step == 5:
            ours[1] = late
            update.reset(1, optimizers[1])
        update.step(ours, gradient, 0.01)
    expected = [
        theirs(optimizers[0], start[0], [each[0] for each in gradients], [0.01] * STEPS),
        theirs(optimizers[1], late, [each[1] for each in gradients[5:]], [0.01] * (STEPS - 5)),
        theirs(optimizers[2], start[2], [each[2] for each in gradients], [0.01] * STEPS),
    ]
    assert float((ours - torch.stack(expected)).abs().max()) < 1e-12


def test_a_row_that_begins_anew_may_be_the_first_with_momentum():
    """Plain gradient descent keeps no velocity, until somebody in the stack needs one."""
    ours, gradients = drawn_gradients(1)[0], drawn_gradients()
    plain, heavy = Optimizer(momentum=0.0), Optimizer(momentum=0.9)
    update = update_rule(plain, ours)
    update.step(ours, gradients[0], 0.01)
    start = ours.clone()
    update.reset(2, heavy)
    for gradient in gradients[1:]:
        update.step(ours, gradient, 0.01)
    for row, optimizer in enumerate([plain, plain, heavy]):
        expected = theirs(optimizer, start[row], [each[row] for each in gradients[1:]], [0.01] * (STEPS - 1))
        assert float((ours[row] - expected).abs().max()) < 1e-12


def test_rows_of_one_stack_share_the_rule():
    """Adam beside SGD, or Nesterov beside plain momentum, is no one computation."""
    for other in (Optimizer(name="adam"), Optimizer(nesterov=True)):
        with pytest.raises(ValueError, match="one stack, one update rule"):
            update_rule([Optimizer(), other], torch.zeros(2, 3))


def test_a_diverged_row_leaves_the_others_alone():
    """An infinite gradient in one row must not spread through the columns of settings."""
    for name in ROWS:
        ours, gradients = drawn_gradients(1)[0], drawn_gradients()
        sound = ours.clone()
        gradients[3][1] = torch.inf
        for weights, bad in ((ours, True), (sound, False)):
            update = update_rule(rows_of(name), weights)
            for gradient in gradients:
                update.step(
                    weights, gradient if bad else gradient.nan_to_num(posinf=0.5), torch.tensor([0.1, 0.01, 0.001])
                )
        assert not torch.isfinite(ours[1]).all()
        assert torch.equal(ours[[0, 2]], sound[[0, 2]])


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Random images and labels for three networks."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 16, 1, 6, 6, dtype=torch.float64, generator=generator)
    return list(zip(images, torch.randint(0, 3, (count, 3, 16), generator=generator), strict=True))


@pytest.mark.parametrize("name", ROWS)
def test_stacked_trials_equal_trials_alone(name):
    """Three rates, momenta and weight decays as one stack are three trainings, to 1e-9 in float64."""
    optimizers = rows_of(name)
    networks = [create(MODEL, (1, 6, 6), 3, seed=seed) for seed in range(3)]
    rates = (0.1, 0.02, 0.004)
    stacked = MLPLearner(networks, optimizers, *WHERE)
    alone = [MLPLearner([network], optimizer, *WHERE) for network, optimizer in zip(networks, optimizers, strict=True)]
    for images, labels in batches(20):
        losses = stacked.step(images, labels, torch.tensor(rates, dtype=torch.float64))
        for row, one in enumerate(alone):
            assert float((one.step(images[row], labels[row], rates[row]) - losses[row]).abs()) < 1e-9
    for row, one in enumerate(alone):
        assert float((one.weights - stacked.weights[row]).abs().max()) < 1e-9


@pytest.mark.parametrize("stack", [1, 3])
def test_a_row_can_be_given_to_a_new_network(stack):
    """Its weights, also those of the products' precision, and nothing of what the row did before."""
    where = ("cpu", torch.float32, torch.bfloat16)
    networks = [create(MODEL, (1, 6, 6), 3, seed=seed) for seed in range(stack)]
    learner = MLPLearner(networks, Optimizer(), *where)
    drawn = [(images.bfloat16(), labels) for images, labels in batches(8)]
    each_step = [(images[0], labels[0]) if stack == 1 else (images[:stack], labels[:stack]) for images, labels in drawn]
    for images, labels in each_step[:4]:
        learner.step(images, labels, 0.1)
    fresh = create(MODEL, (1, 6, 6), 3, seed=9)
    learner.reset(stack - 1, fresh)
    for images, labels in each_step[4:]:
        learner.step(images, labels, 0.1)
    alone = MLPLearner([fresh], Optimizer(), *where)
    for images, labels in drawn[4:]:
        alone.step(images[stack - 1], labels[stack - 1], 0.1)
    row = learner.weights if stack == 1 else learner.weights[-1, : len(alone.weights)]
    assert float((row - alone.weights).abs().max()) < 1e-3  # bfloat16 products, batched and plain
    assert torch.equal(learner.used, learner.weights.bfloat16())
