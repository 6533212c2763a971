"""Members dealt to a process per device; "cpu" twice stands for two devices.

A process takes seconds to start.  Where a test is about what is said through the pipe, the same work runs in a thread.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Pipe
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loops import EXACT, OPTIMIZERS, Member, fit, members
from toys import blobs, toy_recipe

from study.errors import RecipeError, Stopped, StudyError
from study.runs import ensemble
from study.runs import members as members_module
from study.training.engines import multi_device, worker
from study.training.results import Hooks

pytest_plugins = ["tests.tracking_fixtures"]

TWO = replace(EXACT, devices=("cpu", "cpu"), machine=2)


@pytest.fixture
def started(monkeypatch):
    """The workers that were started."""
    workers, original = [], multi_device._start
    monkeypatch.setattr(multi_device, "_start", lambda *what: workers.append(original(*what)) or workers[-1])
    return workers


@pytest.fixture
def in_threads(monkeypatch):
    """Workers in threads, which end when their pipe does; the threads."""
    threads = []

    def start(placement, images):
        here, there = Pipe()
        with there:
            handles = os.dup(there.fileno()), os.dup(images.fileno())
        thread = threading.Thread(target=worker.work, args=handles)
        thread.start()
        threads.append(thread)
        process = SimpleNamespace(kill=lambda: None, wait=lambda: thread.join() or 0)
        return multi_device.Worker(placement, process, here)

    monkeypatch.setattr(multi_device, "_start", start)
    return threads


def ragged(dataset, count=7):
    """Subsets of different sizes: some trainings are over long before those that were begun before them."""
    rng = np.random.default_rng(3)
    sizes = [90, 10, 30, 60, 20, 100, 10, 40][:count]
    return [Member(("m", i), np.sort(rng.choice(dataset.n_train, size, replace=False))) for i, size in enumerate(sizes)]


def bits(outcomes):
    return [(o.prediction.tobytes(), o.confidence.tobytes(), o.top_confidence.tobytes(), o.losses) for o in outcomes]


def endless(dataset, settings):
    """The same member under ever new names; `asked` keeps them."""
    for number in count():
        settings.append(Member(("m", number), np.arange(0, dataset.n_train, 2)))
        yield settings[-1]


def test_two_processes_train_what_one_trains(started):
    """Bit for bit and in order; the images of floats are in the workers' memory, and both workers are gone."""
    model = {"name": "resnet8", "settings": {}}
    recipe = toy_recipe(model=model, optimizer=OPTIMIZERS["nesterov"], train={"epochs": 1, "pad": 1, "flip": True})
    dataset = blobs(shape=(3, 8, 8))
    dataset = replace(dataset, images=dataset.images.astype(np.float32))
    group, seen = ragged(dataset, 4), []
    alone = bits(fit(group, dataset, recipe, replace(EXACT, precision="float32")))
    dealt = bits(fit(group, dataset, recipe, replace(TWO, precision="float32"), Hooks(seen.append)))
    assert dealt == alone
    assert sum(seen) == sum(recipe.train.seen(len(member.rows)) for member in group)
    assert [worker.process.returncode is None for worker in started] == [False, False]


