"""Stores for tests: the slow parts, MLflow's import and its migrations, once a session; a copy takes 0.1 s.

A test file asks for them with `pytest_plugins = ["tests.tracking_fixtures"]`.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from study.report import build
from study.tracking import Store, client, open_store, sqlite_store
from tests.toys import two_figures

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A fresh database, made once."""
    root = tmp_path_factory.mktemp("template")
    sqlite_store.prepare(root / "mlflow.db")
    return root / "mlflow.db"


@pytest.fixture
def few_figures(monkeypatch) -> None:
    """Reports have two figures, drawn at once."""
    monkeypatch.setattr(build, "figure_sections", two_figures)


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch) -> None:
    """A developer's own server must not receive the tests' runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def store_at(template):
    """A function that opens an empty store in a folder."""

    def open_at(root: Path) -> Store:
        root.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, root / "mlflow.db")
        return open_store(root)

    return open_at


@pytest.fixture(scope="session")
def stores(template, tmp_path_factory):
    """A function that opens another empty store, for fixtures of a whole module."""

    def another() -> Store:
        root = tmp_path_factory.mktemp("stores")
        shutil.copyfile(template, root / "mlflow.db")
        return open_store(root, sqlite_store.sqlite_uri(root / "mlflow.db"))

    return another


@pytest.fixture
def store(store_at, tmp_path) -> Store:
    """An empty local store."""
    return store_at(tmp_path / "mlruns")


@pytest.fixture
def spawn():
    """A function that starts a Python process; see `python`."""
    return python


@pytest.fixture
def port() -> int:
    """A port that nobody serves on."""
    return free_port()


@pytest.fixture(scope="session")
def served(template, tmp_path_factory):
    """`study ui` on a free port: (address, root of its store)."""
    root = tmp_path_factory.mktemp("served stores") / "ä 100% #1"
    root.mkdir()
    shutil.copyfile(template, root / "mlflow.db")
    port = free_port()
    script = f"from study.tracking.ui import serve; from pathlib import Path; serve(Path({str(root)!r}), {port})"
    with open(root / "server.log", "w") as log:
        server = python(script, stdout=log, stderr=log, start_new_session=True, cwd=root)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, root / "server.log")
        yield address, root
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def python(script: str, *words: str, cwd: Path | None = None, **settings) -> subprocess.Popen:
    """Start a Python process that can import study, far from this one's working directory."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-c", script, *words], cwd=cwd or "/", env=environment, **settings)


def free_port() -> int:
    """Find a port that nobody serves on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers; 15 s on a quiet machine."""
    start = time.monotonic()
    while time.monotonic() - start < 120:
        if server.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            client.reach(address, patience=0.0)
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except Exception:
            time.sleep(0.2)
    raise TimeoutError(log.read_text())
