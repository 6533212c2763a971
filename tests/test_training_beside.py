"""Networks side by side, each in a thread: what happens where memory runs out, and who captures what."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import EXACT, fit, members
from toys import blobs, toy_recipe

from study.errors import RecipeError, Stopped
from study.training import single
from study.training.engines import threads as beside
from study.training.modules import ModuleLearner
from study.training.results import Hooks

RECIPE = toy_recipe(model={"name": "tiny_batchnorm", "settings": {}})
DATA = blobs(shape=(3, 6, 6))


def bits(outcomes):
    return [(each.confidence.tobytes(), each.losses) for each in outcomes]


class Memory:
    """Of a device that holds so many networks; one that is looked at has ended."""

    def __init__(self, room: int, monkeypatch) -> None:
        self.room, self.held, self.most, self.lock = room, set(), 0, threading.Lock()
        step, evaluate = ModuleLearner.step, single.evaluate

        def greedy(learner, *what):
            with self.lock:
                if len(self.held | {learner}) > self.room:
                    self.held.clear()  # all will be told to end
                    raise torch.OutOfMemoryError("no room for one more")
                self.held.add(learner)
                self.most = max(self.most, len(self.held))
            return step(learner, *what)

        def over(learner, *what):
            with self.lock:
                self.held.discard(learner)
            return evaluate(learner, *what)

        monkeypatch.setattr(beside, "free", lambda device: self.held.clear())  # of those that stopped late
        monkeypatch.setattr(ModuleLearner, "step", greedy)
        monkeypatch.setattr(single, "evaluate", over)


@pytest.mark.parametrize("room", [1, 2, 3])
def test_where_memory_runs_out_half_as_many_train_and_the_outcomes_are_the_same(room, monkeypatch):
    """Those under way start anew, and the bar goes back for them."""
    group, seen = members(DATA, count=9), []
    alone = bits(fit(group, DATA, RECIPE, EXACT))
    memory = Memory(room, monkeypatch)
    assert bits(fit(group, DATA, RECIPE, replace(EXACT, threads=4), Hooks(seen.append))) == alone
    assert memory.most <= room
    assert sum(seen) == sum(RECIPE.train.seen(len(member.rows)) for member in group)


def test_a_device_without_room_for_one_says_so_in_one_line(monkeypatch):
    """The cure is another device or a smaller batch, not a traceback."""
    Memory(0, monkeypatch)
    with pytest.raises(RecipeError, match=r"too little memory for one.*runtime\.device=cpu"):
        list(fit(members(DATA), DATA, RECIPE, replace(EXACT, threads=4)))


def test_an_order_to_stop_is_one_also_where_memory_runs_out(monkeypatch):
    """Nobody starts anew after it."""
    stop = threading.Event()

    def greedy(learner, *what):
        stop.set()
        raise torch.OutOfMemoryError("no room at all")

    monkeypatch.setattr(ModuleLearner, "step", greedy)
    with pytest.raises(Stopped):
        list(fit(members(DATA), DATA, RECIPE, replace(EXACT, threads=4), Hooks(stop=stop)))


def test_an_error_of_one_network_is_raised_and_ends_the_others(monkeypatch):
    """It is no lack of memory: nothing is tried again."""
    calls, original = [], ModuleLearner.step

    def broken(learner, *what):
        calls.append(learner)
        if len(calls) == 5:
            raise ValueError("a broken step")
        return original(learner, *what)

    monkeypatch.setattr(ModuleLearner, "step", broken)
    with pytest.raises(ValueError, match="a broken step"):
        list(fit(members(DATA, count=20), DATA, RECIPE, replace(EXACT, threads=2)))
    assert len(set(calls)) < 20


def test_learners_with_captured_steps_stay_in_their_thread(monkeypatch):
    """A step is captured in a stream of its thread; in another's it would run beside what it has to follow."""
    users, original = {}, ModuleLearner.step

    def noted(learner, *what):
        users.setdefault(learner, set()).add(threading.get_ident())
        return original(learner, *what)

    monkeypatch.setattr(ModuleLearner, "step", noted)
    monkeypatch.setattr(beside, "captures", lambda *what: True)
    group = members(DATA, count=8)
    alone, together = (list(fit(group, DATA, RECIPE, replace(EXACT, threads=threads))) for threads in (1, 3))
    assert len(users) <= 4
    assert all(len(threads) == 1 for threads in users.values())
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", [{"name": "tiny_batchnorm", "settings": {}}, {"name": "speednet"}], ids=str)
def test_networks_in_streams_are_what_the_cpu_trains(model):
    """Four at a time, each captured in a stream of its own; more members than streams."""
    data = blobs(shape=(3, 8, 8))
    recipe = toy_recipe(model={"settings": {"widths": [8, 8]}} | model, train={"epochs": 2})
    group = members(data, count=10)
    expected = list(fit(group, data, recipe, EXACT))
    result = list(fit(group, data, recipe, replace(EXACT, device="cuda", threads=4)))
    for one, other in zip(expected, result, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-5)
