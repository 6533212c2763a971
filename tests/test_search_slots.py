"""Trials side by side: each is what it would be alone, however they come and go."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from toys import blobs, toy_recipe

from study.errors import Stopped
from study.training.engines.trial_stack import one_stack, train_stack
from study.training.engines.trial_threads import Entry, Mark, Trainings, train_slots
from study.training.fit import fit
from study.training.job import Hooks, Member
from study.training.placement import Placement

EXACT = Placement("cpu", "float64", "highest", threads=1, cores=1, stack=1)
SETTINGS = (  # rate, momentum, decay
    (0.1, 0.9, 0.0),
    (0.03, 0.0, 1e-3),
    (0.3, 0.5, 1e-2),
    (0.01, 0.95, 0.0),
    (0.2, 0.2, 1e-4),
)
SUBSET = np.arange(20, 120)
JUDGED = np.arange(20)


def recipes(**tables):
    """One recipe per setting; the third has another schedule."""
    found = []
    for index, (lr, momentum, decay) in enumerate(SETTINGS):
        rule = {"lr": lr, "momentum": momentum, "weight_decay": decay}
        schedule = {"name": "triangular"} if index == 2 else {}
        found.append(toy_recipe(optimizer=rule, schedule=schedule, **tables))
    return found


def asked(entries):
    waiting = list(entries)
    return lambda: waiting.pop(0) if waiting else None


def entries(some):
    return [Entry(index, recipe, [Member(("search",), SUBSET)]) for index, recipe in enumerate(some)]


def trained(how, dataset, some, placement=EXACT, end=()):
    """Marks of every entry; `end` names (key, step) at which a training is ended."""
    trainings, marks, stop = Trainings(dataset, placement, JUDGED), {}, threading.Event()

    def tell(entry, mark):
        marks.setdefault(entry.key, []).append(mark)
        return (entry.key, mark.step) not in end

    ask = asked(entries(some))
    with trainings.open():
        if how == "stack":
            train_stack(ask, tell, trainings, placement.stack, stop=stop)
        else:
            train_slots(ask, tell, trainings.epochs, placement.threads, stop=stop)
    return marks


def numbers(marks):
    return {key: [[mark.step, *mark.numbers.values()] for mark in own] for key, own in marks.items()}


def same(found, wanted):
    """To the ninth digit, mark by mark."""
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(wanted), atol=1e-9)


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def alone(dataset):
    """Every setting by itself, in float64."""
    return trained("slots", dataset, recipes())


def test_a_trial_alone_is_what_fit_gives(dataset, alone):
    """Epoch losses and the accuracy on the judged rows, against the door that ensembles use."""
    for key, recipe in enumerate(recipes()):
        (outcome,) = fit([Member(("search",), SUBSET)], dataset, recipe, EXACT, Hooks())
        assert [mark.numbers["train/loss"] for mark in alone[key]] == pytest.approx(outcome.losses, abs=1e-12)
        right = outcome.prediction == dataset.labels
        assert alone[key][-1].value == pytest.approx(right[JUDGED].mean())
        assert alone[key][-1].numbers["test/accuracy"] == pytest.approx(right[dataset.n_train :].mean())


def test_the_validation_loss_is_the_mean_over_the_judged_rows(dataset, alone):
    """By the confidence in the label that `fit` tells: float32, so to six digits."""
    (outcome,) = fit([Member(("search",), SUBSET)], dataset, recipes()[0], EXACT, Hooks())
    assert alone[0][-1].numbers["val/loss"] == pytest.approx(-np.log(outcome.confidence[JUDGED]).mean(), abs=1e-5)


@pytest.mark.parametrize("places", [2, 3])
def test_trials_side_by_side_are_what_they_are_alone(dataset, alone, places):
    """Bit for bit: a search must not depend on how many cores it had."""
    assert numbers(trained("slots", dataset, recipes(), replace(EXACT, threads=places))) == numbers(alone)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_stacked_trials_are_what_they_are_alone(dataset, alone, size):
    """Five settings over fewer rows: rows are taken over in the middle, with counts of their own."""
    stacked = numbers(trained("stack", dataset, recipes(), replace(EXACT, stack=size)))
    assert stacked.keys() == alone.keys()
    for key, own in numbers(alone).items():
        same(stacked[key], own)


@pytest.mark.parametrize("how", ["slots", "stack"])
def test_a_pruned_trial_frees_its_place(dataset, alone, how):
    """The first is ended after one epoch; those that follow come out the same."""
    marks = numbers(trained(how, dataset, recipes(), replace(EXACT, stack=2), end={(0, 1)}))
    assert len(marks[0]) == 1
    for key in range(1, len(SETTINGS)):
        same(marks[key], numbers(alone)[key])


def test_a_stack_takes_an_exact_number_of_steps(dataset):
    """With `train.steps` the last pass is cut short for the rows that end, not for those that go on."""
    some = recipes(train={"steps": 17})
    stacked = numbers(trained("stack", dataset, some, replace(EXACT, stack=2), end={(0, 1)}))
    for key, own in numbers(trained("slots", dataset, some)).items():
        same(stacked[key], own[: len(stacked[key])])


@pytest.mark.parametrize("how", ["slots", "stack"])
def test_a_diverged_trial_says_so_and_leaves_the_others_alone(dataset, alone, how):
    """A rate of 1e300 leaves the finite numbers in the first pass."""
    wild = recipes()[0].model_copy(update={"optimizer": recipes()[0].optimizer.model_copy(update={"lr": 1e300})})
    some = [recipes()[0], wild, *recipes()[1:]]
    marks = trained(how, dataset, some, replace(EXACT, stack=3), end={(1, 1), (1, 2), (1, 3)})
    assert all(np.isnan(mark.value) and not mark.last for mark in marks[1])
    for key, own in numbers(alone).items():
        same(numbers(marks)[key + (key > 0)], own)


def test_what_can_be_one_stack():
    """Rates, momenta, decays and schedules may differ; batch sizes and crops may not."""
    assert one_stack(recipes())
    assert not one_stack([*recipes(), toy_recipe(train={"batch_size": 8})])
    assert not one_stack([*recipes(), toy_recipe(optimizer={"name": "adam"})])
    assert not one_stack([toy_recipe(train={"flip": True})])
    assert not one_stack([toy_recipe(model={"name": "resnet18", "settings": {}})])


def test_marks_are_given_when_they_are_due(dataset):
    """Every second epoch of three, and the last."""
    trainings = Trainings(dataset, EXACT, JUDGED, every=2)
    marks = list(trainings.epochs(entries(recipes())[0], threading.Event()))
    assert [mark.step for mark in marks] == [2, 3]


# ------------------------------------------------------------------------------------------------ the places themselves


def counting(entry, stop):
    """A work that trains nothing: three marks."""
    for step in (1, 2, 3):
        yield Mark(step, float(step), last=step == 3)


def test_the_caller_is_asked_and_told_in_its_own_thread():
    """What writes to MLflow and Optuna then needs no locks."""
    threads, ask = set(), asked([Entry(index, None, []) for index in range(6)])

    def hear(entry, mark):
        threads.add(threading.get_ident())
        return True

    train_slots(ask, hear, counting, 3, stop=threading.Event())
    assert threads == {threading.get_ident()}


def test_an_error_in_a_place_ends_all_of_them():
    """It reaches the caller, and nobody trains on."""
    ended = []

    def work(entry, stop):
        if entry.key == 1:
            raise ZeroDivisionError
        while not stop.is_set():
            time.sleep(0.001)
        ended.append(entry.key)
        raise Stopped
        yield

    with pytest.raises(ZeroDivisionError):
        train_slots(asked([Entry(0, None, []), Entry(1, None, [])]), lambda *_: True, work, 2, stop=threading.Event())
    assert ended == [0]


def test_a_stopped_search_stops():
    """Set while a mark is told: the next place does not take another entry."""
    stop, told = threading.Event(), []

    def hear(entry, mark):
        told.append(entry.key)
        stop.set()
        return False

    with pytest.raises(Stopped):
        train_slots(asked([Entry(index, None, []) for index in range(9)]), hear, counting, 1, stop=stop)
    assert told == [0]


def test_too_little_memory_is_a_fault_of_the_trial(dataset, monkeypatch):
    """A batch that does not fit must not end a night's search."""

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB")

    monkeypatch.setattr("study.training.engines.trial_threads.train_epoch", full)
    (mark,) = trained("slots", dataset, recipes()[:1])[0]
    assert mark.fault == "out of memory"
    assert np.isnan(mark.value)
