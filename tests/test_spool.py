"""A tracking server that is away for a while: results wait on disk, in order, and arrive once."""

import json

import pytest

from study.errors import ServerAwayError, StoreError
from study.tracking import locks, spool
from study.tracking.calls import Calls
from study.tracking.spool import Spool
from study.tracking.store import Store
from study.tracking.writes import Write

pytest_plugins = ["tests.tracking_fixtures"]


class Server:
    """The calls that the tests make, on a local store; `away` makes them fail."""

    def __init__(self, local: Store) -> None:
        self.client, self.away = local.client, False

    def __getattr__(self, name):
        def call(*args, **settings):
            from mlflow.exceptions import MlflowException

            if self.away:
                raise MlflowException("API request failed: Max retries exceeded with url")
            return getattr(self.client, name)(*args, **settings)

        return call


@pytest.fixture
def server(store):
    """A server that can be switched off."""
    return Server(store)


@pytest.fixture
def remote(server, tmp_path, monkeypatch):
    """The store behind the server."""
    monkeypatch.setattr(spool, "PAUSE", 0.02)
    monkeypatch.setattr(Store, "client", server)
    return Store(tmp_path / "root", "http://localhost:5000", None)


def test_results_wait_and_arrive_in_order(remote, server):
    """Training goes on while the server is away; runs that began meanwhile are children of the right parent."""
    parent = remote.start("toy/ensemble", "parent", params={"a": 1}, tags={"study.kind": "ensemble"})
    server.away = True
    with remote.start("toy/ensemble", "child", params={"b": 2}, tags={"study.kind": "shard"}, parent=parent) as child:
        child.arrays("members.npz", ratio=[0.5])
        child.series("loss", [3.0, 2.0, float("nan")])
        child.log({"accuracy": 0.5})
    parent.log({"members/done": 1}, step=1)
    assert remote.calls.busy
    assert [json.loads(path.read_text().partition("\n")[2])["call"] for path in remote.calls.spool.waiting()][:2] == [
        "create_run",
        "log_params",
    ]
    server.away = False
    (result,) = remote.find("shard", parent=parent)
    assert (result.status, result.params, result.metrics["accuracy"]) == ("FINISHED", {"b": "2"}, 0.5)
    assert result.id == child.id
    assert result.read_arrays("members.npz")["ratio"] == 0.5
    assert [step for step, _ in result.read_series("loss")] == [0, 1, 2]
    assert not list((remote.root / "spool").iterdir())


def test_a_crash_between_sending_and_noting_it_doubles_nothing(remote, server, monkeypatch):
    """A launch dies with every write sent and not removed; the next one sends all of them again."""
    remote.experiment("toy/ensemble")
    server.away = True
    with remote.start("toy/ensemble", "shard", params={"a": 1}, tags={"study.kind": "shard"}) as run:
        run.series("loss", [3.0, 2.0])
        run.text("a.txt", "a")
    kept = {path.name: path.read_bytes() for path in remote.calls.spool.folder.iterdir() if path.is_file()}
    server.away = False
    remote.find("shard")
    folder = remote.root / "spool" / "of a dead launch"
    folder.mkdir()
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    with remote.lock("again", experiment="toy/ensemble"):
        (result,) = remote.find("shard")
    assert result.read_series("loss") == [(0, 3.0), (1, 2.0)]
    assert result.read_text("a.txt") == "a"
    assert not folder.exists()


def test_the_launch_waits_at_its_end_and_says_what_to_do(remote, server, monkeypatch):
    """Exit code 2, nothing lost: the same command sends what waits."""
    run = remote.start("toy/ensemble", "one", params={}, tags={})
    monkeypatch.setattr(spool, "PATIENCE", 0.1)
    server.away = True
    run.finish()
    with pytest.raises(StoreError, match=r"localhost.*away for .*, 1 results wait in .*; start the server and run"):
        remote.get(run.id)
    server.away = False
    monkeypatch.setattr(spool, "PATIENCE", 5)
    assert remote.get(run.id).status == "FINISHED"


def test_a_waiting_file_that_was_damaged_is_not_sent(tmp_path):
    """A wrong number in the store is worse than a shard that is trained again."""
    sent = []

    def send(write, run, file):
        sent.append(write)
        raise ServerAwayError("away")

    waiting = Spool(tmp_path / "spool", send)
    waiting.append(Write("set_tag", "1", {"key": "a", "value": "b"}))
    (path,) = waiting.waiting()
    path.write_text(path.read_text().replace('"b"', '"c"'))
    with pytest.raises(StoreError, match="damaged while it waited; remove"):
        Spool(waiting.folder, send).flush()


def test_what_a_living_launch_keeps_is_left_to_it(tmp_path):
    """Two launches of one root: each sends its own."""
    folder = tmp_path / "spool" / "other"
    folder.mkdir(parents=True)
    with locks.held(folder / "lock"):
        Calls(lambda: None, "http://a", 1.0, tmp_path / "spool").send_left_behind()
        assert folder.exists()


def test_a_refusal_is_no_outage(remote, server):
    """A wrong value would wait for ever and everything after it as well."""
    run = remote.start("toy/ensemble", "one", params={"a": 1}, tags={})
    with pytest.raises(StoreError, match="Changing param"):
        run.param({"a": 2})
    assert not remote.calls.busy
