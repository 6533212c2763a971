"""What is logged comes back: runs, curves, tables, files, links."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from study.errors import StoreError
from study.tracking import locks, open_store, sqlite_store
from study.tracking.launches import this_launch
from study.tracking.store import Store
from study.tracking.ui import follow

pytest_plugins = ["tests.tracking_fixtures"]


def start(store: Store, name: str = "one", **settings):
    return store.start("digits/single", name, **{"params": {}, "tags": {"study.kind": "single"}, **settings})


def test_the_package_is_imported_without_mlflow():
    """`study --help` and a recipe's errors must not wait three seconds for an import they do not use."""
    script = "import sys, study.tracking; print([m for m in ('mlflow', 'numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_params_tags_and_metrics_come_back(store):
    """The analysis reads its whole world from these."""
    params = {f"optimizer.p{i:03}": i / 7 for i in range(150)}
    with start(store, params=params, description="how to *read* this") as run:
        run.log({"val/accuracy": 0.5})
    result = store.get(run.id)
    assert result.params == {key: str(value) for key, value in params.items()}
    assert result.metrics == {"val/accuracy": 0.5}
    assert result.status == "FINISHED"
    assert result.tags["mlflow.note.content"] == "how to *read* this"
    assert (result.name, result.experiment) == ("one", "digits/single")


def test_a_run_says_where_it_comes_from(store):
    """A year later somebody asks which machine, process and versions made a number."""
    tags = start(store).tags
    assert tags["study.schema"] == "1"
    launch = json.loads(tags["study.launch"])
    assert (launch["host"], launch["pid"]) == (socket.gethostname(), os.getpid())
    assert tags["mlflow.source.name"] == "study"
    assert {"study.version", "study.python", "study.torch", "study.mlflow"} <= set(tags)


def test_a_value_that_mlflow_would_cut_is_refused(store):
    """MLflow truncates after 6,000 characters with a warning, and two different recipes look the same."""
    with pytest.raises(StoreError, match=r"parameter model\.layers has 6001 characters"):
        start(store, params={"model.layers": "x" * 6001})


def test_nan_is_kept_and_infinity_becomes_nan(store):
    """MLflow stores infinity as 1.8e308, which ruins every axis it is drawn on."""
    run = start(store)
    run.log({"a": math.nan, "b": math.inf, "c": -math.inf})
    assert all(math.isnan(value) for value in store.get(run.id).metrics.values())


def test_a_series_logged_again_adds_nothing(store):
    """A shard that is resumed logs its members once more; the curve must not fold back on itself."""
    run = start(store)
    values = np.round(np.linspace(0, 1, 1500), 4)
    run.series("member/accuracy", values)
    store.get(run.id).series("member/accuracy", values)
    assert run.read_series("member/accuracy") == list(enumerate(values))


def test_a_metric_has_six_digits_and_a_whole_number_all_of_them(store):
    """Twelve digits hide a difference that two runs show side by side."""
    run = start(store)
    run.log({"rank/spearman/cbtl": 0.123456789, "cost/scores_flops": 123456789.0})
    assert store.get(run.id).metrics == {"rank/spearman/cbtl": 0.123457, "cost/scores_flops": 123456789.0}


def test_a_series_may_have_its_own_steps(store):
    """A shard's step is the member, which does not start at 0."""
    run = start(store)
    run.series("member/accuracy", [0.5, 0.25], steps=[40, 41])
    assert run.read_series("member/accuracy") == [(40, 0.5), (41, 0.25)]


def test_tables_arrays_and_text_come_back(store):
    """Types as well: an int64 label that returns as float joins with nothing."""
    run = start(store)
    table = pd.DataFrame({"example": ["train/0", "test/1"], "label": [1, 2], "score": np.float32([0.5, np.nan])})
    run.table("scores", table)
    run.arrays("trajectory", correct=np.eye(3, dtype=bool), confidence=np.float16([0.5]))
    run.json("scores.json", {"ä": [1, 2.5]})
    result = store.get(run.id)
    pd.testing.assert_frame_equal(result.read_table("scores"), table)
    arrays = result.read_arrays("trajectory")
    assert arrays["correct"].dtype == bool
    assert arrays["confidence"].dtype == np.float16
    assert result.read_json("scores.json") == {"ä": [1, 2.5]}
    assert result.files == ["preview/scores.csv", "scores.json", "scores.parquet", "trajectory.npz"]


def test_the_preview_has_500_rows(store):
    """The MLflow UI shows CSV and not parquet, and 500 rows of it."""
    run = start(store)
    run.table("profile", pd.DataFrame({"n": range(600)}))
    assert len(run.read_text("preview/profile.csv").splitlines()) == 501


