"""Captured steps: what a GPU replays may read nothing that only Python knows.

There is no GPU here, so a recorder does to a step what a CUDA graph does: it keeps the operations of one run, with
every number that Python passed to them, and replays these on the same memory.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, SCHEDULES, Member, fit, jobs, members
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import blobs, toy_recipe

from study.models.build import create
from study.recipe import Optimizer
from study.training.cuda_graphs import Captured
from study.training.engines.base import Context
from study.training.learners import SpareLearner
from study.training.modules import ModuleLearner
from study.training.single import train_alone

SYNCHRONIZES = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "equal")
TRAIN = {"epochs": 3, "batch_size": 16}


class Recorder(TorchDispatchMode):
    """Keeps every operation; refuses those for which the host would wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run it and keep it."""
        name = operation.overloadpacket.__name__
        assert name not in SYNCHRONIZES, f"{name} makes the host wait"
        result = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            self.operations.append((operation, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Every operation on the memory of the recording; results go where the recording's went."""
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept is not new:
                    kept.copy_(new)


def recorded(self: Captured, function, inputs, state) -> None:
    """`Captured.__init__`, as on a GPU: runs that leave no trace, a recording that changes nothing, replays."""
    self.inputs, recorder = tuple(inputs), Recorder()
    before = [tensor.detach().clone() for tensor in state]
    function()
    with recorder:
        outputs = function()
    for tensor, was in zip(state, before, strict=True):
        tensor.detach().copy_(was)

    def replay():
        with torch.no_grad():
            recorder.replay()
        return outputs

    self.replay = replay


def test_the_recorder_freezes_what_python_knows(monkeypatch):
    """Else the tests below would say nothing: a step counted in Python is counted once."""
    for count, expected in ((True, [1.0, 1.0]), (False, [1.0, 2.0])):
        taken, total, numbers = torch.zeros(()), torch.zeros(()), iter((0, 1, 2, 3))

        def step(count=count, taken=taken, total=total, numbers=numbers):
            taken.add_(1)
            total.copy_(torch.full((), float(next(numbers))) if count else taken)
            return (total,)

        monkeypatch.setattr(Captured, "__init__", recorded)
        frozen = Captured(step, (), [taken, total])
        assert [float(frozen()[0]) for _ in range(2)] == expected
        monkeypatch.undo()


def ragged(dataset, sizes=(60, 36, 20, 100, 80)) -> list[Member]:
    """Random subsets of these sizes."""
    rng = np.random.default_rng(3)
    return [Member(("m", i), np.sort(rng.choice(dataset.n_train, size, replace=False))) for i, size in enumerate(sizes)]


def bits(outcomes) -> list[tuple]:
    return [(each.confidence.tobytes(), each.losses) for each in outcomes]


@pytest.mark.parametrize("schedule", ["constant", "triangular", "step"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_frozen_step_of_the_stack_trains_the_same_networks(optimizer, schedule, monkeypatch):
    """Rates, batch edges, rows that come and go, Adam's count of steps: all of it is in tensors."""
    train = TRAIN | {"pad": 1, "flip": True, "adversarial": 0.01}
    recipe = toy_recipe(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train=train)
    dataset = blobs()
    expected = bits(fit(ragged(dataset), dataset, recipe, replace(EXACT, stack=4)))
    monkeypatch.setattr(Captured, "__init__", recorded)
    assert bits(fit(ragged(dataset), dataset, recipe, replace(EXACT, stack=4))) == expected


def captured_everywhere(group, dataset, recipe) -> list:
    """As on a GPU: one learner for all members, its steps captured."""
    spare, context, learners = SpareLearner(), Context(dataset, EXACT), set()
    outcomes = []
    for job in jobs(group, recipe):
        outcomes += train_alone(job, context, context.hooks, spare)
        learners.add(spare.learner)
    assert len(learners) == 1
    return outcomes


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_networks_in_one_another_s_place_are_what_they_are_alone(optimizer, frozen, monkeypatch):
    """Weights, BatchNorm's statistics and the optimizer's memory begin anew; also in a frozen step."""
    recipe = toy_recipe(
        model={"name": "tiny_batchnorm", "settings": {}},
        optimizer=OPTIMIZERS[optimizer],
        schedule=SCHEDULES["triangular"],
        train=TRAIN | {"pad": 1},
    )
    dataset = blobs(shape=(3, 6, 6))
    group = ragged(dataset)
    alone = list(fit(group, dataset, recipe, EXACT))
    if frozen:
        monkeypatch.setattr(Captured, "__init__", recorded)
    for one, other in zip(alone, captured_everywhere(group, dataset, recipe), strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-6)


def test_a_network_that_prepares_itself_does_so_in_another_s_place():
    """The whitening of each member comes from its own training examples."""
    recipe = toy_recipe(model={"name": "speednet", "settings": {"widths": [8, 8]}}, train=TRAIN | {"epochs": 1})
    dataset = blobs(shape=(3, 8, 8))
    group = members(dataset, count=3, size=40)
    alone = list(fit(group, dataset, recipe, EXACT))
    for one, other in zip(alone, captured_everywhere(group, dataset, recipe), strict=True):
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-6)


def test_only_batches_of_the_first_one_s_size_are_replayed():
    """A last, shorter batch is no reason for a second graph with activations of its own."""
    calls = []
    network = create(toy_recipe(model={"name": "tiny_batchnorm", "settings": {}}).model.spec(), (3, 6, 6), 3)
    where = ("cpu", torch.float64, torch.float64)
    learner = ModuleLearner(network, Optimizer(), *where, captured=True)
    original = Captured.__call__
    for b in (8, 5, 8):
        images, labels = torch.rand(b, 3, 6, 6, dtype=torch.float64), torch.arange(b) % 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Captured, "__call__", lambda self, *what: (calls.append(len(what[0])), original(self, *what))[1]
            )
            learner.step(images, labels, 0.1)
        assert learner.logits.shape == (b, 3)
    assert calls == [8, 8]


def test_inputs_are_filled_in_before_each_call():
    """Tensors are copied and numbers filled in; the caller's own are free again."""
    image, rate = torch.zeros(3), torch.zeros(())
    step = Captured(lambda: (image * rate,), (image, rate), [image])
    assert step(torch.tensor([1.0, 2.0, 3.0]), 2.0)[0].tolist() == [2, 4, 6]
    assert step(torch.tensor([1.0, 1.0, 1.0]), 0.5)[0].tolist() == [0.5, 0.5, 0.5]
    assert image.tolist() == [1, 1, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", ["mlp", "tiny_batchnorm"])
def test_a_cuda_graph_trains_what_the_cpu_trains(network, optimizer):
    """The recording itself, on the device it is for."""
    settings = {"widths": [16, 8]} if network == "mlp" else {}
    recipe = toy_recipe(model={"name": network, "settings": settings}, optimizer=OPTIMIZERS[optimizer], train=TRAIN)
    dataset = blobs(shape=(3, 6, 6))
    expected = list(fit(ragged(dataset), dataset, recipe, EXACT))
    result = list(fit(ragged(dataset), dataset, recipe, replace(EXACT, device="cuda", stack=3)))
    for one, other in zip(expected, result, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-5)
