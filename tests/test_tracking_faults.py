"""Races, kills, damage, locks: what goes wrong is survived, or said in one line."""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
from dataclasses import replace
from email.message import Message
from pathlib import Path

import pytest

from study.errors import StoreError
from study.tracking import client, open_store, sqlite_store
from study.tracking.launches import this_launch

pytest_plugins = ["tests.tracking_fixtures"]

# children are forked from a process that has imported mlflow: four imports would take longer than all the rest
LAUNCH = """
import os, sys, time
from pathlib import Path
from study.tracking import client as door, open_store
door.load()

def launch(root):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            open_store(Path(root)).start("digits/single", "one", params={}, tags={}).finish()
            code = 0
        finally:
            os._exit(code)
    return child
"""
RACE = """
children = [launch(Path(sys.argv[1], "race")) for _ in range(4)]
print([os.waitpid(child, 0)[1] for child in children])
"""
KILL = """
for delay in ("0.05", "0.4", "1.0"):
    root = Path(sys.argv[1], delay)
    child = launch(root)
    while not (root / ".lock").exists():
        time.sleep(0.001)
    time.sleep(float(delay))
    os.kill(child, 9)
    killed = os.waitpid(child, 0)[1]
    ready = (root / "mlflow.db").exists()
    code = os.waitpid(launch(root), 0)[1]
    print(killed, ready, code, len(list(root.glob(".mlflow.db.new*"))))
"""


def start(store):
    return store.start("digits/single", "one", params={}, tags={})