def test_a_figure_is_kept_in_the_format_of_its_name(store):
    """A report needs the sharp one, a slide the other."""
    from matplotlib.figure import Figure

    run = start(store)
    figure = Figure()
    figure.subplots().plot([1, 2])
    run.figure(figure, "figures/curve.png")
    run.figure(figure, "figures/curve.svg")
    assert run.read("figures/curve.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in run.read_text("figures/curve.svg")


def test_a_file_name_cannot_leave_the_run(store):
    """Names come from recipes as well."""
    run = start(store)
    for name in ("../escape.txt", "/tmp/escape.txt", "a/../b", ".hidden", ""):
        with pytest.raises(ValueError, match="file name"):
            run.text(name, "x")


def test_the_dataset_is_named(store):
    """The chip in the UI is how a person sees which data a run read."""
    run = start(store)
    run.dataset("digits", "0123456789abcdef", "training", 1437)
    (chip,) = store.client.get_run(run.id).inputs.dataset_inputs
    assert (chip.dataset.name, chip.dataset.digest, chip.tags[0].value) == ("digits", "0123456789abcdef", "training")


def test_an_exception_fails_the_run_and_says_why(store):
    """MLflow leaves a run RUNNING for ever when its process forgets to say otherwise."""
    with pytest.raises(ZeroDivisionError), start(store) as run:
        1 / 0  # noqa: B018
    assert store.get(run.id).status == "FAILED"
    assert store.get(run.id).tags["study.end"] == "ZeroDivisionError: division by zero"


def test_ctrl_c_kills_the_run(store):
    """KILLED is resumed, FAILED is looked at."""
    with pytest.raises(KeyboardInterrupt), start(store) as run:
        raise KeyboardInterrupt
    assert store.get(run.id).status == "KILLED"


def test_a_resumed_run_is_running_and_forgets_its_end(store):
    """A run that ended well after a resume must not be read as dead."""
    run = start(store)
    run.fail("died")
    again = store.resume(run)
    assert again.status == "RUNNING"
    assert "study.end" not in again.tags
    again.finish()
    assert store.get(run.id).status == "FINISHED"


def test_find_filters_by_kind_experiment_tags_status_and_parent(store):
    """Each launch finds its own finished shards this way and no others'."""
    parent = start(store, "parent", tags={"study.kind": "ensemble"})
    child = start(store, "child", tags={"study.kind": "shard", "study.digest": "abc"}, parent=parent)
    child.finish()
    other = store.start("mnist/single", "other", params={}, tags={"study.kind": "single"})
    names = lambda runs: [run.name for run in runs]  # noqa: E731
    assert names(store.find()) == ["other", "child", "parent"]
    assert names(store.find(max=2)) == ["other", "child"]
    assert names(store.find(kind="shard")) == ["child"]
    assert names(store.find(experiment="mnist/single")) == ["other"]
    assert names(store.find(experiment="no such")) == []
    assert names(store.find(tags={"study.digest": "abc"})) == ["child"]
    assert names(store.find(status="FINISHED")) == ["child"]
    assert names(store.find(status=["RUNNING", "FAILED"])) == ["other", "parent"]
    assert names(store.find(parent=parent)) == ["child"]
    assert (child.parent, other.parent) == (parent.id, None)


@pytest.mark.parametrize("value", ["it's", 'a "b" c', "both ' and \"", "a\\", "50 %", "x' OR '1' = '1", "ü", "a_b", ""])
def test_find_takes_any_value_literally(store, value):
    """A recipe's name is a file name, and people write what they like."""
    start(store, "this", tags={"q": value})
    start(store, "that", tags={"q": f"{value}-"})
    assert [run.name for run in store.find(tags={"q": value})] == ["this"]


def test_deleted_runs_are_not_found(store):
    """Deleting a run in the UI is how a person says: compute that again."""
    run = start(store)
    store.client.delete_run(run.id)
    assert store.find() == []
    with pytest.raises(StoreError, match="was deleted"):
        store.get(run.id)


def test_a_deleted_experiment_names_its_cure(store):
    """MLflow refuses a new experiment of that name, and says nothing of the old one."""
    number = store.experiment("digits/single")
    store.client.delete_experiment(number)
    with pytest.raises(StoreError, match=f"restore --experiment-id {number}"):
        start(store)
    assert store.experiment("digits/single", restore=True) == number


def test_dead_runs_of_this_machine_are_reaped(store):
    """After kill -9 MLflow shows RUNNING for ever; a living launch's runs and another machine's are left alone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive, elsewhere, recycled = (start(store, name) for name in ("dead", "alive", "elsewhere", "recycled"))
    here = this_launch()
    dead.tag("study.launch", json.dumps(here | {"id": "a", "pid": gone.pid}))
    elsewhere.tag("study.launch", json.dumps(here | {"id": "b", "pid": gone.pid, "machine": "of the same name"}))
    recycled.tag("study.launch", json.dumps(here | {"id": "c", "born": "1"}))  # its number is this process's now
    assert {run.name for run in store.reap({"study.kind": "single"})} == {"dead", "recycled"}
    assert store.get(dead.id).tags["study.end"] == "died"
    assert store.get(dead.id).status == "FAILED"
    assert {run.name for run in store.find(status="RUNNING")} == {"alive", "elsewhere"}
    assert alive.status == "RUNNING"
    assert [run.name for run in store.reap(alone=lambda run: True)] == ["elsewhere"]  # whoever holds the lock knows


def test_a_run_that_another_launch_has_taken_over_is_not_killed(store):
    """A launch that slept comes back to its end, and the run goes on elsewhere."""
    run = start(store)
    store.get(run.id).tag("study.launch", json.dumps(this_launch() | {"id": "later"}))
    run.kill("stopped on request")
    assert store.get(run.id).status == "RUNNING"


def test_the_link_opens_the_page_with_the_numbers(store):
    """Without workflowType MLflow opens an empty page for chat traces."""
    run = start(store)
    expected = f"http://127.0.0.1:5000/#/experiments/{run.experiment_id}/runs/{run.id}?workflowType=machine_learning"
    assert store.link(run) == expected
    password = replace(store, uri="https://me:secret@example.org/mlflow/", database=None)
    assert password.link(run).startswith("https://example.org/mlflow/#/experiments/")


def test_nothing_is_written_to_the_working_directory(store_at, tmp_path, monkeypatch):
    """MLflow's default is a database wherever one happens to stand."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    store = store_at(tmp_path / "there")
    with start(store) as run:
        run.text("a.txt", "a")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "Jürgen", "#1", "100%", "50%41", "q?x=1", "a&b+c", "it's"])
