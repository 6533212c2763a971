"""Trials side by side: each is what it would be alone, however they come and go."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from loops import Member, fit
from toys import blobs, toy_recipe

from study.errors import Stopped
from study.runs.jobs import template_of
from study.search.objectives import Accuracy
from study.training.engines import threads as engine_threads
from study.training.engines.base import Context
from study.training.engines.stacked import Stacked, one_stack
from study.training.engines.threads import Threads
from study.training.fit import computing
from study.training.placement import Placement
from study.training.results import Evaluation, Hooks, Outcome

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
    values = []
    for index, (lr, momentum, decay) in enumerate(SETTINGS):
        rule = {"lr": lr, "momentum": momentum, "weight_decay": decay}
        schedule = {"name": "triangular"} if index == 2 else {}
        values.append(toy_recipe(optimizer=rule, schedule=schedule, **tables))
    return values


def runs_of(entries):
    waiting = list(entries)
    return lambda: waiting.pop(0) if waiting else None


def job_of(work, key, recipe):
    (job,) = work.jobs(key, recipe)
    return job


def trained(how, dataset, some, placement=EXACT, end=(), every=1):
    """Reports of every trial; `end` names (key, step) at which a trial is ended."""
    work, marks = Accuracy(some[0], dataset, JUDGED), {}
    work.validation.every = every
    context = Context(dataset, placement, validation=work.validation)
    engine = Stacked(context) if how == "stack" else Threads(context)
    ask = runs_of(job_of(work, key, recipe) for key, recipe in enumerate(some))
    with computing(placement):
        for job, result in engine.results(ask):
            mark = work.report(job, result)
            if mark is None:
                continue
            marks.setdefault(job.key, []).append(mark)
            if (job.key, mark.step) in end:
                result.end()
    return marks


def numbers(marks):
    return {key: [[mark.step, *mark.numbers.values()] for mark in reports] for key, reports in marks.items()}


def same(actual, wanted):
    """To the ninth digit, mark by mark."""
    np.testing.assert_allclose(np.concatenate(actual), np.concatenate(wanted), atol=1e-9)


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
    for key, value in numbers(alone).items():
        same(stacked[key], value)


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
    for key, value in numbers(trained("slots", dataset, some)).items():
        same(stacked[key], value[: len(stacked[key])])


@pytest.mark.parametrize("how", ["slots", "stack"])
def test_a_diverged_trial_says_so_and_leaves_the_others_alone(dataset, alone, how):
    """A rate of 1e300 leaves the finite numbers in the first pass."""
    wild = recipes()[0].model_copy(update={"optimizer": recipes()[0].optimizer.model_copy(update={"lr": 1e300})})
    some = [recipes()[0], wild, *recipes()[1:]]
    marks = trained(how, dataset, some, replace(EXACT, stack=3), end={(1, 1), (1, 2), (1, 3)})
    assert all(np.isnan(mark.value) and not mark.last for mark in marks[1])
    for key, value in numbers(alone).items():
        same(numbers(marks)[key + (key > 0)], value)


def one(*some):
    """Whether the trials of these recipes can be one stack."""
    return one_stack([template_of(recipe).job(("search",), SUBSET) for recipe in some])


def test_what_can_be_one_stack():
    """Rates, momenta, decays and schedules may differ; batch sizes and rules may not."""
    assert one(*recipes())
    assert not one(*recipes(), toy_recipe(train={"batch_size": 8}))
    assert not one(*recipes(), toy_recipe(optimizer={"name": "adam"}))
    assert not one(*recipes(), toy_recipe(train={"flip": True}))
    assert not one(toy_recipe(model={"name": "resnet18", "settings": {}}))


@pytest.mark.parametrize("train", [{"pad": 1, "flip": True}, {"input_noise": 0.3}, {"adversarial": 0.05}], ids=str)
def test_stacked_trials_are_what_they_are_alone_whatever_the_recipe_asks(dataset, train):
    """Crops and noise come from the trial's own streams."""
    some = recipes(train=train)
    stacked = numbers(trained("stack", dataset, some, replace(EXACT, stack=2)))
    for key, alone in numbers(trained("slots", dataset, some)).items():
        same(stacked[key], alone)


@pytest.mark.parametrize("how", ["slots", "stack"])
def test_marks_are_given_when_they_are_due(dataset, how):
    """Every second epoch of three, and the last."""
    marks = trained(how, dataset, recipes(), replace(EXACT, stack=2), every=2)
    assert [mark.step for mark in marks[0]] == [2, 3]


# ------------------------------------------------------------------------------------------------- the engine itself


def counting(job, context, hooks, spare):
    """A training that trains nothing: three evaluations."""
    for epoch in (1, 2, 3):
        evaluation = Evaluation(epoch, 0.5, 0.5, 0.5, epoch == 3)
        yield evaluation
        if evaluation.ended:
            return
    yield Outcome(np.zeros(1), np.zeros(1), np.zeros(1))


def engine_of(dataset, monkeypatch, train, threads=1, stop=None):
    monkeypatch.setattr(engine_threads, "train_alone", train)
    hooks = Hooks(stop=stop or threading.Event())
    return Threads(Context(dataset, replace(EXACT, threads=threads), hooks))


def some_jobs(count):
    return [template_of(toy_recipe()).job(("search",), SUBSET, key=index) for index in range(count)]


def test_the_caller_is_asked_and_told_in_its_own_thread(dataset, monkeypatch):
    """What writes to MLflow and Optuna then needs no locks; every job gives all that it has to say."""
    threads, waiting, heard = set(), some_jobs(6), []

    def ask():
        threads.add(threading.get_ident())
        return waiting.pop(0) if waiting else None

    for job, result in engine_of(dataset, monkeypatch, counting, 3).results(ask):
        threads.add(threading.get_ident())
        heard.append((job.key, type(result)))
    assert threads == {threading.get_ident()}
    assert len(heard) == 6 * 4


def test_an_error_in_a_place_ends_all_of_them(dataset, monkeypatch):
    """It reaches the caller, and nobody trains on."""
    ended = []

    def train(job, context, hooks, spare):
        if job.key == 1:
            raise ZeroDivisionError
        while not hooks.stop.is_set():
            time.sleep(0.001)
        ended.append(job.key)
        raise Stopped
        yield

    with pytest.raises(ZeroDivisionError):
        list(engine_of(dataset, monkeypatch, train, 2).results(runs_of(some_jobs(2))))
    assert ended == [0]


def test_a_stopped_search_stops(dataset, monkeypatch):
    """Set while a result is heard: the next place does not take another job."""
    stop, messages = threading.Event(), []
    engine = engine_of(dataset, monkeypatch, counting, stop=stop)

    def hear():
        for job, result in engine.results(runs_of(some_jobs(9))):
            messages.append(job.key)
            stop.set()
            result.end()

    with pytest.raises(Stopped):
        hear()
    assert messages == [0]


def test_too_little_memory_is_a_fault_of_the_trial(dataset, monkeypatch):
    """A batch that does not fit must not end a night's search."""

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB")

    monkeypatch.setattr("study.training.single.train_epoch", full)
    (mark,) = trained("slots", dataset, recipes()[:1])[0]
    assert mark.fault == "out of memory"
    assert np.isnan(mark.value)
