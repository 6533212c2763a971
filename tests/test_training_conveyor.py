"""The stack that is kept full: every member is what it is alone, whatever trains beside it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, SCHEDULES, Member, at_their_ends, fit, plain_loop
from toys import blobs, toy_recipe

from study.data import Dataset
from study.errors import RecipeError, Stopped
from study.recipe import Recipe
from study.training.engines import stacked
from study.training.losses import LOSSES, of_counted
from study.training.mlp import MLPLearner
from study.training.results import Hooks, Outcome

SIZES = (60, 33, 17, 100, 81, 5, 48)  # of batches of 16: whole ones, a last one of 1 that joins another, one of 5 alone
TRAIN = {"steps": 20, "epochs": 5, "batch_size": 16}


def ragged(dataset: Dataset, sizes: tuple[int, ...] = SIZES) -> list[Member]:
    """Random subsets of these sizes."""
    rng = np.random.default_rng(3)
    return [
        Member(("member", number), np.sort(rng.choice(dataset.n_train, size, replace=False)))
        for number, size in enumerate(sizes)
    ]


def bits(outcomes: list[Outcome]) -> list[tuple]:
    return [(o.prediction.tobytes(), o.confidence.tobytes(), o.top_confidence.tobytes(), o.losses) for o in outcomes]


def close_to_the_plain_loop(recipe: Recipe, stack: int, monkeypatch, dataset: Dataset | None = None) -> None:
    dataset = dataset or blobs()
    group = ragged(dataset)
    result = at_their_ends(monkeypatch, lambda one, examples: one.evaluate(examples.block(0, examples.n))[0].numpy())
    list(fit(group, dataset, recipe, replace(EXACT, stack=stack)))
    assert len(result) == len(group)
    for member in group:
        expected = plain_loop(dataset, recipe, member).logits.numpy()
        np.testing.assert_allclose(result[member.name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_members_of_different_sizes_in_one_stack_equal_plain_loops(optimizer, schedule, monkeypatch):
    """20 steps each, at different places of a pass: torch.optim and autograd are the reference, to 1e-9."""
    recipe = toy_recipe(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], train=TRAIN)
    close_to_the_plain_loop(recipe, 3, monkeypatch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [None, 17])
def test_sizes_that_differ_in_the_last_batch_alone_share_a_stack(optimizer, steps, monkeypatch):
    """A balanced design's do, by one example; a last batch of one joins the one before it."""
    train = {"epochs": 3, "batch_size": 16, "steps": steps}
    recipe = toy_recipe(optimizer=OPTIMIZERS[optimizer], train=train)
    dataset, stacks = blobs(), []
    make = stacked.Stack.__init__
    monkeypatch.setattr(stacked.Stack, "__init__", lambda stack, *what: (stacks.append(stack), make(stack, *what))[0])
    group = ragged(dataset, (60, 61, 59, 65, 50, 60, 61))
    result = at_their_ends(monkeypatch, lambda one, examples: one.evaluate(examples.block(0, examples.n))[0].numpy())
    list(fit(group, dataset, recipe, replace(EXACT, stack=3)))
    assert len(stacks) == 1
    for member in group:
        expected = plain_loop(dataset, recipe, member).logits.numpy()
        np.testing.assert_allclose(result[member.name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("stack", [2, 4, 64])
def test_the_size_of_the_stack_is_no_matter(stack, monkeypatch):
    """Passes of their own length, rows that are dropped, more rows than members."""
    recipe = toy_recipe(optimizer=OPTIMIZERS["adam"], train={"epochs": 3, "batch_size": 16})
    close_to_the_plain_loop(recipe, stack, monkeypatch)


@pytest.mark.parametrize(
    "train", [{"pad": 1, "flip": True, "normalize": "standard"}, {"batch_size": 0}, {"loss": "zero_hinge"}], ids=str
)
def test_whatever_the_recipe_asks_members_equal_plain_loops(train, monkeypatch):
    """Crops, whole subsets as one batch of different widths, the other loss."""
    close_to_the_plain_loop(toy_recipe(train=TRAIN | train), 3, monkeypatch, blobs(shape=(3, 6, 6)))


@pytest.mark.parametrize("train", [{"input_noise": 0.3}, {"input_dropout": 0.2, "adversarial": 0.05}], ids=str)
def test_noise_is_drawn_as_for_a_member_alone(train):
    """Each row has a generator, and the padding of a short batch takes nothing from it."""
    dataset, recipe = blobs(), toy_recipe(train=TRAIN | train)
    group = ragged(dataset)
    alone, stacked = (list(fit(group, dataset, recipe, replace(EXACT, stack=stack))) for stack in (1, 3))
    for one, other in zip(alone, stacked, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-6)


def test_outcomes_come_in_the_members_order_with_all_that_a_member_alone_tells():
    """The small subsets end first, and the caller takes shards of members in order."""
    dataset, recipe = blobs(), toy_recipe()
    group = ragged(dataset)
    seen = []
    stacked = list(fit(group, dataset, recipe, replace(EXACT, stack=3), Hooks(seen.append)))
    for one, other in zip(fit(group, dataset, recipe, EXACT), stacked, strict=True):
        np.testing.assert_array_equal(one.prediction, other.prediction)
        np.testing.assert_allclose(one.top_confidence, other.top_confidence, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-9)
        assert (one.epochs, one.prediction.dtype) == (other.epochs, other.prediction.dtype)
        assert other.seconds > 0
    assert sum(seen) == sum(recipe.train.seen(size) for size in SIZES)


def test_a_diverged_member_leaves_those_beside_and_after_it_bit_for_bit():
    """Its NaN stays in its row, and goes when the row takes the next member."""
    dataset, recipe = blobs(), toy_recipe()
    group = ragged(dataset)
    lonely = dataset.n_train  # a row that no other member trains on
    group[0] = Member(group[0].name, np.append(group[0].rows[1:], lonely))
    images = dataset.images.astype(np.float32)
    sound = list(fit(group, replace(dataset, images=images.copy()), recipe, replace(EXACT, stack=3)))
    images[lonely] = np.nan
    broken = list(fit(group, replace(dataset, images=images), recipe, replace(EXACT, stack=3)))
    assert broken[0].diverged
    rest = np.arange(dataset.n) != lonely
    for before, after in zip(sound[1:], broken[1:], strict=True):
        assert before.losses == after.losses
        np.testing.assert_array_equal(before.confidence[rest], after.confidence[rest])


def test_padding_has_no_slope_and_no_loss():
    """Exactly 0, also where the padded logits are not numbers; the rest is the loss of the short batch."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=rng)
    labels = torch.randint(0, 4, (3, 5), generator=rng)
    counts = torch.tensor([5, 2, 0])
    logits[1, 2:] = torch.nan
    for loss in LOSSES.values():
        means, gradients = of_counted(loss, logits.clone(), labels, counts)
        for row, count in enumerate(counts.tolist()):
            assert not gradients[row, count:].any()
            if count:
                mean, gradient = loss(logits[row, :count].clone(), labels[row, :count])
                torch.testing.assert_close(means[row], mean, rtol=0, atol=1e-12)
                torch.testing.assert_close(gradients[row, :count], gradient, rtol=0, atol=1e-12)
        assert means[2] == 0


@pytest.mark.parametrize("step", [1, 9])
def test_a_stack_that_is_too_large_is_halved_and_the_results_are_those_of_the_smaller(step, monkeypatch):
    """Nobody knows beforehand what fits; members under way start anew and the bar goes back."""
    dataset, recipe, seen, calls = blobs(), toy_recipe(), [], []
    group = ragged(dataset, (60, 60, 61, 59, 20, 60))
    small = bits(list(fit(group, dataset, recipe, replace(EXACT, stack=2))))
    original = MLPLearner.step

    def greedy(learner, *what):
        calls.append(learner.stack)
        if learner.stack > 2 and len(calls) >= step:
            raise torch.OutOfMemoryError("no room for one more")
        return original(learner, *what)

    monkeypatch.setattr(MLPLearner, "step", greedy)
    assert bits(list(fit(group, dataset, recipe, replace(EXACT, stack=4), Hooks(seen.append)))) == small
    assert calls[0] == 4
    assert calls[-1] == 2
    assert sum(seen) == sum(recipe.train.seen(len(member.rows)) for member in group)


def test_a_device_without_room_for_two_says_so_in_one_line(monkeypatch):
    """The cure is another device or a smaller batch, not a traceback."""

    def greedy(learner, *what):
        raise torch.OutOfMemoryError("no room at all")

    monkeypatch.setattr(MLPLearner, "step", greedy)
    dataset = blobs()
    with pytest.raises(RecipeError, match=r"too little memory for two.*runtime\.device=cpu"):
        list(fit(ragged(dataset), dataset, toy_recipe(), replace(EXACT, stack=4)))


def test_members_are_asked_for_as_rows_come_free():
    """Thousands of subsets are not held at once."""
    dataset, recipe, requested = blobs(), toy_recipe(), []

    def endless():
        for member in ragged(dataset, (33,) * 300):
            requested.append(member)
            yield member

    outcomes = fit(endless(), dataset, recipe, replace(EXACT, stack=2))
    next(outcomes)
    outcomes.close()
    assert len(requested) < 50


def test_an_order_to_stop_reaches_the_stack():
    """Ctrl-C ends the training after the step under way."""
    dataset, stop = blobs(), threading.Event()
    hooks = Hooks(progress=lambda examples: stop.set(), stop=stop)
    with pytest.raises(Stopped):
        list(fit(ragged(dataset), dataset, toy_recipe(), replace(EXACT, stack=3), hooks))


def test_an_error_of_the_caller_s_members_is_the_caller_s():
    """It is raised where the outcomes are asked for, not lost in a thread."""
    dataset = blobs()

    def broken():
        yield from ragged(dataset, (33, 33))
        raise KeyError("no such member")

    with pytest.raises(KeyError, match="no such member"):
        list(fit(broken(), dataset, toy_recipe(), replace(EXACT, stack=4)))


def test_rows_without_work_are_dropped(monkeypatch):
    """At the end a few trainings are left; they do not drag an empty stack along."""
    widths, original = [], MLPLearner.step
    monkeypatch.setattr(
        MLPLearner, "step", lambda learner, *what: (widths.append(learner.stack), original(learner, *what))[1]
    )
    dataset = blobs()
    list(fit(ragged(dataset, (20,) * 10), dataset, toy_recipe(), replace(EXACT, stack=8)))
    assert widths[0] == 8
    assert widths[-1] == 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stack_in_low_precision_learns_what_members_alone_learn(precision):
    """Rows of bfloat16 are filled up to even lengths; what fills them takes no part."""
    dataset, recipe = blobs(), toy_recipe(train={"epochs": 3, "batch_size": 16})
    group = ragged(dataset)
    base = replace(EXACT, precision=precision)
    alone, stacked = (list(fit(group, dataset, recipe, replace(base, stack=stack))) for stack in (1, 3))
    for one, other in zip(alone, stacked, strict=True):
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=2e-2)