@pytest.fixture(scope="module")
def launches(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of the launches below, and the lines they printed."""
    root = tmp_path_factory.mktemp("launches")
    command = [sys.executable, "-c", LAUNCH + RACE + KILL, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return root, done.stdout.splitlines()


def test_four_first_launches_at_once_succeed(launches):
    """MLflow alone: one works, three die in each other's migration."""
    root, lines = launches
    assert lines[0] == "[0, 0, 0, 0]"
    assert len(open_store(root / "race").find()) == 4


def test_a_kill_during_creation_is_survived(launches):
    """MLflow alone: a kill within the first half second leaves a database that no version opens again."""
    killed = [line.split() for line in launches[1][1:]]
    assert [line[2:] for line in killed] == [["0", "0"]] * 3  # the next launch works, and removes what was left
    assert killed[0][:2] == ["9", "False"]  # this one did die before the database was there


def test_a_flipped_byte_is_found(store):
    """MLflow keeps no checksum and serves the damaged file."""
    run = start(store)
    run.bytes("a.bin", bytes(1000))
    path = run.read("a.bin")
    path.write_bytes(bytes(500) + b"\1" + bytes(499))
    with pytest.raises(StoreError, match=rf"run {run.id} \(one\): file a.bin is damaged"):
        store.get(run.id).read("a.bin")


def test_a_truncated_file_is_found(store):
    """The usual damage: a full disk, a copy that was cut off."""
    run = start(store)
    run.bytes("a.bin", bytes(1000))
    os.truncate(run.read("a.bin"), 999)
    with pytest.raises(StoreError, match=r"file a\.bin is damaged"):
        run.read("a.bin")


def test_a_missing_file_is_named(store):
    """Somebody tidied up."""
    run = start(store)
    run.bytes("a.bin", b"a")
    run.read("a.bin").unlink()
    with pytest.raises(StoreError, match=f"run {run.id}.*file a.bin is missing"):
        run.read("a.bin")


def test_a_file_that_was_never_kept_is_named_with_those_that_were(store):
    """A report over runs of an older version asks for what they do not have."""
    run = start(store)
    run.bytes("a.bin", b"a")
    with pytest.raises(StoreError, match=r"has no file b.bin; it has: a.bin"):
        run.read("b.bin")


def test_an_interrupted_write_leaves_nothing(store):
    """A half table would be read as a whole one."""
    run = start(store)
    run.text("a.txt", "old")

    def stop(place: Path) -> None:
        place.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run._keep("a.txt", stop)
    assert run.read_text("a.txt") == "old"
    assert [path.name for path in run.read("a.txt").parent.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_line(store):
    """It names the place, and nothing half-written stays."""
    run = start(store)

    def full(place: Path) -> None:
        place.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=r"a\.txt: No space left on device; free space"):
        run._keep("a.txt", full)
    assert not list(store.root.rglob(".artifact*"))
    assert run.files == []


def test_a_short_lock_is_waited_for(store):
    """Another writer's transaction is no reason to lose an hour's training."""
    run = start(store)
    holder = sqlite3.connect(store.database, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.5, lambda: holder.execute("COMMIT"))
    timer.start()
    begun = time.monotonic()
    run.log({"a": 1.0})
    timer.join()
    holder.close()
    assert time.monotonic() - begun >= 0.4
    assert store.get(run.id).metrics == {"a": 1.0}


def locked_times(times: int):
    """A call of MLflow that finds the database locked so many times, as it says after its own 20 s."""
    from mlflow.exceptions import MlflowException

    left = [times]

    def function() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise MlflowException("(sqlite3.OperationalError) database is locked\n[SQL: INSERT ...]")
        return "done"

    return function


def test_a_long_lock_is_tried_again(monkeypatch):
    """MLflow gives up after 20 s and never tries again."""
    pauses = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    assert client.call(locked_times(3), where="mlflow.db") == "done"
    assert pauses == [0.5, 1.0, 2.0]


def test_a_lock_without_end_is_one_line():
    """The line names the file and how to find who holds it."""
    with pytest.raises(StoreError, match=r"^mlflow\.db: locked by another program; .*fuser[^\n]*$"):
        client.call(locked_times(9), where="mlflow.db", patience=0.0)


@pytest.mark.parametrize("content", [b"not a database at all, but text" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_one_line(tmp_path, content):
    """The file is named and not touched: a backup may be merged with it."""
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"mlflow\.db: .*restore a backup[^\n]*$"):
        open_store(tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_a_truncated_database_is_one_line(template, tmp_path):
    """What a copy over a broken connection leaves."""
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes()[:40960])
    with pytest.raises(StoreError, match=r"mlflow\.db: .*damaged; restore a backup"):
        open_store(tmp_path)


def test_somebody_elses_database_is_left_alone(tmp_path):
    """MLflow would add its sixty tables."""
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE recipes (a)")
    connection.close()
    with pytest.raises(StoreError, match="not an MLflow database"):
        open_store(tmp_path)


def test_an_empty_file_becomes_a_store(template, tmp_path, monkeypatch):
    """A stray `sqlite3 mlflow.db` leaves one."""
    monkeypatch.setattr(sqlite_store, "_migrate", lambda database, artifacts: shutil.copyfile(template, database))
    (tmp_path / "mlflow.db").touch()
    assert open_store(tmp_path).find() == []


@pytest.mark.parametrize("leave", [lambda database: database.unlink(), lambda database: database.write_bytes(b"")])
def test_a_lost_database_beside_files_of_runs_is_refused(store, leave):
    """A new one would not name the runs, and all of them would be trained again."""
    start(store).text("recipe.toml", "seed = 1")
    store.client._tracking_client.store.engine.dispose()
    leave(store.database)
    with pytest.raises(StoreError, match=r"^[^\n]*restore mlflow\.db from a backup, or move [^\n]* away[^\n]*$"):
        open_store(store.root)


def test_a_checkpoint_brings_all_runs_into_the_one_file(store, tmp_path):
    """People copy mlflow.db without its -wal."""
    run = start(store)
    store.checkpoint()
    (tmp_path / "copy").mkdir()
    shutil.copyfile(store.database, tmp_path / "copy" / "mlflow.db")
    assert open_store(tmp_path / "copy").get(run.id).id == run.id


def test_unfinished_files_of_a_dead_launch_are_swept(store, monkeypatch):
    """A kill in the middle of a write leaves one."""
    run = start(store)
    unfinished = run.read(run.text("recipe.toml", "seed = 1")).with_name(".artifact.uploading.1.members.npz")
    unfinished.touch()
    run.tag("study.launch", json.dumps(this_launch() | {"born": "1"}))
    store.reap()
    assert not unfinished.exists()
    assert run.read_text("recipe.toml") == "seed = 1"


def test_a_launch_reads_what_it_has_logged(store):
    """Files that went to another place were missed weeks later, by the analysis."""
    run = start(store)
    place = run.read(run.text("a.txt", "a"))
    store.verify()
    place.unlink()
    with pytest.raises(StoreError, match=f"1 files of this launch cannot be read; the first: run {run.id}.*a.txt"):
        store.verify()


@pytest.mark.parametrize(("revision", "cure"), [("older", "mlflow db upgrade"), ("0123456789ab", "newer MLflow")])
def test_another_schema_is_never_migrated_in_place(template, tmp_path, revision, cure):
    """MLflow migrates without a backup when a table is missing; that is for a person to decide."""
    revisions, head = sqlite_store.schema_revisions()
    if revision == "older":
        revision = min(revisions - {head})
    shutil.copyfile(template, tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()
    with pytest.raises(StoreError, match=cure):
        open_store(tmp_path)


def test_the_schema_we_read_from_the_sources_is_the_one_mlflow_makes(template):
    """The list is read with a regular expression; a new way of writing it must not pass unseen."""
    with sqlite3.connect(template) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    assert sqlite_store.schema_revisions()[1] == revision


def test_a_second_launch_is_told_who_is_at_work(spawn, store):
    """Two launches of one study would double its shards; the kernel frees the lock of a killed one."""
    script = (
        "import sys, time; from pathlib import Path; from study.tracking.locks import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    path = store.root / "locks" / "digest-1.lock"
    with spawn(script, str(path), stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "held\n"
            with pytest.raises(StoreError, match=rf"already running: pid {first.pid} on .* since \d\d:\d\d"):
                store.lock("digest/1").__enter__()
        finally:
            first.kill()
    with store.lock("digest/1"):
        pass


def test_a_forked_worker_does_not_keep_the_lock(spawn, tmp_path):
    """A worker that outlives its killed launcher would block the next one for as long as it hangs."""
    script = (
        "import os, sys, time; from pathlib import Path; from study.tracking.locks import held\n"
        "with held(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child == 0: print(os.getpid(), flush=True); time.sleep(60); os._exit(0)\n"
        "    time.sleep(60)"
    )
    path = tmp_path / "a.lock"
    from study.tracking.locks import held

    with spawn(script, str(path), stdout=subprocess.PIPE, text=True) as first:
        child = int(first.stdout.readline())
        first.kill()
        first.wait()
        try:
            with held(path):
                os.kill(child, 0)  # it still lives
        finally:
            os.kill(child, 9)


def test_a_lock_is_not_taken_twice_by_one_process(store):
    """A search that starts its own recipe must not pass its own lock."""
    with store.lock("a"), pytest.raises(StoreError, match=f"pid {os.getpid()}"), store.lock("a"):
        pass


def test_a_dead_server_is_one_line_and_quick(monkeypatch, port):
    """MLflow blocks for 247 s before it says so; the line hides the password."""
    address = f"127.0.0.1:{port}"
    monkeypatch.setattr(client.time, "sleep", lambda seconds: None)
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(client.time, "monotonic", lambda: next(clock))
    with pytest.raises(StoreError, match=rf"^http://{address}: no tracking server answers there[^\n]*$"):
        open_store(Path("/nowhere"), f"http://me:secret@{address}")


def test_a_closed_port_is_told_within_two_seconds(port):
    """Nobody listens there, so waiting longer helps only a server that is being started."""
    begun = time.monotonic()
    with pytest.raises(StoreError, match="no tracking server answers there"):
        client.reach(f"http://127.0.0.1:{port}")
    assert time.monotonic() - begun < 2.5


def test_a_server_of_errors_is_one_line(monkeypatch):
    """Its database is away: MLflow would try again for minutes."""

    def fail(url, timeout):
        raise urllib.error.HTTPError(url, 500, "Internal Server Error", Message(), None)

    monkeypatch.setattr(client.urllib.request, "urlopen", fail)
    with pytest.raises(StoreError, match=r"replies HTTP 500; [^\n]*restart it[^\n]*$"):
        client.reach("http://127.0.0.1:5000", patience=0.0)


def test_a_plain_folder_as_store_names_the_cure(tmp_path, monkeypatch):
    """MLflow 3.13 and later refuse what all earlier ones made."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}")
    with pytest.raises(StoreError, match="migrate-filestore"):
        open_store(tmp_path)


def test_a_root_that_cannot_be_made_is_one_line(tmp_path):
    """The path goes on below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="choose another root"):
        open_store(tmp_path / "file" / "mlruns")


def test_an_unknown_run_is_one_line(store):
    """An id with a typing error."""
    with pytest.raises(StoreError, match=r"mlflow\.db: there is no run abc"):
        store.get("abc")


def test_patience_belongs_to_the_store(store):
    """A test or an impatient tool can say how long to wait."""
    impatient = replace(store, patience=0.0)
    with pytest.raises(StoreError, match="locked"):
        impatient.call(locked_times(1))


def test_two_processes_make_one_experiment(store, monkeypatch):
    """Shards on several GPUs begin at the same moment; the other was a moment faster here."""
    real = store.client.get_experiment_by_name
    outcomes = iter([lambda name: None, real])
    number = store.experiment("digits/single")
    monkeypatch.setattr(store.client, "get_experiment_by_name", lambda name: next(outcomes)(name))
    assert store.experiment("digits/single") == number


def test_python_without_git_still_starts(monkeypatch):
    """A container has no git, and a wheel no repository."""
    from study.tracking.origin import _commit

    monkeypatch.setenv("PATH", "")
    assert _commit(Path(sys.executable).parent) is None


def test_files_are_not_written_to_the_wrong_machine(store):
    """An experiment made on the server's disk has a folder there; MLflow would make the same folder here."""
    number = store.experiment("digits/single")
    remote = replace(store, uri="http://gpu-server:5000", database=None)
    remote.__dict__["client"] = store.client
    with pytest.raises(StoreError, match=r"keeps its files in a folder of that machine"):
        remote.experiment("digits/single")
    assert store.experiment("digits/single") == number


def test_a_file_that_is_not_there_is_named(store):
    """The source, not the place it should have gone to."""
    with pytest.raises(StoreError, match=r"missing\.txt: no such file"):
        start(store).file(Path("missing.txt"))
