"""The ledger: several processes share a search, and each trial counts once."""

import subprocess
import sys
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState
from toys import toy_recipe

from study.errors import StoreError
from study.search import trial_queue
from study.search.space import Scope
from study.search.storage import close, open_storage
from study.search.trial_queue import Lost, TrialQueue
from study.tracking.launches import gone, this_launch

SPACE = {"optimizer.lr": {"low": 1e-3, "high": 1.0, "log": True}}
GRID = {"optimizer.lr": {"choices": [0.1, 0.2, 0.4]}, "optimizer.momentum": {"choices": [0.0, 0.9]}}


@pytest.fixture
def storage(tmp_path):
    """A fresh storage."""
    opened = open_storage(tmp_path)
    yield opened
    close(opened)


@pytest.fixture
def join(storage):
    """A function that makes another process's ledger of the same round."""

    def another(space=SPACE, **search):
        recipe = toy_recipe("study", search={"space": space, "sampler": "random", "trials": 3} | search)
        scope = Scope({"": recipe}, recipe.search.space, recipe.search.sampler == "grid")
        queue = TrialQueue(storage, "toy", scope, recipe.search, 1, 3)
        queue.reap()
        queue.seed(lambda *words: len(words[-1:]) + int(words[-1]), recipe.search)
        return queue

    return another


def states(queue):
    return [trial.state.name for trial in queue.trials()]


def run(queue, value=0.5):
    """Train one trial to its end."""
    trial = queue.ask()
    queue.report(trial, 1, value)
    queue.complete(trial, value)
    return trial


def killed(queue, monkeypatch):
    """Forget what this process trains, and be another process from now on."""
    launch = this_launch() | {"pid": 2**22 + 1, "born": "1"}
    for number in queue.own:
        trial = queue.trials()[number]
        queue.storage.set_trial_user_attr(trial._trial_id, "worker", launch)
    queue.own.clear()


def test_two_processes_finish_as_many_as_asked_for(join):
    """Each sees what the other trains."""
    first, second = join(), join()
    one, two = first.ask(), second.ask()
    three = first.ask()
    assert second.ask() is None
    for queue, trial in ((first, one), (second, two), (first, three)):
        queue.complete(trial, 0.1)
    assert first.over()
    assert second.over()
    assert {one.number, two.number, three.number} == {0, 1, 2}


def test_of_trials_too_many_the_later_are_dropped(join, monkeypatch):
    """Two processes may draw the last trial in the same moment; the numbers decide, without a lock."""
    first, second = join(trials=1), join(trials=1)
    trial = first.ask()
    hidden = list(second.trials())
    monkeypatch.setattr(
        second, "trials", lambda plain=second.trials, seen=[]: plain() if seen else seen.append(1) or []
    )
    assert second.ask() is None
    assert hidden
    first.complete(trial, 0.1)
    assert states(first) == ["COMPLETE", "FAIL"]
    assert first.trials()[1].user_attrs["end"] == "one more than asked for"


def test_a_trial_of_a_dead_process_is_queued_again_with_its_values(join, monkeypatch):
    """Nothing is lost, and the sampler does not draw anew."""
    first = join()
    trial = first.ask()
    first.note(trial, run="abc")
    killed(first, monkeypatch)
    second = join()
    again = second.ask()
    assert (again.params, again.run, again.first) == (trial.params, "abc", trial.number)
    assert again.number != trial.number
    second.complete(again, 0.2)
    assert states(second) == ["FAIL", "COMPLETE"]


def test_a_trial_killed_between_two_writes_is_queued_again(join, storage, monkeypatch):
    """Drawn, but its process died before it said whose it is: old enough, it counts as dead."""
    first = join()
    monkeypatch.setattr(first.storage, "record_heartbeat", lambda trial: None)
    first.ask()
    storage.set_trial_user_attr(first.trials()[0]._trial_id, "worker", None)
    second = join()
    assert states(second) == ["RUNNING"]
    monkeypatch.setattr(
        trial_queue, "datetime", type("Later", (), {"now": lambda: datetime.now() + timedelta(hours=1)})
    )
    second.reap()
    assert states(second) == ["FAIL", "WAITING"]


def test_a_trial_that_two_processes_queue_again_runs_once(join, monkeypatch):
    """Both have seen the same process die."""
    first = join()
    trial = first.ask()
    killed(first, monkeypatch)
    second = join()
    dead_one = second.trials()[trial.number]
    second._queue(dead_one.params, {"first": 0, "retry_of": 0, "retries": 1}, dead_one.system_attrs)
    assert states(second) == ["FAIL", "WAITING", "WAITING"]
    for _ in range(3):
        run(second)
    assert second.ask() is None
    assert states(second).count("COMPLETE") == 3


def test_a_living_process_keeps_its_trials(join):
    """A second terminal must not take what the first one trains."""
    first = join()
    first.ask()
    second = join()
    second.reap()
    assert states(second) == ["RUNNING"]
    assert second.others() == 1


def test_a_trial_that_was_taken_away_says_so(join, storage):
    """A laptop that slept for an hour finds its trial failed by others; its word comes too late."""
    first = join()
    trial = first.ask()
    storage.set_trial_state_values(trial.handle._trial_id, state=TrialState.FAIL)
    with pytest.raises(Lost):
        first.report(trial, 1, 0.5)
    assert not first.own


