"""Addresses of stores that cannot be: each gives one line that names the cure, before MLflow is imported."""

import http.server
import logging
import os
import threading
from types import SimpleNamespace

import pytest

from study.errors import StoreError
from study.tracking import client, locks, open_store, uri


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("databricks", "stores at Databricks are not supported"),
        ("databricks://profile", "stores at Databricks are not supported"),
        ("localhost:5000", "write it as http://localhost:5000"),
        ("10.0.0.3:5000/mlflow", "write it as http://10.0.0.3:5000/mlflow"),
        ("ftp://host", "it begins with http, https, sqlite"),
        ("http://h:abc", "no tracking URI .*; write it as http://host:5000"),
        ("http://[::1", "write it as http://host:5000"),
        ("http://h:99999", "write it as http://host:5000"),
        ("http://", "names no host"),
        ("http://h/a\nb", r"h/a\\nb: a tracking URI has no blanks or control characters"),
        ("http://h/\x1b[2J", r"\\x1b\[2J: a tracking URI"),
        ("http://my host", "no blanks"),
        ("postgresql+psycopg2://u@h/d", "postgresql: its Python driver is not installed; .*'psycopg2-binary'"),
        ("mysql+pymysql://u@h/d", "mysql: its Python driver is not installed; .*'pymysql'"),
        ("mlruns", "-m mlflow migrate-filestore"),
    ],
)
def test_an_address_that_cannot_be_names_its_cure(address, line, monkeypatch, tmp_path):
    """They ended in tracebacks, or in a sentence about folders."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(uri.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match=line) as caught:
        open_store(tmp_path)
    assert str(caught.value).isprintable()


@pytest.fixture
def stranger():
    """A web server that is no MLflow: what it says to everything, and its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status)
            self.send_header("Content-Length", "15")
            self.end_headers()
            self.wfile.write(b"<html>hi</html>")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *what: object) -> None:
            """Nothing is logged."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status = 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [200, 403, 404])
def test_what_is_no_mlflow_server_is_named(stranger, status, monkeypatch, tmp_path):
    """Such as another service on port 5000, which macOS has."""
    stranger.status = status
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{stranger.server_port}")
    with pytest.raises(StoreError, match="no MLflow server, or refuses this user; mend MLFLOW_TRACKING_URI"):
        open_store(tmp_path)


def test_a_proxy_that_catches_loopback_is_named(stranger, monkeypatch, tmp_path):
    """The proxy says 403; nobody would think of it."""
    stranger.status = 403
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # a process keeps the proxies of its first request
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{stranger.server_port}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5999")
    with pytest.raises(StoreError, match=r"is asked for it; export NO_PROXY=127\.0\.0\.1,localhost"):
        open_store(tmp_path)


def test_an_active_model_of_mlflow_does_not_catch_the_metrics(monkeypatch, tmp_path, caplog):
    """MLflow ties each metric to it, and a store that lacks the model refuses the first one."""
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", "m-123")
    with caplog.at_level(logging.INFO, "study"):
        client.environment()
    assert "MLFLOW_ACTIVE_MODEL_ID" not in os.environ
    assert "MLFLOW_ACTIVE_MODEL_ID is set aside" in caplog.text


def test_a_full_disk_is_no_damaged_one(monkeypatch):
    """SQLite says `disk I/O error` of both; a backup does not help against the first."""
    error = RuntimeError("(sqlite3.OperationalError) disk I/O error")
    assert "restore a backup" in str(client.failure(error, "/tmp/mlflow.db"))
    monkeypatch.setattr(client.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    assert str(client.failure(error, "/tmp/mlflow.db")).startswith("/tmp/mlflow.db: the disk is full; free some space")


def test_a_lock_on_a_full_disk_says_to_free_space(monkeypatch, tmp_path):
    def full(self, *how: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locks.FileLock, "acquire", full)
    with pytest.raises(StoreError, match="No space left on device; free some space"), locks.held(tmp_path / "a.lock"):
        pass
