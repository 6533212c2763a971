"""The kernel compiled on this machine against the loop that a user would write, and what happens without a compiler."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, SCHEDULES, Member, fit, members, plain_loop
from toys import blobs, toy_recipe

from study.errors import RecipeError, Stopped
from study.kernels import native
from study.models.build import create
from study.recipe import Runtime
from study.training.engines.mlp_native import NativeLearner, trains
from study.training.placement import place
from study.training.results import Hooks

NATIVE = replace(EXACT, kernel="native")
TRAIN = {"epochs": 5, "batch_size": 16}
SGD = [name for name, settings in OPTIMIZERS.items() if settings.get("name", "sgd") == "sgd"]
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C++ compiler here")
needs_bfloat16 = pytest.mark.skipif(
    native.library() is None or not native.library().study_has_bfloat16(), reason="no bfloat16 instructions here"
)


def trained(recipe, dataset, group, placement=NATIVE, **hooks):
    """Logits of all examples by member; only the kernel trains."""
    kept = {}

    def keep(member, epoch, evaluation):
        assert isinstance(evaluation.learner, NativeLearner)
        kept[member.name] = evaluation.logits().numpy()

    list(fit(group, dataset, recipe, placement, Hooks(after_epoch=keep, **hooks)))
    return kept


def close(recipe, dataset, group):
    result = trained(recipe, dataset, group)
    for member in group:
        expected = plain_loop(dataset, recipe, member).logits.numpy()
        np.testing.assert_allclose(result[member.name], expected, rtol=0, atol=1e-9)


@needs_compiler
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", SGD)
def test_the_kernel_equals_the_plain_loop(optimizer, schedule):
    """Momentum, Nesterov, weight decay, every schedule; the last batch is smaller than the others."""
    recipe = toy_recipe(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train=TRAIN)
    dataset = blobs()
    close(recipe, dataset, members(dataset, count=1))


@needs_compiler
@pytest.mark.parametrize("widths", [[7], [33, 17], [130, 65, 9]])
@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 3, 5), (3, 9, 9)])
def test_widths_need_not_fit_the_vectors(widths, shape):
    """Odd numbers of inputs, units and classes leave parts of tiles and of pairs empty."""
    recipe = toy_recipe(model={"name": "mlp", "settings": {"widths": widths}}, train=TRAIN)
    dataset = blobs(shape=shape, n_classes=5)
    close(recipe, dataset, members(dataset, count=1))


@needs_compiler
@pytest.mark.parametrize("widths", [[40], [70, 20]])
def test_pixels_that_are_0_everywhere_or_in_some_batches_may_be_left_out(widths):
    """Margins as MNIST's, and images that are black altogether."""
    recipe = toy_recipe(model={"name": "mlp", "settings": {"widths": widths}}, train=TRAIN)
    dataset = blobs(shape=(1, 14, 14))
    images = dataset.images.copy()
    images[:, :, :5] = images[:, :, :, 11:] = 0
    images[::3] = 0
    dataset = replace(dataset, images=images)
    close(recipe, dataset, members(dataset, count=1))


@needs_compiler
@pytest.mark.parametrize("size", [0, 1, 7, 40])
def test_batches_need_not_fit_the_vectors(size):
    recipe = toy_recipe(train=TRAIN | {"batch_size": size, "epochs": 3}, optimizer={"lr": 0.01})
    dataset = blobs()
    close(recipe, dataset, members(dataset, count=1))


@needs_compiler
@pytest.mark.parametrize(
    "train", [{"loss": "zero_hinge"}, {"pad": 2, "flip": True}, {"adversarial": 0.1}, {"steps": 9}]
)
def test_whatever_else_the_recipe_asks_is_torch_s(train):
    """The other loss, images made batch by batch, an end within an epoch; torch's steps are the reference."""
    recipe = toy_recipe(train={"batch_size": 16, **({} if "steps" in train else {"epochs": 5}), **train})
    dataset = blobs()
    group = members(dataset, count=1)
    reference = {}

    def keep(member, epoch, evaluation):
        reference[member.name] = evaluation.logits().numpy()

    list(fit(group, dataset, recipe, EXACT, Hooks(after_epoch=keep)))
    result = trained(recipe, dataset, group)
    np.testing.assert_allclose(result[group[0].name], reference[group[0].name], rtol=0, atol=1e-9)


