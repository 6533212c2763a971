"""Launches that are killed, stopped or doubled end as if nothing had happened: same scores, bit for bit.

One process imports what `study run` needs and forks each launch from there, because imports take longer than all the
rest.  A launch is the command line's own `main` with its own arguments; where it shall die, one function is replaced.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from study.tracking import open_store, sqlite_store

pytest_plugins = ["tests.tracking_fixtures"]

REPOSITORY = Path(__file__).parents[1]
TABLES = ("cscore.parquet", "profile.parquet")
RECIPE = """
kind = "{kind}"
data = {{ name = "npz", label = "made up", train = "{data}" }}
subset = {{ ratios = [0.3, 0.7], members = 6, design = "uniform" }}
model = {{ name = "mlp", settings = {{ widths = [16, 8] }} }}
train = {{ epochs = 3, batch_size = 16 }}
runtime = {{ device = "cpu", shard = 2 }}
"""

DRIVER = """
import errno, json, os, signal, sys, time, warnings
from pathlib import Path

warnings.simplefilter("error")
from study import progress as display
from study.models import build as networks
from study.cli import main as cli
from study.report import build as report
from study.runs import ensemble, single, speed
from study.training import single as training
from study.workflows import plan, study as launch
from study.recipe import Model
from study.tracking import client as door
import study.tracking.run as running
sys.path.insert(0, sys.argv[2])
from toys import two_figures
report.figure_sections = two_figures
door.load()
networks.fit_check(Model().spec(), (1, 6, 6), 3)  # the first product on the meta device imports half of torch

folder = Path(sys.argv[1])
shards = 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after_a_shard(act):
    # once the first shard is written, `act` runs in a thread that trains; until then only its two members do
    write, epoch, divide, first = ensemble.write_shard, training.train_epoch, ensemble.plan_shards, set()

    def divided(*what):
        found = divide(*what)
        first.update(("member", str(shard.ratio), member) for shard in found[:1] for member in shard.members)
        return found

    def counted(*what):
        global shards
        part = write(*what)
        shards += 1
        return part

    def acting(batches, stop, progress, *hooks):
        words = batches.job.name
        while words[0] == "member" and words not in first and not shards:
            time.sleep(0.01)
        if shards:
            act(stop)
        return epoch(batches, stop, progress, *hooks)

    ensemble.write_shard, training.train_epoch, ensemble.plan_shards = counted, acting, divided


def while_training():
    after_a_shard(lambda stop: die())


def until_stopped():
    def wait(stop):
        Path("marker").touch()
        while not stop.is_set():
            time.sleep(0.01)

    after_a_shard(wait)


def before(owner, name, act, *, match=lambda *what: True, skip=0):
    # replace a function by one that acts before its call number `skip`, counting those that match
    plain, calls = getattr(owner, name), []

    def acting(*what, **named):
        if match(*what):
            calls.append(1)
            if len(calls) > skip:
                act()
        return plain(*what, **named)

    setattr(owner, name, acting)


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


def file(end):
    return lambda source, target, *_: str(target).endswith(end)


DEATHS = {
    "": lambda: None,
    "training": while_training,
    "file": lambda: before(os, "replace", die, match=file("members.npz"), skip=1),
    "curves": lambda: before(running.Run, "curves", die),
    "folding": lambda: before(running.Run, "table", die, match=lambda run, name, *_: name == "profile.parquet"),
    "epoch": lambda: before(single.Collector, "take", die, skip=1),
    "scores": lambda: before(running.Run, "json", die, match=lambda run, name, *_: name == "scores.json"),
    "report": lambda: before(running.Run, "figure", die, skip=1),
    "waiting": until_stopped,
    "full": lambda: before(os, "replace", full, match=file("members.npz"), skip=1),
    "importing": lambda: before(plan, "plan_study", lambda: signal.raise_signal(signal.SIGINT)),
}


def start(name, death, *arguments):
    child = os.fork()
    if child:
        return child
    os.chdir(folder)
    for stream, end in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{end}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    DEATHS[death]()
    sys.argv = ["study", *arguments]
    cli.main()
    sys.exit(0)


def wait_for(child):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "does not end"


def until(true):
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)


codes = {}


def launched(name, death, *arguments):
    codes[name] = wait_for(start(name, death, *arguments))


