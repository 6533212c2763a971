"""A real PostgreSQL holds runs and trials, where its programs and a driver for Python are installed."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from study.errors import StoreError
from study.recipe import load
from study.runs.ensemble import gather_ensemble, run_ensemble
from study.runs.work_folder import WorkFolder
from study.runs.worker import run_worker
from study.search.run import run_search
from study.tracking import open_store
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]
pytestmark = [
    pytest.mark.skipif(shutil.which("pg_ctl") is None, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed"),
]

SEARCH = """
data = { name = "digits" }
model = { name = "mlp", settings = { widths = [8] } }
train = { epochs = 1, batch_size = 128 }
runtime = { device = "cpu", precision = "float32" }
search = { space = { "optimizer.lr" = { low = 0.01, high = 0.1, log = true } } }
"""


class Server:
    """A PostgreSQL of its own in a folder, on a port of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir()
        if os.getuid() == 0:  # which PostgreSQL refuses
            user = pwd.getpwnam("nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            for parent in folder.parents[:3]:
                parent.chmod(parent.stat().st_mode | 0o755)
        self.call("initdb", "--pgdata", str(folder / "data"), "--username", "study", "--auth", "trust", "--no-sync")

    def call(self, program: str, *words: str) -> None:
        """One of its programs, not as root."""
        real = os.path.realpath(shutil.which(program) or program)
        user = "nobody" if os.getuid() == 0 else None
        done = subprocess.run([real, *words], user=user, cwd=self.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Take connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        words = ("--pgdata", data, "--log", log, "--wait", "--options", options)
        with open(os.devnull, "w") as nothing:  # the server keeps what it is started with
            user = "nobody" if os.getuid() == 0 else None
            program = os.path.realpath(shutil.which("pg_ctl") or "")
            command = [program, "start", *words]
            subprocess.run(command, user=user, cwd=self.folder, stdout=nothing, stderr=nothing, timeout=120, check=True)

    def stop(self) -> None:
        """Break all connections."""
        self.call("pg_ctl", "stop", "--pgdata", str(self.folder / "data"), "--mode", "immediate", "--wait")

    def uri(self, database: str) -> str:
        """Of a database, which is made when there is none."""
        import psycopg

        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=study dbname=postgres", autocommit=True) as all_:
            if not all_.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
                all_.execute(f'CREATE DATABASE "{database}"')
        return f"postgresql+psycopg://study@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("postgresql") / "server")
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def store(server, tmp_path_factory):
    return open_store(tmp_path_factory.mktemp("root"), server.uri("runs"))


def test_an_ensemble_is_there_as_in_a_local_store(store, stores):
    """Trained by workers, gathered into PostgreSQL; bit for bit."""
    recipe, dataset = toy_recipe(), blobs()
    run_worker(recipe, dataset, WorkFolder(store.root, recipe, dataset), lambda: (set(), {}))
    run, missing = gather_ensemble(recipe, dataset, store)
    assert (run.status, missing) == ("FINISHED", [])
    whole = run_ensemble(recipe, dataset, stores())
    for name in ("cscore.parquet", "profile.parquet"):
        pd.testing.assert_frame_equal(run.read_table(name), whole.read_table(name), check_exact=True)
    assert len(store.find("shard", parent=run)) == 4
    assert run_ensemble(recipe, dataset, store).id == run.id


def test_a_search_keeps_its_trials_there(store, server, tmp_path):
    """In a database of its own, for Optuna's tables and MLflow's do not go together; the same command goes on."""
    file = tmp_path / "search.toml"
    file.write_text(SEARCH)
    for trials in (2, 3):
        wanted = load(file, [f"search.trials={trials}"])
        run, winner = run_search(wanted, blobs(), store, file, storage=server.uri("trials"))
    assert winner.is_file()
    assert len(store.find("trial", parent=run)) == 3


def test_a_database_that_was_away_is_reached_again(store, server):
    """Connections of before are broken; the next call makes a new one."""
    run = store.start("toy/away", "run", params={}, tags={})
    server.stop()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1"):
        run.log({"val/accuracy": 0.5})
    server.start()
    run.log({"val/accuracy": 0.75})
    assert store.get(run.id).metrics == {"val/accuracy": 0.75}
