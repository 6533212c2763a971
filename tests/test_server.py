"""A real MLflow server on this machine does what the local store does, and shows what that one logged."""

import json
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from study.errors import StoreError
from study.tracking import launches, leases, open_store
from study.tracking.ui import require_free

pytest_plugins = ["tests.tracking_fixtures"]

LEASED = "toy/ensemble"


@pytest.fixture(scope="module")
def remote(served, tmp_path_factory):
    """The store behind the server, as another machine sees it."""
    return open_store(tmp_path_factory.mktemp("client"), served[0])


@pytest.fixture(scope="module")
def run(remote):
    """A run with one of everything."""
    settings = {"params": {"optimizer.lr": 0.05}, "tags": {"study.kind": "single", "q": "it's"}}
    with remote.start("digits/remote", "one", **settings) as run:
        run.log({"val/accuracy": 0.5, "bad": float("inf")})
        run.series("train/loss", np.arange(1500.0))
        run.series("train/loss", np.arange(1500.0))
        run.table("scores", pd.DataFrame({"example": ["a", "ü"], "score": [1.0, np.nan]}))
        run.arrays("members", mask=np.eye(3, dtype=bool))
        run.text("figures/deep/note.md", "# ä")
        run.dataset("digits", "0123", "training", 1437)
    return run


def test_params_and_metrics_come_back(remote, run):
    """Through HTTP as through SQLite."""
    result = remote.get(run.id)
    assert result.params == {"optimizer.lr": "0.05"}
    assert result.metrics["val/accuracy"] == 0.5
    assert np.isnan(result.metrics["bad"])
    assert result.status == "FINISHED"


def test_a_series_logged_twice_is_there_once(run):
    """MLflow repeats a request whose answer was lost; the curve must not double."""
    assert run.read_series("train/loss") == [(step, float(step)) for step in range(1500)]


def test_files_go_up_and_come_down(remote, run):
    """Checked against their hash after the way there and back."""
    result = remote.get(run.id)
    assert result.read_table("scores")["example"].tolist() == ["a", "ü"]
    assert result.read_arrays("members")["mask"].sum() == 3
    assert result.read_text("figures/deep/note.md") == "# ä"
    assert result.read("scores.parquet").is_relative_to(remote.root)


def test_a_damaged_download_is_fetched_again(remote, run):
    """The copy in our folder is not the original."""
    path = run.read("members.npz")
    path.write_bytes(b"damaged")
    assert run.read_arrays("members")["mask"].sum() == 3


def test_a_file_damaged_on_the_server_is_found(remote, served):
    """The server hands it out without a word."""
    run = remote.start("digits/remote", "damaged", params={}, tags={})
    run.text("a.txt", "right")
    (original,) = (served[1] / "artifacts").rglob(f"{run.id}/artifacts/a.txt")
    original.write_text("wrong")
    with pytest.raises(StoreError, match=f"run {run.id}.*file a.txt is damaged"):
        run.read("a.txt")
    original.unlink()
    with pytest.raises(StoreError, match=f"run {run.id}.*file a.txt"):
        remote.get(run.id).read("a.txt")


def test_find_works_over_http(remote, run):
    """With quotes in the value, and page by page."""
    assert [each.id for each in remote.find(tags={"q": "it's"}, status="FINISHED")] == [run.id]
    assert run.id in [each.id for each in remote.find(kind="single", experiment="digits/remote")]
    child = remote.start("digits/remote", "child", params={}, tags={}, parent=run)
    assert [each.id for each in remote.find(parent=run)] == [child.id]


def test_find_reads_all_pages(remote):
    """MLflow answers 1,000 runs at most; a forgotten second page loses shards silently."""
    for number in range(7):
        remote.start("digits/pages", f"run {number}", params={}, tags={})
    runs = replace(remote, page=3).find(experiment="digits/pages")
    assert [run.name for run in runs] == [f"run {number}" for number in range(6, -1, -1)]


def test_the_link_names_the_server(remote, run, served):
    """That is where the person has to look."""
    assert remote.link(run).startswith(f"{served[0]}/#/experiments/")


def test_a_run_logged_over_http_is_read_from_the_folder(run, served):
    """The server was ours: its store can be opened where it lies."""
    assert open_store(served[1]).get(run.id).read_text("figures/deep/note.md") == "# ä"


def test_the_page_shows_files_logged_without_it(served):
    """`study ui` is started after the work, on what the local store has."""
    address, root = served
    local = open_store(root)
    with local.start("digits/local", "one", params={}, tags={}) as run:
        run.table("scores", pd.DataFrame({"a": [1]}))
    with urllib.request.urlopen(
        f"{address}/get-artifact?run_uuid={run.id}&path=preview/scores.csv", timeout=20
    ) as page:
        assert page.read() == b"a\n1\n"
    with urllib.request.urlopen(f"{address}/ajax-api/2.0/mlflow/artifacts/list?run_id={run.id}", timeout=20) as page:
        assert [file["path"] for file in json.load(page)["files"]] == ["preview", "scores.parquet"]


def test_the_server_is_announced_by_its_links(served):
    """MLflow's own first page is an empty one."""
    first = (served[1] / "server.log").read_text().splitlines()[0]
    assert first == f"{served[0]}/#/experiments?workflowType=machine_learning"