def test_any_folder_name_works(store_at, tmp_path, name):
    """Each of these letters means something in a URI."""
    root = tmp_path / name / "mlruns"
    store = store_at(root)
    with start(store) as run:
        run.text("a.txt", "a")
    assert store.get(run.id).read_text("a.txt") == "a"
    assert store.get(run.id).read("a.txt").is_relative_to(root)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert Path(store.client.download_artifacts(run.id, "a.txt")).read_text() == "a"


def test_artifacts_follow_a_moved_folder(store_at, tmp_path):
    """MLflow stores absolute paths: a renamed checkout loses all its files, in our reports and in the UI."""
    from mlflow.tracking import MlflowClient

    store = store_at(tmp_path / "old place" / "mlruns")
    with start(store) as run:
        run.text("a.txt", "a")
    (tmp_path / "old place").rename(tmp_path / "new #place")
    moved = open_store(tmp_path / "new #place" / "mlruns")
    assert moved.get(run.id).read_text("a.txt") == "a"
    follow(moved, moved.database)
    raw = MlflowClient(sqlite_store.sqlite_uri(moved.database))
    assert Path(raw.download_artifacts(run.id, "a.txt")).read_text() == "a"
    start(moved).text("b.txt", "b")
    assert not (tmp_path / "old place").exists()


def test_a_store_seen_at_two_paths_keeps_its_files_together(store_at, tmp_path):
    """A container sees the folder elsewhere: 19 of 30 shards' files were written beside the store, exit 0."""
    root, mount = tmp_path / "host" / "mlruns", tmp_path / "container"
    outside = store_at(root)
    running = start(outside, "a")
    running.text("first.txt", "1")
    root.rename(mount)  # as another process sees it
    inside = open_store(mount)
    inside.get(running.id).text("inside.txt", "2")
    inside.start("made/inside", "b", params={}, tags={}).text("b.txt", "b")
    follow(inside, inside.database)  # refused: the run goes on
    mount.rename(root)
    running.text("last.txt", "3")
    assert open_store(root).find(experiment="made/inside")[0].read_text("b.txt") == "b"
    assert len(list((root / "artifacts").rglob("*.txt"))) == 4
    assert not mount.exists()


def test_a_copied_folder_writes_to_itself(store_at, tmp_path):
    """A copy that still wrote into the original would spoil both."""
    import shutil

    original = store_at(tmp_path / "original")
    start(original)
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    start(open_store(tmp_path / "copy")).text("a.txt", "a")
    assert len(list((tmp_path / "copy").rglob("a.txt"))) == 1
    assert len(list((tmp_path / "original").rglob("a.txt"))) == 0


def test_artifacts_kept_elsewhere_stay_there(store, tmp_path):
    """An experiment that somebody put on another disk has not moved."""
    place = (tmp_path / "disk").as_uri()
    (tmp_path / "disk").mkdir()
    number = store.client.create_experiment("elsewhere", artifact_location=place)
    again = open_store(store.root)
    assert again.client.get_experiment(number).artifact_location == place


def test_telemetry_is_off_unless_asked_for(monkeypatch):
    """MLflow reports each call to its makers by default."""
    from study.tracking import client

    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "")
    monkeypatch.delenv("DO_NOT_TRACK")
    client.environment()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("DO_NOT_TRACK")
    client.environment()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert "DO_NOT_TRACK" not in os.environ


def test_the_lock_is_free_after_use(tmp_path):
    """Ctrl-C and start again: nobody should have to delete a file."""
    for _ in range(2):
        with locks.held(tmp_path / "a.lock"):
            pass
