"""How long a training is and how fast it goes: batches, steps, schedules, what is right in passing."""

import math

import numpy as np
import pytest
from loops import EXACT, fit, members, plain_loop
from toys import blobs, toy_recipe

from study.recipe import Schedule, Train
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.results import Hooks
from study.training.schedules import rate_factor


def factors(schedule: Schedule, steps: int, per_pass: int = 10) -> np.ndarray:
    """The factor of every step."""
    return np.array([rate_factor(schedule, step, steps, per_pass) for step in range(steps)])


def test_the_triangle_peaks_at_15_percent():
    """J-tab2: "linearly increase from 0 in the first 15% training steps", then linearly to 0."""
    result = factors(Schedule(name="triangular"), 100)
    middles = (np.arange(100) + 0.5) / 100
    np.testing.assert_allclose(result, np.interp(middles, [0, 0.15, 1], [0, 1, 0]), atol=1e-12)
    assert np.argmax(result) in (14, 15)


def test_the_ramp_falls_tenfold_at_30_60_and_90_percent():
    """J-tab2's schedule for ImageNet: the same rise, then "piecewise constant with a 10x decay"."""
    schedule = Schedule(name="ramp", unit="share", milestones=(0.3, 0.6, 0.9))
    for steps in (100, 1000, 70):
        result = factors(schedule, steps)
        rise = round(0.15 * steps)
        np.testing.assert_allclose(result[: rise - 1], (np.arange(rise - 1) + 0.5) / steps / 0.15)
        for low, high, value in ((0.15, 0.3, 1), (0.3, 0.6, 0.1), (0.6, 0.9, 0.01), (0.9, 1, 0.001)):
            stage = result[math.ceil(low * steps) : round(high * steps)]
            np.testing.assert_allclose(stage, value)
            assert len(stage)


def test_steps_fall_at_their_milestones():
    """J-speed-recipe's are epochs: with 5 steps an epoch, epoch 2 begins at step 10."""
    result = factors(Schedule(name="step", milestones=(2, 4), factor=0.1), 25, per_pass=5)
    np.testing.assert_allclose(result, [1] * 10 + [0.1] * 10 + [0.01] * 5)


def test_milestones_may_count_steps():
    """B-tab1 lists steps per stage, [2500, 5500, 2000] for SVHN's MLP, each a fifth of the rate of the one before."""
    result = factors(Schedule(name="step", unit="steps", milestones=(2500, 8000), factor=0.2), 10_000, per_pass=287)
    np.testing.assert_allclose(result, np.repeat([1, 0.2, 0.04], [2500, 5500, 2000]))


def test_the_cosine_falls_from_one_to_zero():
    """Half a cosine."""
    result = factors(Schedule(name="cosine"), 10)
    np.testing.assert_allclose(result, (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)


def test_batches_cover_the_subset_once():
    """A last batch of one joins the one before it; nothing is dropped or seen twice."""
    assert Train(batch_size=4).edges(10) == [0, 4, 8, 10]
    assert Train(batch_size=4).edges(9) == [0, 4, 9]
    assert Train(batch_size=4).edges(3) == [0, 3]
    assert Train(batch_size=0).edges(9) == [0, 9]


@pytest.fixture
def taken(monkeypatch):
    """(batch size, rate) of every step that is taken."""
    seen = []
    for kind in (MLPLearner, ModuleLearner):
        step = kind.step
        monkeypatch.setattr(
            kind, "step", lambda self, x, y, lr, step=step: seen.append((y.shape[-1], lr)) or step(self, x, y, lr)
        )
    return seen


@pytest.mark.parametrize("schedule", ["constant", "triangular", "cosine"])
@pytest.mark.parametrize("steps", [1, 4, 5, 8, 9, 11])
@pytest.mark.parametrize("network", ["mlp", "tiny_groupnorm"])
def test_steps_are_taken_to_the_number(taken, steps, schedule, network):
    """B-tab1 gives 7000 steps, not epochs.  4 batches a pass: the last pass is cut short, the schedule ends with it."""
    model = {"name": network, "settings": {"widths": [8]} if network == "mlp" else {}}
    recipe = toy_recipe(model=model, schedule={"name": schedule}, train={"steps": steps, "batch_size": 16})
    dataset, progress = blobs(), []
    group = members(dataset, count=1)
    outcome = next(fit(group, dataset, recipe, EXACT, Hooks(progress=progress.append)))
    plain = plain_loop(dataset, recipe, group[0])
    assert [size for size, _ in taken] == plain.sizes == ([16, 16, 16, 12] * 3)[:steps]
    assert [rate for _, rate in taken] == plain.rates
    assert outcome.epochs == len(outcome.losses) == len(plain.online) == -(-steps // 4)
    assert sum(progress) == recipe.train.seen(60) == sum(plain.sizes)
    last = slice(4 * (outcome.epochs - 1), None)
    assert outcome.losses[-1] == pytest.approx(np.average(plain.losses[last], weights=plain.sizes[last]), abs=1e-9)


def test_what_will_be_seen_is_counted_right():
    """Bars and estimates rest on it: every length of training, by counting batches."""
    for n in (7, 8, 9, 33):
        for size in (0, 1, 4, 8, 50):
            for epochs, steps in ((2, None), (1, 1), (1, 5), (1, 13)):
                train = Train(batch_size=size, epochs=epochs, steps=steps)
                batches = np.diff(train.edges(n)).tolist()
                count = steps or epochs * len(batches)
                rows = (batches * (count + 1))[:count]
                assert train.length(n) == (-(-count // len(batches)), count)
                assert train.seen(n) == sum(rows)


@pytest.mark.parametrize("network", ["mlp", "tiny_batchnorm"])
@pytest.mark.parametrize("train", [{"epochs": 3}, {"steps": 6}, {"epochs": 2, "flip": True}, {"loss": "zero_hinge"}])
def test_what_is_right_in_passing_equals_the_plain_loop(network, train):
    """Z-online: each example counts when its batch comes by, before the step on it; what does not come by is False."""
    model = {"name": network, "settings": {"widths": [16, 8]} if network == "mlp" else {}}
    recipe = toy_recipe(model=model, train={"batch_size": 16} | train)
    dataset, seen = blobs(), []
    group = members(dataset, count=1)

    def keep(member, epoch, evaluation):
        seen.append(None if evaluation.online is None else evaluation.online.numpy().copy())

    list(fit(group, dataset, recipe, EXACT, Hooks(after_epoch=keep, online=True)))
    assert seen[0] is None
    np.testing.assert_array_equal(seen[1:], plain_loop(dataset, recipe, group[0]).online)
    assert not np.concatenate(seen[1:]).reshape(len(seen) - 1, -1)[:, dataset.n_train :].any()