@needs_compiler
def test_what_is_right_in_passing_is_torch_s():
    recipe, dataset = toy_recipe(train=TRAIN), blobs()
    group = members(dataset, count=1)
    seen = {"native": [], "torch": []}
    for kernel, kept in seen.items():

        def keep(member, epoch, evaluation, kept=kept):
            kept.append(None if evaluation.online is None else evaluation.online.numpy().copy())

        list(fit(group, dataset, recipe, replace(EXACT, kernel=kernel), Hooks(after_epoch=keep, online=True)))
    for value, reference in zip(seen["native"][1:], seen["torch"][1:], strict=True):
        np.testing.assert_array_equal(value, reference)
    assert any(native.any() for native in seen["native"][1:])


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_a_lower_precision_rounds_as_torch_does(precision):
    """Three steps of a wide network: the kernel is as far from float64 as torch in the same precision, within half."""
    recipe = toy_recipe(model={"name": "mlp", "settings": {"widths": [200, 100]}}, train=TRAIN | {"epochs": 1})
    dataset = blobs(shape=(1, 12, 12))
    group = members(dataset, count=1)
    exact = plain_loop(dataset, recipe, group[0]).logits.numpy()
    error = {}
    for kernel in ("native", "torch"):
        placement = replace(EXACT, precision=precision, kernel=kernel)
        (outcome,) = fit(group, dataset, recipe, placement)
        p = np.exp(exact - exact.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        error[kernel] = np.abs(outcome.confidence - p[np.arange(dataset.n), dataset.labels]).mean()
    assert error["native"] <= 1.5 * error["torch"] + 1e-9


@needs_compiler
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_runs_give_the_same_bits_however_many_train_at_a_time(precision):
    recipe, dataset = toy_recipe(train=TRAIN), blobs()
    group = members(dataset, count=4)
    base = replace(NATIVE, precision=precision)
    first, second = (list(fit(group, dataset, recipe, replace(base, threads=threads))) for threads in (1, 3))
    for one, other in zip(first, second, strict=True):
        assert one.confidence.tobytes() == other.confidence.tobytes()
        assert one.losses == other.losses


@needs_compiler
@pytest.mark.parametrize("precision", ["float64", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_a_diverged_member_is_flagged_and_leaves_the_others_alone(precision):
    """A NaN in its images must not be taken for an inactive unit."""
    dataset, recipe, placement = blobs(), toy_recipe(train=TRAIN), replace(NATIVE, precision=precision, threads=2)
    group = [Member(("ill",), np.arange(60)), Member(("sound",), np.arange(1, 60))]
    images = dataset.images.astype(np.float32)
    sound = list(fit(group, replace(dataset, images=images), recipe, placement))[1]
    images[0] = np.nan
    ill, other = fit(group, replace(dataset, images=images), recipe, placement)
    assert ill.diverged
    assert np.isnan(ill.losses[-1])
    np.testing.assert_array_equal(other.confidence[1:], sound.confidence[1:])


@needs_compiler
def test_the_kernel_stops_when_told():
    recipe, dataset = toy_recipe(train=TRAIN), blobs()
    hooks = Hooks()
    hooks.stop.set()
    with pytest.raises(Stopped):
        list(fit([Member(("one",), np.arange(60))], dataset, recipe, NATIVE, hooks))


@needs_compiler
@pytest.mark.parametrize("count", [1, 16, 50])
def test_its_answers_are_those_of_the_module(count):
    """Also of more or fewer images than a batch has, and after a step."""
    recipe, dataset = toy_recipe(train=TRAIN), blobs()
    network = create(recipe.model.spec(), dataset.shape, dataset.n_classes)
    learner = NativeLearner(network, recipe.optimizer, torch.float64, torch.float64, 16)
    images = torch.rand(count, 1, 6, 6, dtype=torch.float64).round(decimals=1)
    learner.step(images[:16], torch.arange(len(images[:16])) % 3, 0.1)
    expected = learner.module()(images).detach()
    np.testing.assert_allclose(learner.evaluate(images)[0], expected, rtol=0, atol=1e-12)


@needs_compiler
def test_an_answer_between_two_steps_changes_neither():
    """A run that is looked at has to be the run that nobody looks at."""
    recipe, dataset = toy_recipe(train=TRAIN), blobs()
    images, labels = torch.rand(16, 1, 6, 6, dtype=torch.float64), torch.arange(16) % 3
    seen, unseen = (
        NativeLearner(
            create(recipe.model.spec(), dataset.shape, dataset.n_classes),
            recipe.optimizer,
            torch.float64,
            torch.float64,
            16,
        )
        for _ in range(2)
    )
    for learner in (seen, unseen):
        learner.step(images, labels, 0.1)
        if learner is seen:
            learner.evaluate(images[:5])
        learner.step(images, labels, 0.1)
    assert torch.equal(seen.weights, unseen.weights)


@needs_compiler
def test_a_learner_can_be_given_a_new_network():
    """Its weights are the new ones, its velocity nothing."""
    recipe, dataset = toy_recipe(train=TRAIN), blobs()
    one, other = (create(recipe.model.spec(), dataset.shape, dataset.n_classes, seed=seed) for seed in (1, 2))
    learners = [NativeLearner(network, recipe.optimizer, torch.float64, torch.float64, 16) for network in (one, other)]
    images, labels = torch.rand(16, 1, 6, 6, dtype=torch.float64), torch.arange(16) % 3
    learners[0].step(images, labels, 0.1)
    learners[0].reset(0, other)
    for learner in learners:
        learner.step(images, labels, 0.1)
    assert torch.equal(learners[0].weights, learners[1].weights)


@needs_compiler
@pytest.mark.parametrize("compute", [torch.float64, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
def test_a_learner_that_diverged_can_be_given_a_new_network(compute):
    """What lies beyond an odd number of inputs, units or classes must not keep a NaN."""
    recipe = toy_recipe(model={"name": "mlp", "settings": {"widths": [7, 5]}})
    master = torch.float64 if compute == torch.float64 else torch.float32
    ill, sound = (
        NativeLearner(create(recipe.model.spec(), (1, 3, 5), 3), recipe.optimizer, master, compute, 16)
        for _ in range(2)
    )
    images, labels = torch.linspace(0, 1, 240).view(16, 1, 3, 5).to(compute), torch.arange(16) % 3
    ill.step(torch.full_like(images, torch.nan), labels, 0.1)
    for learner in (ill, sound):
        learner.reset(0, create(recipe.model.spec(), (1, 3, 5), 3, seed=1))
        learner.step(images, labels, 0.1)
        learner.step(images, labels, 0.1)
    assert torch.isfinite(sound.weights).all()
    assert torch.equal(ill.weights, sound.weights)


def test_only_sgd_has_a_kernel():
    assert not trains(toy_recipe(optimizer={"name": "adam", "lr": 0.01}).optimizer, torch.float32)


@pytest.fixture
def no_library(monkeypatch):
    """As on a machine that has made nothing yet; the cache of this process is put aside."""
    monkeypatch.setattr(native, "library", native.library.__wrapped__)


def test_without_a_compiler_torch_trains(monkeypatch, no_library):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    assert place(Runtime(device="cpu"), stackable=True).kernel == "torch"


def test_a_compiler_that_fails_is_told_of_in_one_line(monkeypatch, no_library, tmp_path, caplog):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'error: out of patience' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert native.library() is None
    (record,) = (each for each in caplog.records if each.levelname == "WARNING")
    assert "out of patience" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_who_asks_for_the_kernel_hears_what_it_needs(monkeypatch, no_library):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(RecipeError, match="install g\\+\\+"):
        place(Runtime(device="cpu", kernel="native"), stackable=True)


@needs_compiler
def test_a_resumed_run_keeps_the_kernel_with_which_it_began():
    before = replace(EXACT, kernel="torch").tags()
    assert place(Runtime(device="cpu"), stackable=True, like=before).kernel == "torch"
    assert place(Runtime(device="cpu"), stackable=True).kernel == "native"


@needs_compiler
def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path):
    """Both find a whole library, and one is left."""
    code = (
        "from study.kernels import native\n"
        "native.OPTIONS = tuple(option for option in native.OPTIONS if option != '-O3')\n"  # a quarter of the time
        "assert native.library() is not None"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    assert len(list(tmp_path.rglob("*.so"))) == 1
