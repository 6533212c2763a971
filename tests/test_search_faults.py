"""Searches that are killed, stopped or doubled: no trial is lost, none counts twice.

One process imports what `study search` needs and forks each launch from there; where a launch shall die, one function
is replaced.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from study.search.storage import close, open_storage
from study.tracking import open_store

pytest_plugins = ["tests.tracking_fixtures"]

REPOSITORY = Path(__file__).parents[1]
RECIPE = """
data = { name = "npz", label = "made up", train = "data.npz" }
model = { name = "mlp", settings = { widths = [16, 8] } }
train = { epochs = 3, batch_size = 16, normalize = "standard" }
runtime = { device = "cpu", precision = "float32", threads = 2 }

[search]
sampler = "grid"
pruner = "none"
validation = 0.2

[search.space]
optimizer.lr = { choices = [0.01, 0.05, 0.1, 0.2] }
optimizer.momentum = { choices = [0.0, 0.5, 0.9] }
"""

DRIVER = """
import json, os, signal, sys, time, warnings
from pathlib import Path
import alembic.command, sqlalchemy.dialects.sqlite  # as Optuna does when the first storage is opened

warnings.simplefilter("error")
from study.models import build as networks
from study.cli import main as cli
from study.search import run as search
from study.workflows import plan
from study.recipe import Model
from study.search import trial_queue as ledger, trial_runner as session, summary
from study.tracking import client as door
import study.tracking.run as running
door.load()
networks.fit_check(Model().spec(), (1, 6, 6), 3)  # the first product on the meta device imports half of torch


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, act, skip=0):
    plain, calls = getattr(owner, name), []

    def acting(*what, **named):
        calls.append(1)
        if len(calls) > skip:
            act()
        return plain(*what, **named)

    setattr(owner, name, acting)


def until_stopped():
    plain = ledger.TrialQueue.report

    def slow(self, *what):
        Path("marker").touch()
        time.sleep(0.1)
        return plain(self, *what)

    ledger.TrialQueue.report = slow


DEATHS = {
    "": lambda: None,
    "queueing": lambda: before(ledger.TrialQueue, "_queue", die, skip=5),
    "asking": lambda: before(ledger.TrialQueue, "_taken", die, skip=1),
    "starting": lambda: before(running.Run, "param", die, skip=4),
    "reporting": lambda: before(ledger.TrialQueue, "report", die, skip=7),
    "telling": lambda: before(ledger.TrialQueue, "complete", die, skip=1),
    "drawing": lambda: before(summary, "draw", die),
    "slow": until_stopped,
}


def start(name, death, root):
    child = os.fork()
    if child:
        return child
    for stream, end in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{end}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    DEATHS[death]()
    sys.argv = ["study", "search", "toy.toml", "--root", root, "--out", f"{root}.toml"]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(end.code)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait_for(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def marked():
    while not Path("marker").exists():
        time.sleep(0.02)


codes = {}
codes["whole"] = wait_for(start("whole", "", "whole"))
for death in ("queueing", "asking", "starting", "reporting", "telling", "drawing"):
    codes[death] = wait_for(start(death, death, "broken"))
codes["last"] = wait_for(start("last", "", "broken"))

slow = start("first", "slow", "double")
marked()
second = start("second", "", "double")
time.sleep(0.5)
os.kill(slow, signal.SIGKILL)
codes["first"], codes["second"] = wait_for(slow), wait_for(second)

Path("marker").unlink()
stopped = start("stopped", "slow", "stopped")
marked()
os.kill(stopped, signal.SIGINT)
codes["stopped"] = wait_for(stopped)
codes["resumed"] = wait_for(start("resumed", "", "stopped"))
print(json.dumps(codes))
"""

DEATHS = ("queueing", "asking", "starting", "reporting", "telling", "drawing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, template) -> Path:
    """Recipe, data, and an empty store for every chain of launches."""
    folder = tmp_path_factory.mktemp("searches")
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = np.clip(rng.integers(60, 196, (3, 6, 6))[labels] + rng.normal(0, 60, (150, 6, 6)), 0, 255).astype(np.uint8)
    data = {"x_train": images[:120], "y_train": labels[:120], "x_test": images[120:], "y_test": labels[120:]}
    np.savez(folder / "data.npz", **data)
    (folder / "toy.toml").write_text(RECIPE)
    for name in ("whole", "broken", "double", "stopped"):
        (folder / name).mkdir()
        (folder / name / "mlflow.db").write_bytes(template.read_bytes())
    return folder


@pytest.fixture(scope="module")
def codes(folder) -> dict[str, int]:
    """Exit code of every launch; minus the signal where one has killed it."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", DRIVER]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def trials_of(root):
    """All trials that Optuna's storage holds."""
    opened = open_storage(root)
    try:
        (name,) = optuna.get_all_study_names(opened)
        return optuna.load_study(study_name=name, storage=opened).get_trials()
    finally:
        close(opened)


def values(root):
    """Validation accuracy by what was tried, of the trials that count."""
    return {tuple(trial.params.values()): trial.value for trial in trials_of(root) if trial.state.name == "COMPLETE"}


def messages_of(folder, name):
    return (folder / f"{name}.err").read_text()


def test_every_launch_ends_as_it_shall(codes, folder):
    """Else the tests below prove nothing."""
    assert [codes[death] for death in DEATHS] == [-9] * 6
    for name in ("whole", "last", "second", "resumed"):
        assert codes[name] == 0, messages_of(folder, name)
    assert (codes["first"], codes["stopped"]) == (-9, 130)


@pytest.mark.parametrize("root", ["broken", "double", "stopped"])
def test_a_broken_search_comes_to_the_same_values(codes, folder, root):
    """Twelve trials, each once, bit for bit those of an unbroken search."""
    assert len(values(folder / "whole")) == 12
    assert values(folder / root) == values(folder / "whole")
    done = [trial for trial in trials_of(folder / root) if trial.state.name == "COMPLETE"]
    assert len(done) == 12
    assert {trial.state.name for trial in trials_of(folder / root)} <= {"COMPLETE", "FAIL"}


@pytest.mark.parametrize("root", ["broken", "double", "stopped"])
def test_every_trial_has_one_run_that_ended_well(codes, folder, root):
    """A trial that was begun twice is one row in MLflow, and nothing runs for ever."""
    store = open_store(folder / root)
    runs = store.find("trial")
    assert {run.status for run in runs} == {"FINISHED"}
    assert len(runs) == 12
    (parent,) = store.find("search")
    assert parent.status == "FINISHED"
    assert {run.parent for run in runs} == {parent.id}
    assert {run.tags["optuna.state"] for run in runs} == {"COMPLETE"}


@pytest.mark.parametrize("root", ["broken", "double", "stopped"])
def test_curves_of_resumed_trials_have_each_point_once(codes, folder, root):
    """Three epochs, three points, whichever launch has logged them."""
    for run in open_store(folder / root).find("trial"):
        assert [step for step, _ in run.read_series("val/accuracy")] == [1, 2, 3]


def test_the_winners_are_the_same_file(codes, folder):
    """Over the same base, with the same name of the search."""
    texts = {(folder / f"{root}.toml").read_text().partition("base")[2] for root in ("whole", "broken", "stopped")}
    assert len(texts) == 1


def test_a_stopped_search_says_how_to_go_on(codes, folder):
    """Two lines at its end, no traceback."""
    lines = messages_of(folder, "stopped").splitlines()
    assert lines[-2:] == ["stopping; once more to stop at once", "stopped; the same command goes on from here"]
    assert "Traceback" not in messages_of(folder, "stopped")