def test_a_killed_worker_is_told_in_one_line_that_names_the_cure(started, monkeypatch):
    """As when the machine runs out of memory; the other worker does not stay behind."""
    original = multi_device._start

    def deadly(placement, images):
        worker = original(placement, images)
        if len(started) == 2:
            os.kill(worker.process.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(multi_device, "_start", deadly)
    dataset = blobs()
    with pytest.raises(StudyError, match=r"^the process on cpu was killed by signal 9.*the same command resumes it$"):
        list(fit(ragged(dataset), dataset, toy_recipe(), TWO))
    assert [worker.process.returncode for worker in started] == [-signal.SIGKILL] * 2


LAUNCH = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from test_training_processes import TWO, blobs, endless, fit, multi_device, toy_recipe
own = multi_device._start
def start(*what):
    worker = own(*what)
    print(worker.process.pid, flush=True)
    return worker
multi_device._start = start
dataset = blobs()
for outcome in fit(endless(dataset, []), dataset, toy_recipe(), replace(TWO, devices=("cpu",))):
    print("trained", flush=True)
"""


def is_at_work(pid: int) -> bool:
    """Whether a process is there and no mere entry of one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_worker_ends_when_its_launch_is_killed():
    """Nobody is there to end it: it hears that the pipe has no other end."""
    words = [sys.executable, "-c", LAUNCH, str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as launch:
        pid = int(launch.stdout.readline())
        assert launch.stdout.readline() == "trained\n"
        assert is_at_work(pid)
        launch.kill()
    start = time.monotonic()
    while is_at_work(pid):
        assert time.monotonic() < start + 60
        time.sleep(0.05)


@pytest.mark.parametrize("stack", [1, 3])
def test_outcomes_come_in_the_order_of_the_members(stack, in_threads):
    """Whichever worker has them, and whenever its stack is done with them."""
    dataset, recipe = blobs(), toy_recipe()
    group = ragged(dataset)
    alone = list(fit(group, dataset, recipe, EXACT))
    dealt = list(fit(group, dataset, recipe, replace(TWO, stack=stack)))
    assert len(in_threads) == 2
    for one, other in zip(alone, dealt, strict=True):
        np.testing.assert_array_equal(one.prediction, other.prediction)
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-9)


def test_no_members_are_no_outcomes(in_threads):
    """All were trained before."""
    assert list(fit([], blobs(), toy_recipe(), TWO)) == []


def test_an_order_to_stop_reaches_the_workers(in_threads):
    """And the caller hears Stopped, as from one device."""
    dataset, stop = blobs(), threading.Event()
    with pytest.raises(Stopped):
        list(fit(endless(dataset, []), dataset, toy_recipe(), TWO, Hooks(lambda examples: stop.set(), stop=stop)))
    assert not any(thread.is_alive() for thread in in_threads)


def test_a_caller_that_has_enough_leaves_no_worker_behind(in_threads):
    """Members were asked for a few ahead, not all that there are."""
    dataset, requested = blobs(), []
    outcomes = fit(endless(dataset, requested), dataset, toy_recipe(), TWO)
    next(outcomes)
    outcomes.close()
    assert not any(thread.is_alive() for thread in in_threads)
    assert len(requested) < 200


def test_a_worker_s_error_is_raised_where_the_outcomes_are_asked_for(in_threads):
    """With its class, so that a user's mistake stays one line, and with the worker's traceback as a note."""
    dataset = blobs()
    with pytest.raises(RecipeError, match="no_such_network") as caught:
        list(fit(members(dataset), dataset, toy_recipe(model={"name": "no_such_network", "settings": {}}), TWO))
    assert any("Traceback" in note for note in caught.value.__notes__)
    assert not any(thread.is_alive() for thread in in_threads)


def test_an_error_of_the_caller_s_members_is_the_caller_s(in_threads):
    """It is raised where the outcomes are asked for, and ends the workers."""
    dataset = blobs()

    def broken():
        yield from ragged(dataset, 2)
        raise KeyError("no such member")

    with pytest.raises(KeyError, match="no such member"):
        list(fit(broken(), dataset, toy_recipe(), TWO))
    assert not any(thread.is_alive() for thread in in_threads)


class UnportableError(Exception):
    """Cannot be made of what it prints."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_is_told_by_another():
    """Nothing is lost but its class."""
    error = worker._portable(UnportableError(1, 2))
    assert (type(error), str(error)) == (RuntimeError, "UnportableError: 1 and 2")


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        (None, "cuda:1", {"CUDA_VISIBLE_DEVICES": "1"}),
        ("4,6", "cuda:1", {"CUDA_VISIBLE_DEVICES": "6"}),
        ("GPU-ab, GPU-cd", "cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-cd"}),
        ("4,6", "cpu", {}),
    ],
)
def test_a_worker_sees_its_own_device_alone(visible, device, expected, monkeypatch):
    """By the number that the device has for the launch, which may itself see a part of them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert multi_device._only(device) == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line_that_names_the_cure():
    """The images go through a file in the folder for temporary ones."""
    with open("/dev/full", "wb") as full, pytest.raises(StudyError, match=r"images do not go into.*TMPDIR"):
        multi_device._write(blobs().images, full)


def test_an_ensemble_goes_on_after_a_worker_has_died(in_threads, stores, monkeypatch):
    """The same command finds the shards that were written, and the C-scores are those of one device."""
    dataset, recipe = blobs(), toy_recipe(runtime={"kernel": "torch"})
    alone = ensemble.run_ensemble(recipe, dataset, stores())
    place, hear, heard, store = members_module.place_network, multi_device.Worker.hear, [], stores()

    def dying(worker):
        heard.append(hear(worker))
        if [word for word, _ in heard].count("outcome") == 6:
            raise worker.death()
        return heard[-1]

    monkeypatch.setattr(members_module, "place_network", lambda *a, **k: replace(place(*a, **k), devices=TWO.devices))
    monkeypatch.setattr(multi_device.Worker, "hear", dying)
    with pytest.raises(StudyError, match="the same command resumes it"):
        ensemble.run_ensemble(recipe, dataset, store)
    monkeypatch.setattr(multi_device.Worker, "hear", hear)
    resumed = ensemble.run_ensemble(recipe, dataset, store)
    assert len(store.find("shard", parent=resumed, status="FINISHED")) == 4
    assert resumed.read("cscore.parquet").read_bytes() == alone.read("cscore.parquet").read_bytes()
    assert resumed.tags["study.side_by_side"].endswith("on each of 2 devices")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", ["mlp", "resnet8"])
def test_two_processes_on_gpus_train_what_the_cpu_trains(network):
    """Where there is one GPU both have it."""
    dataset = blobs(shape=(3, 8, 8))
    settings = {"widths": [16, 8]} if network == "mlp" else {}
    recipe = toy_recipe(model={"name": network, "settings": settings}, train={"epochs": 2})
    devices = ("cuda:0", f"cuda:{torch.cuda.device_count() - 1}")
    placement = replace(TWO, device="cuda:0", devices=devices, stack=3 if network == "mlp" else 1)
    group = ragged(dataset)
    for one, other in zip(fit(group, dataset, recipe, EXACT), fit(group, dataset, recipe, placement), strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=1e-5)