def test_the_server_leaves_no_second_database(served, run):
    """`mlflow ui` makes ./mlflow.db, ./mlruns and ./mlartifacts where it is started."""
    names = {path.name for path in served[1].iterdir()} - {"mlflow.db-shm", "mlflow.db-wal", ".lock", "locks"}
    assert names == {"mlflow.db", "artifacts", "server.log"}
    assert not Path("mlflow.db").exists()


def test_a_taken_port_names_the_option(served):
    """A second `study ui`, or macOS's AirPlay on 5000."""
    port = int(served[0].rpartition(":")[2])
    with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{port}: .*--port {port + 1}"):
        require_free("127.0.0.1", port)


# ------------------------------------------------------------------------------------------------------------- leases


@pytest.fixture
def roots(served, tmp_path, monkeypatch):
    """Two roots on one server."""
    monkeypatch.setattr(leases, "POLL", 0.05)
    return [open_store(tmp_path / name, served[0]) for name in "ab"]


@pytest.fixture
def elsewhere(monkeypatch):
    """A function: from now on this process is a launch on another machine."""

    def another(name: str) -> None:
        here = {"id": name, "machine": name, "host": name, "pid": 1, "born": "1"}
        monkeypatch.setattr(launches, "this_launch", lambda: here)
        monkeypatch.setattr(launches, "gone", lambda launch: False)

    return another


def lease(store, name, lost=lambda: None):
    """A lease of this test."""
    return leases.Lease(store, store.experiment(LEASED), name, lost)


def lease_tags(store, name):
    """The leases that are written, by launch."""
    return {key.rpartition(".")[2]: json.loads(text) for key, text in lease(store, name)._tags().items()}


def test_a_second_root_is_told_who_is_at_work(roots, elsewhere):
    """52 members were trained twice: file locks lie below the root."""
    elsewhere("one")
    with roots[0].lock("same", experiment=LEASED):
        elsewhere("two")
        with pytest.raises(StoreError, match="already running: pid 1 on one"), roots[1].lock("same", experiment=LEASED):
            pass
        with roots[1].lock("other", experiment=LEASED):
            assert lease_tags(roots[1], "same")["one"]["held"]
    assert not lease_tags(roots[1], "same")


def test_machines_may_share_an_ensemble_by_ratios(roots, elsewhere):
    """Each trains other ratios; a third that wants all of them waits for both."""
    elsewhere("one")
    with roots[0].lock("shared", experiment=LEASED, parts=["0.1", "0.2"]):
        elsewhere("two")
        with roots[1].lock("shared", experiment=LEASED, parts=["0.3"]):
            pass
        with pytest.raises(StoreError, match="pid 1 on one"), roots[1].lock("shared", experiment=LEASED, parts=["0.2"]):
            pass


def test_of_launches_at_once_each_holds_it_alone(roots, monkeypatch):
    """All look before anybody has written."""
    names, inside, most = ["c", "a", "d", "b"], [], []

    def launch(claimed: leases.Lease) -> None:
        with claimed.held(waiting=lambda holder: None):
            inside.append(claimed)
            most.append(len(inside))
            inside.remove(claimed)

    claims = []
    for name in names:
        claimed = lease(roots[0], "once")
        claimed.launch |= {"id": name}
        claimed.key = claimed.prefix + name
        claims.append(claimed)
    threads = [threading.Thread(target=launch, args=(claimed,)) for claimed in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1, 1, 1, 1]
    assert not lease_tags(roots[0], "once")


def test_a_silent_launch_is_replaced_and_notices(roots, elsewhere, monkeypatch):
    """A machine that was switched off never frees its lease; one that only slept must not go on beside the other."""
    lost = threading.Event()
    elsewhere("asleep")
    asleep = lease(roots[0], "silent", lost.set)
    with asleep.held():
        monkeypatch.setattr(launches, "GRACE", 0.2)
        elsewhere("awake")
        with lease(roots[1], "silent").held(waiting=lambda holder: None):
            assert set(lease_tags(roots[1], "silent")) == {"awake"}
            monkeypatch.setattr(launches, "BEAT", 0.01)
            asleep._beat()
            assert lost.is_set()


def test_a_beating_launch_is_not_replaced(roots, elsewhere, monkeypatch):
    """It may train for days."""
    monkeypatch.setattr(launches, "BEAT", 0.1)
    monkeypatch.setattr(launches, "GRACE", 1.0)
    heard = []

    def waiting(holder: str) -> None:
        heard.append(holder)
        if len(heard) > 30:
            raise InterruptedError

    elsewhere("one")
    with lease(roots[0], "long").held():
        elsewhere("two")
        with pytest.raises(InterruptedError), lease(roots[1], "long").held(waiting):
            pass


def test_a_dead_launch_of_this_machine_is_replaced_at_once(roots):
    """After kill -9 nobody should wait two minutes."""
    dead = lease(roots[0], "killed")
    dead.launch |= {"id": "0", "born": "1"}
    dead.key = dead.prefix + "0"
    dead._write(held=True)
    with lease(roots[1], "killed").held():
        assert set(lease_tags(roots[1], "killed")) == {launches.this_launch()["id"]}