def test_a_stopped_trial_is_queued_again_however_often(join):
    """Stopping is no fault of the trial."""
    queue = join()
    params = set()
    for _ in range(trial_queue.RETRIES + 3):
        trial = queue.ask()
        params.add(tuple(trial.params.items()))
        queue.give_back(trial)
    assert len(params) == 1
    assert queue.trials()[-1].state == TrialState.WAITING


def test_a_trial_that_always_kills_its_process_is_given_up(join, monkeypatch):
    """Else no launch would ever get past it."""
    queue = join(GRID, sampler="grid")
    first = queue.ask()
    for _ in range(trial_queue.RETRIES):
        killed(queue, monkeypatch)
        queue = join(GRID, sampler="grid")
        while (trial := queue.ask()).first != first.number:
            queue.complete(trial, 0.1)
    killed(queue, monkeypatch)
    queue = join(GRID, sampler="grid")
    assert queue.ask() is None
    assert queue.over()
    assert len(queue.finished()) == 5


def test_a_grid_is_tried_once_and_whole(join):
    """Two processes, six points; joining again queues nothing twice."""
    first, second = join(GRID, sampler="grid"), join(GRID, sampler="grid")
    for index in range(6):
        run((first, second)[index % 2])
    assert first.ask() is None
    assert join(GRID, sampler="grid").ask() is None
    tried = {tuple(trial.params.items()) for trial in first.finished()}
    assert len(tried) == 6


def test_a_grid_that_was_half_queued_is_completed(join, storage, monkeypatch):
    """A kill in the middle of the queueing leaves no hole."""
    plain, calls = TrialQueue._queue, []

    def dying(self, *what):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(plain(self, *what))

    monkeypatch.setattr(TrialQueue, "_queue", dying)
    with pytest.raises(KeyboardInterrupt):
        join(GRID, sampler="grid")
    monkeypatch.undo()
    assert len(join(GRID, sampler="grid").trials()) == 6


def test_more_trials_may_be_asked_for(join):
    """The same search, twice as many: those that there are count."""
    queue = join()
    while queue.ask():
        queue.complete(next(iter(queue.own.values())), 0.1)
    more = join(trials=5)
    assert not more.over()
    run(more)
    run(more)
    assert more.ask() is None


def test_a_diverged_trial_counts_and_is_the_worst(join):
    """TPE shall learn from it; a FAIL would be drawn again."""
    queue = join()
    trial = queue.ask()
    queue.prune(trial, "diverged by step 1")
    (row,) = queue.finished()
    assert (row.state, row.value) == (TrialState.PRUNED, None)
    run(queue)
    assert queue.best().number == 1


@pytest.mark.parametrize("name", ["median", "percentile", "halving", "hyperband"])
def test_each_pruner_prunes_a_trial_that_lags(join, name):
    """Six good trials, then a bad one."""
    queue = join(trials=20, pruner=name, startup=1)
    verdicts = []
    for number in range(14):
        trial, value = queue.ask(), 0.1 if number > 7 else 0.9
        verdicts.append(any(queue.report(trial, step, value) for step in (1, 2, 3)))
        queue.complete(trial, value)
    assert not any(verdicts[:1])
    assert any(verdicts[8:])


def test_no_pruner_prunes_nothing(join):
    """A grid is compared as a whole."""
    queue = join(trials=8, pruner="none")
    for value in (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1):
        trial = queue.ask()
        assert not any(queue.report(trial, step, value) for step in (1, 2, 3))
        queue.complete(trial, value)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "gp"])
def test_each_sampler_draws_and_joins_without_repeating(join, name):
    """A sampler that began from the same seed in every launch would try the same again."""
    first = join(sampler=name, trials=8, startup=3)
    tried = {run(first, 0.1 * index).params["optimizer.lr"] for index in range(3)}
    second = join(sampler=name, trials=8, startup=3)
    tried |= {run(second, 0.1 * index).params["optimizer.lr"] for index in range(3)}
    assert len(tried) >= 5  # a Gaussian process may well end where the values are best, twice


def test_a_process_knows_its_own_life():
    """A process number that was given away again is another process."""
    assert not gone(this_launch())
    assert gone(this_launch() | {"born": "1"})
    assert not gone(this_launch() | {"machine": "another", "pid": 2**22 + 1})


# ------------------------------------------------------------------------------------------------------------- storage

OPEN = """
import os, sys
from pathlib import Path
import alembic.command, optuna, sqlalchemy.dialects.sqlite  # once, not in every child
from study.search.storage import open_storage

def child():
    try:
        optuna.create_study(study_name=f"s {os.getpid()}", storage=open_storage(Path(sys.argv[1])))
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)

children = [os.fork() or child() for _ in range(4)]
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) != 0 for number in children))
"""


def test_four_processes_open_a_fresh_storage_at_once(tmp_path):
    """Of Optuna's own three crash."""
    done = subprocess.run([sys.executable, "-c", OPEN, str(tmp_path)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir() if ".new-" in file.name] == []


@pytest.mark.parametrize("url", ["trials.db", "nonsense://here", "sqlite:////proc/nowhere/trials.db"])
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path, url):
    """What the user has typed, and what is wrong with it."""
    with pytest.raises(StoreError) as caught:
        open_storage(tmp_path, url)
    assert "\n" not in str(caught.value)


def test_a_storage_url_is_honoured(tmp_path):
    """Several machines share one database."""
    opened = open_storage(tmp_path, f"sqlite:///{tmp_path / 'elsewhere' / 'trials.db'}")
    optuna.create_study(study_name="s", storage=opened)
    close(opened)
    assert (tmp_path / "elsewhere" / "trials.db").is_file()
    assert not (tmp_path / "optuna.db").exists()
