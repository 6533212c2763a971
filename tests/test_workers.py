"""Workers share an ensemble by a folder: nothing is trained twice, nothing is lost, the scores stay the same."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pandas as pd
import pytest

from study.cli.workers import parse_time
from study.data import open_data
from study.errors import RecipeError, Stopped, StoreError, StudyError
from study.runs.ensemble import finished_members, gather_ensemble, run_ensemble
from study.runs.work_folder import WorkFolder
from study.runs.worker import run_worker
from study.tracking import claims as claims_module
from study.tracking import launches
from study.tracking.claims import Claims
from study.workflows.submit import Resources, submit_workers
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_workers"
TABLES = ("cscore.parquet", "profile.parquet")
NOTHING = (set(), {})


@pytest.fixture(scope="module")
def dataset():
    return blobs()


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe()


@pytest.fixture(scope="module")
def whole(recipe, dataset, stores):
    """The ensemble by one launch: eight members in four shards."""
    return run_ensemble(recipe, dataset, stores())


def other(claims: Claims, **changes: object) -> Claims:
    """The same folder as another process sees it."""
    found = Claims(claims.folder)
    found.launch = {**claims.launch, "id": "other", **changes}
    return found


def same(run, whole) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(run.read_table(name), whole.read_table(name), check_exact=True)


def test_a_claim_excludes_until_it_is_given_back(tmp_path):
    """A part that is done is never claimed again; one that is given back is."""
    mine = Claims(tmp_path)
    others = other(mine)
    assert mine.take("a")
    assert not others.take("a")
    assert list(others.holders()) == ["a"]
    mine.end("a", "free")
    assert others.take("a")
    others.end("a", "done")
    assert not mine.take("a")
    assert mine.done("a")
    mine.close()
    others.close()


def test_of_many_that_want_a_claim_one_gets_it(tmp_path):
    """All at the same time, as the tasks of a cluster start."""
    everybody = [Claims(tmp_path) for _ in range(16)]
    barrier, got = threading.Barrier(16), []

    def want(claims):
        barrier.wait()
        got.extend(name for name in "abc" if claims.take(name))

    threads = [threading.Thread(target=want, args=(claims,)) for claims in everybody]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["a", "b", "c"]
    for claims in everybody:
        claims.close()


def test_a_silent_machine_loses_its_claim_once(tmp_path, monkeypatch):
    """The clock of the other machine says nothing: its file has to stay the same while somebody looks."""
    monkeypatch.setattr(launches, "GRACE", 0.2)
    silent = other(Claims(tmp_path), machine="elsewhere")
    silent.launch["id"] = "silent"
    assert silent.take("a")
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert not first.take("a")
    assert not second.take("a")
    time.sleep(0.3)
    assert first.take("a")
    assert not second.take("a")
    assert not silent.holds("a")
    for claims in (silent, first, second):
        claims.close()


def test_a_claim_shows_signs_of_life(tmp_path, monkeypatch):
    """A worker that trains for hours keeps its claim."""
    monkeypatch.setattr(launches, "BEAT", 0.05)
    monkeypatch.setattr(launches, "GRACE", 0.5)
    alive = other(Claims(tmp_path), machine="elsewhere")
    assert alive.take("a")
    others = Claims(tmp_path)
    for _ in range(8):
        assert not others.take("a")
        time.sleep(0.1)
    alive.close()
    assert others.take("a")
    others.close()


def test_a_dead_process_of_this_machine_loses_its_claim_at_once(tmp_path):
    """Nobody waits for who is known to be gone."""
    dead = other(Claims(tmp_path), born="never")
    assert dead.take("a")
    mine = Claims(tmp_path)
    assert mine.take("a")
    mine.close()
    dead.close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    """Such as one without hard links, or full."""
    monkeypatch.setattr(claims_module.os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    with pytest.raises(StoreError, match="not supported; workers need a folder"):
        Claims(tmp_path).take("a")


@pytest.mark.parametrize(("text", "hours"), [("2h", 2), ("90m", 1.5)])
def test_a_time_may_be_hours_from_now(text, hours):
    assert parse_time(text) == pytest.approx(time.time() + 3600 * hours, abs=5)


def test_a_time_of_day_is_the_next_one():
    assert 0 < parse_time("00:00") - time.time() <= 86_400
    with pytest.raises(RecipeError, match="--until soon: no time"):
        parse_time("soon")


def test_workers_fold_to_what_one_launch_gives(recipe, dataset, whole, store_at, tmp_path):
    """Bit for bit; the first is stopped in the middle, gathering says what is missing, and no shard is there twice."""
    store, stop = store_at(tmp_path), threading.Event()
    folder = WorkFolder(store.root, recipe, dataset)
    keep = folder.keep
    folder.keep = lambda result: (keep(result), stop.set())[0]
    with pytest.raises(Stopped):
        run_worker(recipe, dataset, folder, lambda: NOTHING, stop=stop)
    assert not folder.claims.holders()
    run, missing = gather_ensemble(recipe, dataset, store)
    assert run.status == "KILLED"
    assert 0 < len(missing) < 4
    assert run.metrics["cscore/mean"] > 0
    assert run_worker(recipe, dataset, WorkFolder(store.root, recipe, dataset), lambda: NOTHING) == (len(missing), 0)
    run, missing = gather_ensemble(recipe, dataset, store)
    assert (run.status, missing) == ("FINISHED", [])
    same(run, whole)
    shards = store.find("shard", parent=run)
    assert len({(each.params["ratio"], each.params["members"]) for each in shards}) == len(shards) == 4
    assert not folder.path.exists()


def test_a_launch_goes_on_from_what_workers_have_trained(recipe, dataset, whole, store_at, tmp_path):
    """`study run` after workers trains what is missing and no more."""
    store = store_at(tmp_path)
    folder = WorkFolder(store.root, recipe, dataset)
    assert run_worker(recipe, dataset, folder, lambda: NOTHING, until=time.time() + 1e-3, stay=False)[0] <= 1
    run_worker(recipe, dataset, WorkFolder(store.root, recipe, dataset), lambda: NOTHING)
    run = run_ensemble(recipe, dataset, store)
    assert all(each.tags["study.trained_on"] for each in store.find("shard", parent=run))
    same(run, whole)


def test_workers_train_what_the_store_lacks(recipe, dataset, store_at, tmp_path):
    """More members of an ensemble that was finished before."""
    store = store_at(tmp_path)
    run_ensemble(recipe, dataset, store)
    more = toy_recipe(subset={"members": 6})
    folder = WorkFolder(store.root, more, dataset)
    assert run_worker(more, dataset, folder, lambda: finished_members(more, dataset, store)) == (2, 0)
    run, missing = gather_ensemble(more, dataset, store)
    assert (run.status, missing) == ("FINISHED", [])


def test_a_damaged_result_is_trained_again(recipe, dataset, store_at, tmp_path, capsys):
    """A file system may lose what it has confirmed."""
    store = store_at(tmp_path)
    folder = WorkFolder(store.root, recipe, dataset)
    run_worker(recipe, dataset, folder, lambda: NOTHING)
    next(folder.path.glob("*.npz")).write_bytes(b"damaged")
    missing = gather_ensemble(recipe, dataset, store)[1]
    assert "damaged" in capsys.readouterr().err
    assert len(missing) == 1
    assert run_worker(recipe, dataset, WorkFolder(store.root, recipe, dataset), lambda: NOTHING) == (1, 0)
    assert gather_ensemble(recipe, dataset, store)[1] == []


def test_a_gathering_that_died_after_a_run_writes_it_once(recipe, dataset, store_at, tmp_path, monkeypatch):
    """The run of the shard is there, its file as well."""
    store = store_at(tmp_path)
    run_worker(recipe, dataset, WorkFolder(store.root, recipe, dataset), lambda: NOTHING)
    monkeypatch.setattr(WorkFolder, "written", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        gather_ensemble(recipe, dataset, store)
    monkeypatch.undo()
    run, missing = gather_ensemble(recipe, dataset, store)
    assert not missing
    assert len(store.find("shard", parent=run, status="FINISHED")) == 4


def test_slurm_that_is_not_here_is_one_line(recipe, dataset, tmp_path, monkeypatch):
    """The command is tried on a laptop first."""
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match="there is no Slurm here"):
        submit_workers(recipe, dataset, tmp_path, lambda: NOTHING, jobs=2, resources=Resources(hours=1))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(StudyError, match="submitit is not installed"):
        submit_workers(recipe, dataset, tmp_path, lambda: NOTHING, jobs=2, resources=Resources(hours=1))


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_tasks_that_are_interrupted_are_queued_again(tmp_path, store_at):
    """Real processes of submitit's local executor; one hears the signal that Slurm sends before a task's end."""
    recipe = toy_recipe(train={"epochs": 1000}, runtime={"threads": 1})
    dataset = open_data(recipe.data, recipe.noise, seed=recipe.seed)
    store, local = store_at(tmp_path), Resources(hours=0.2, local=True)
    queued = submit_workers(recipe, dataset, store.root, lambda: NOTHING, jobs=2, resources=local)
    assert (len(queued.jobs), queued.shards) == (2, 4)
    folder = WorkFolder(store.root, recipe, dataset)
    until(lambda: folder.claims.holders())
    os.kill(next(iter(pids(folder))), signal.SIGUSR2)
    until(lambda: "Requeued job" in log_of(queued.folder), lambda: log_of(queued.folder))
    until(lambda: len(folder.trained()) == 4)
    assert gather_ensemble(recipe, dataset, store)[1] == []


def pids(folder: WorkFolder) -> set[int]:
    """The processes that hold claims."""
    return {int(re.search(r"pid (\d+)", holder)[1]) for holder in folder.claims.holders().values()}


def log_of(folder: Path) -> str:
    """What all tasks have said."""
    return "".join(path.read_text() for path in sorted(folder.glob("*_log.*")))


def until(true, otherwise=lambda: "") -> None:
    """Wait until it is."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def test_gathering_nothing_says_how_to_start(recipe, dataset, store_at, tmp_path):
    with pytest.raises(StoreError, match="no shard is finished yet; start workers: `study worker RECIPE`"):
        gather_ensemble(recipe, dataset, store_at(tmp_path))


def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(template):
    """Real processes and signal 9; the script plays fifty rounds, this is one."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    words = [sys.executable, str(SCRIPT), "--rounds", "1", "--database", str(template)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 rounds are good" in done.stdout
