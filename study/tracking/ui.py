"""Show the runs: MLflow's web page on this machine.  in: a store's folder   out: a server in this process's place."""

import base64
import json
import os
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

from study.errors import StoreError
from study.tracking import locks, sqlite_store
from study.tracking.descriptions import COLUMNS, EXPERIMENTS
from study.tracking.launches import gone
from study.tracking.store import Store, open_store

SHOWN = 20  # experiments whose link is printed
# MLflow lands on an empty page for chat traces otherwise
VIEW = "workflowType=machine_learning"
FIXED = {"1": 60, "attributes.`Run Name`": 235, "runDateAndNestInfo": 140, "duration": 75}  # always there: pixels
SHARED = "study"  # key of the saved view that `study ui` opens; views that people save have keys of MLflow's making


def serve(root: Path = Path("mlruns"), port: int = 5000, host: str = "127.0.0.1") -> None:
    """Print where to look, then become MLflow's server.  Does not return, unless a remote server shows the runs.

    The server has one worker and no job runner: 0.5 instead of 2.3 GB of memory, and no 44 ms added to each call.

    Args:
        root: folder of the local store; made if there is none.
        port: that the page is served on.
        host: that may reach it; any but 127.0.0.1 lets everybody there read, change and delete runs.

    Raises:
        StoreError: the port is taken, or the store cannot be opened.
    """
    store = open_store(root)
    if store.uri.startswith("http"):
        print(f"{store.where}/#/experiments?{VIEW}")
        return
    require_free(host, port)
    if store.database is not None and not sqlite_store.writable(store.database):
        store = copied(store, store.database)
        print(f"{store.root} cannot be written: changes made on the page are not kept", file=sys.stderr)
    elif store.database is not None:
        follow(store, store.database)
    for line in links(store, f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"):
        print(line)
    print("ready in about 15 seconds; Ctrl-C ends it", file=sys.stderr, flush=True)
    sys.stdout.flush()
    # from within the folder a file name is the whole address: MLflow misreads addresses with % or ? in a folder's name
    os.chdir(store.database.parent if store.database else store.root)
    os.execve(sys.executable, command(store, port, host), environment())


def copied(store: Store, database: Path) -> Store:
    """The same store with a copy of its database, for MLflow's server, which writes into every database it opens."""
    copy = Path(tempfile.mkdtemp(prefix="study-ui-")) / database.name
    sqlite_store.copy(database, copy)
    sqlite_store.relocate(copy, store.root / "artifacts")
    return Store(store.root, sqlite_store.sqlite_uri(copy), copy)


def follow(store: Store, database: Path) -> None:
    """Make MLflow find the files of a folder that has moved, unless a launch may see it at the place of before."""
    if not sqlite_store.moves(database, store.root / "artifacts"):
        return
    alive = [run for run in store.find(status="RUNNING") if run.launch and not gone(run.launch)]
    if alive:
        print(f"the page cannot show the files of runs while run {alive[0].id} goes on elsewhere", file=sys.stderr)
        return
    with locks.waited_for(database.parent / ".lock"):
        sqlite_store.relocate(database, store.root / "artifacts")


def command(store: Store, port: int, host: str) -> list[str]:
    """Write the server's command line, for the folder of the store as working directory."""
    backend = store.uri if store.database is None else sqlite_store.sqlite_uri(Path(store.database.name))
    # what is logged through this server lands beside what is logged without it
    artifacts = (store.root / "artifacts").as_uri()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", backend, "--artifacts-destination", artifacts),
        *("--host", host, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level=warning"),
    ]


def environment() -> dict[str, str]:
    """Write the server's environment; `open_store` has set the telemetry off."""
    quiet = {"PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore")}  # MLflow's own; they bury the addresses
    return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **quiet}


def links(store: Store, base: str) -> list[str]:
    """List where to look: the page of all experiments, then each of the newest."""
    experiments = store.call(store.client.search_experiments, max_results=SHOWN, order_by=["last_update_time DESC"])
    rows = [f"{base}/#/experiments?{VIEW}"]
    for experiment in experiments:
        if experiment.experiment_id != "0":
            furnish(store, experiment.experiment_id, experiment.name, experiment.tags)
            view = f"{VIEW}&viewStateShareKey={SHARED}" if _kind(experiment.name) in COLUMNS else VIEW
            rows.append(f"{base}/#/experiments/{experiment.experiment_id}/runs?{view}  {experiment.name}")
    return rows


def _kind(experiment: str) -> str:
    return experiment.rpartition("/")[2]


def furnish(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> None:
    """Give an experiment a description and a saved view whose columns say something; what is there stays.

    MLflow's own table shows no metric and no parameter until somebody ticks them.  The view is what its button "Save
    as new view" writes; an MLflow that does not know it shows its own table.
    """
    kind = _kind(name)
    if kind not in COLUMNS:
        return
    view = saved_view("columns of study", *COLUMNS[kind])
    for key, value in (("mlflow.note.content", EXPERIMENTS[kind]), (f"mlflow.sharedViewState.{SHARED}", view)):
        if key not in tags:
            store.call(store.client.set_experiment_tag, experiment_id, key, value)


def saved_view(name: str, metrics: tuple[str, ...], params: tuple[str, ...]) -> str:
    """Write the tag of a saved view of the runs table: these columns, newest run first.

    Args:
        name: as the menu "Views" shows it.
        metrics, params: the columns.
    """
    columns = [*(f"metrics.`{key}`" for key in metrics), *(f"params.`{key}`" for key in params)]
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [*FIXED, *columns],
        "columnWidths": FIXED | {column: max(80, 7 * len(column) - 50) for column in columns},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
    }
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": packed})


def require_free(host: str, port: int) -> None:
    """Snapshot whether the port may be served on.

    Raises:
        StoreError: taken, or not a port of this machine.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{host}:{port}: {reason}; choose another port: --port {port + 1}") from error