def signalled(name, number, *arguments):
    marker, told = folder / "marker", folder / "second.err"
    marker.unlink(missing_ok=True)
    child = start(name, "waiting", *arguments)
    until(marker.exists)
    if name == "first":
        second = start("second", "", *arguments)
        until(lambda: told.exists() and "waiting for it" in told.read_text())
        os.kill(second, signal.SIGTERM)
        codes["second"] = wait_for(second)
    os.kill(child, number)
    codes[name] = wait_for(child)


exec(sys.stdin.read())
print(json.dumps(codes))
"""

SCENES = """
study, part = ("run", "study.toml", "--root"), ("ensemble", "study.toml", "--root")
launched("whole", "", *study, "whole")
for death in ("training", "file", "curves", "folding", "epoch", "scores", "report"):
    launched(death, death, *study, "broken")
launched("last", "", *study, "broken")
signalled("first", signal.SIGTERM, *part, "stopped")
signalled("third", signal.SIGINT, *part, "stopped")
launched("full", "full", *part, "stopped")
launched("fourth", "", *part, "stopped")
launched("early", "importing", *part, "early")
launched("wrong", "", *part, "early", "--set", "optimizer.lr=fast")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, template) -> Path:
    """Recipe, data, and an empty store for every chain of launches."""
    folder = tmp_path_factory.mktemp("launches")
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = np.clip(rng.integers(60, 196, (3, 6, 6))[labels] + rng.normal(0, 60, (150, 6, 6)), 0, 255).astype(np.uint8)
    data = {"x_train": images[:120], "y_train": labels[:120], "x_test": images[120:], "y_test": labels[120:]}
    np.savez(folder / "data.npz", **data)
    (folder / "study.toml").write_text(RECIPE.format(kind="study", data="data.npz"))
    for name in ("whole", "broken", "stopped", "early"):
        (folder / name).mkdir()
        shutil.copyfile(template, folder / name / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def codes(folder) -> dict[str, int]:
    """Exit code of every launch; minus the signal where one has killed it."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), str(REPOSITORY / "tests")],
        input=SCENES,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def opened(folder, codes):
    """The stores that the launches have left."""
    names = ("whole", "broken", "stopped", "early")
    return {name: open_store(folder / name, sqlite_store.sqlite_uri(folder / name / "mlflow.db")) for name in names}


def finished(store, kind):
    return store.find(kind, status="FINISHED")


def messages_of(folder, name) -> list[str]:
    """What a launch said on stderr, line by line."""
    return (folder / f"{name}.err").read_text().splitlines()


DEATHS = ("training", "file", "curves", "folding", "epoch", "scores", "report")


def test_every_launch_dies_where_it_shall(codes, folder):
    """Else the tests below prove nothing."""
    assert codes["whole"] == 0, messages_of(folder, "whole")
    assert [codes[death] for death in DEATHS] == [-9] * 7
    assert codes["last"] == 0, messages_of(folder, "last")


@pytest.mark.parametrize("name", TABLES)
def test_cscores_of_killed_launches_equal_those_of_an_unbroken_one(opened, name):
    """Killed seven times, in training, in the middle of files, between tables: bit for bit."""
    (whole,), (broken,) = (finished(opened[store], "ensemble") for store in ("whole", "broken"))
    assert broken.read(name).read_bytes() == whole.read(name).read_bytes()


def test_scores_of_killed_single_runs_equal_those_of_an_unbroken_one(opened):
    """A repeat starts again as a whole."""
    (whole,), (broken,) = (finished(opened[store], "single") for store in ("whole", "broken"))
    for name in ("scores.parquet", "trajectory.npz", "curves.npz", "scores.json"):
        assert broken.read(name).read_bytes() == whole.read(name).read_bytes()


def test_the_report_after_kills_equals_that_of_an_unbroken_study(opened):
    """Table by table, but those on seconds; figures, of which these launches draw two, follow from the tables."""
    (whole,), (broken,) = (finished(opened[store], "report") for store in ("whole", "broken"))
    names = [name for name in whole.files if name.endswith((".parquet", ".png"))]
    names.remove("leaderboard.parquet")
    assert len(names) == 7
    assert all(broken.read(name).read_bytes() == whole.read(name).read_bytes() for name in names)


def test_finished_shards_are_kept(opened):
    """No member is trained twice: six shards of two, whichever launches have written them."""
    shards = finished(opened["broken"], "shard")
    trained = [(shard.params["ratio"], shard.params["members"]) for shard in shards]
    assert sorted(trained) == sorted({(ratio, pair) for ratio in ("0.3", "0.7") for pair in ("0-1", "2-3", "4-5")})
    assert len({shard.tags["study.launch"] for shard in shards}) > 2


def test_runs_of_dead_launches_are_marked(opened):
    """MLflow alone leaves them RUNNING for ever."""
    store = opened["broken"]
    assert store.find(status="RUNNING") == []
    died = store.find(status="FAILED")
    assert {run.tags["study.end"] for run in died} == {"died"}
    assert sorted(run.tags["study.kind"] for run in died) == ["report", "shard", "shard", "single", "single"]


def test_killed_launches_share_one_parent(opened):
    """One study is one row, however often it was resumed."""
    (parent,) = opened["broken"].find("ensemble")
    assert parent.status == "FINISHED"
    assert {shard.parent for shard in opened["broken"].find("shard")} == {parent.id}
    assert "study.end" not in parent.tags


def test_no_unfinished_file_is_left(folder, opened):
    """What a kill has left in the middle of a write does not count, and is not many."""
    kept = {path for store in ("whole",) for path in (folder / store).rglob(".artifact.*")}
    assert kept == set()
    assert len(list((folder / "broken").rglob(".artifact.*"))) <= 1


def test_the_results_are_named_at_the_end(folder, codes):
    """Where to look, on stdout: a line per run, the report's file, the way to the UI."""
    lines = (folder / "last.out").read_text().splitlines()
    named = [line.partition(":")[0] for line in lines if line.startswith("made up/")]
    assert named == ["made up/ensemble", "made up/single", "made up/report"]
    (report,) = [line.removeprefix("report: ") for line in lines if line.startswith("report: ")]
    assert Path(report).is_file()


# ------------------------------------------------------------------------------------------------- signals and others


def test_sigterm_and_sigint_end_with_their_codes(codes):
    """143 and 130, as a shell and a batch system expect."""
    assert (codes["first"], codes["third"]) == (143, 130)


def test_a_stopped_launch_says_how_to_go_on(folder, codes):
    """Two lines, no traceback."""
    for name in ("first", "third"):
        assert messages_of(folder, name)[-2:] == [
            "stopping; once more to stop at once",
            "stopped; the same command goes on from here",
        ]


def test_a_second_launch_waits_and_can_be_stopped(codes, folder):
    """Two terminals, one recipe: nothing is trained twice, and it says for whom it waits."""
    assert codes["second"] == 143
    assert [line for line in messages_of(folder, "second") if "is being trained by pid" in line]
    assert not [line for line in messages_of(folder, "second") if "Traceback" in line]


def test_a_launch_that_finishes_what_was_stopped_leaves_no_trace_of_it(opened):
    """KILLED and FAILED are what it was; one row, FINISHED, is what it is."""
    (parent,) = opened["stopped"].find("ensemble")
    assert parent.status == "FINISHED"
    assert opened["stopped"].find("ensemble", status="KILLED") == []


def test_a_full_disk_is_one_line(codes, folder):
    """While a shard is written: the file is named, the run is FAILED, the launch ends."""
    assert codes["full"] == 2
    (line,) = [line for line in messages_of(folder, "full") if line.startswith("study: ")]
    assert "members.npz: No space left on device; free space or allow writing there, and run again" in line
    assert not [line for line in messages_of(folder, "full") if "Traceback" in line]


def test_cscores_after_signals_and_a_full_disk_are_the_same_bytes(codes, opened):
    """SIGTERM, SIGINT and ENOSPC leave what is finished and nothing else."""
    assert codes["fourth"] == 0
    (whole,), (stopped,) = (finished(opened[store], "ensemble") for store in ("whole", "stopped"))
    assert all(stopped.read(name).read_bytes() == whole.read(name).read_bytes() for name in TABLES)


def test_a_signal_before_the_training_ends_the_launch(codes, folder):
    """Reading the data and planning take their time, too."""
    assert codes["early"] == 130
    assert not [line for line in messages_of(folder, "early") if "Traceback" in line]


def test_a_wrong_override_is_one_line(codes, folder):
    """Exit code 2; the door of recipes and overrides is the same."""
    assert codes["wrong"] == 2
    assert len(messages_of(folder, "wrong")) == 1
    assert messages_of(folder, "wrong")[0].startswith("study: study.toml: optimizer.lr: ")
