"""Features may fill most of the memory: a run holds them once."""

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import study
from study.data import Dataset
from study.training import device_data

N, WIDTH = 65_536, 512
SIZE = 4 * N * WIDTH  # bytes of the features, 128 MiB: buffers take 25 to 50 MiB by number of threads
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

pytestmark = pytest.mark.skipif(not CLEAR.exists(), reason="peaks of memory are read from Linux")


def held(key):
    """VmRSS or VmHWM in bytes."""
    return 1024 * next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(key))


def peak_of(work):
    """The most memory that a call takes beyond what was held before, in sizes of the features; and its result."""
    gc.collect()
    CLEAR.write_text("5")  # the peak is now
    before = held("VmRSS")
    result = work()
    return (held("VmHWM") - before) / SIZE, result


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same rows as npz and as Parquet, every fifth a test row, so that they have to be put in order."""
    folder = tmp_path_factory.mktemp("many")
    features = np.random.default_rng(0).standard_normal((N, WIDTH), dtype=np.float32)
    labels = np.arange(N) % 3
    features[:, :3] += 3 * np.eye(3, dtype=np.float32)[labels]
    split = np.where(np.arange(N) % 5 == 4, "test", "train")
    np.savez(folder / "f.npz", features=features, labels=labels, split=split)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), WIDTH)
    columns = {"features": lists, "label": labels, "split": split}
    pq.write_table(pa.table(columns), folder / "f.parquet", compression=None, use_dictionary=False)
    return folder


@pytest.fixture(scope="module")
def small(files):
    """An eighth of the rows: what libraries take at their first work, and blocks, are no copies of the features."""
    with np.load(files / "f.npz") as arrays:
        rows = {name: arrays[name][: N // 8] for name in arrays.files}
    np.savez(files / "small.npz", **rows)
    pq.write_table(pq.read_table(files / "f.parquet").slice(0, N // 8), files / "small.parquet", compression=None)
    return files


def test_reading_a_file_holds_its_features_once(small):
    """The file is read block by block to where the rows belong; the order of its rows costs no copy."""
    peaks = {}
    for form in ("npz", "parquet"):
        Dataset.from_name("features", root=str(small / f"small.{form}"))
        peaks[form], dataset = peak_of(lambda form=form: Dataset.from_name("features", root=str(small / f"f.{form}")))
        assert dataset.n_train == N - N // 5
    assert max(peaks.values()) < 1.4, peaks


def test_a_run_holds_its_features_once(small, monkeypatch):
    """Above a size, batches are normalized when they are drawn; the normalized features would be a second copy."""
    monkeypatch.setattr(device_data, "PREPARED_FLOATS", SIZE // 4)
    dataset = Dataset.from_name("features", root=str(small / "f.npz"))
    way = {"model": "linear", "ratios": (0.5,), "members": 2, "epochs": 1, "lr": 0.01}
    study.cscores(Dataset.from_name("features", root=str(small / "small.npz")), **way)
    peak, scores = peak_of(lambda: study.cscores(dataset, **way))
    assert scores["cscore"].mean() > 0.9
    assert peak < 0.6, peak


@pytest.fixture
def both(monkeypatch):
    """Compute twice: with normalized features that are kept, and with those that are made batch by batch."""
    rng = np.random.default_rng(1)
    features, labels = rng.normal(2, 3, (600, 6)), np.arange(600) % 2

    def compute(function, **way):
        kept = function(features, labels, epochs=2, train={"normalize": "standard"}, **way)
        monkeypatch.setattr(device_data, "PREPARED_FLOATS", 0)
        return kept, function(features, labels, epochs=2, train={"normalize": "standard"}, **way)

    return compute


def test_batches_normalized_when_drawn_are_the_same(both):
    """Where features lie in memory must not change a network."""
    kept, drawn = both(study.cscores, model="mlp", ratios=(0.5,), members=2)
    assert kept["cscore_soft"].tolist() == drawn["cscore_soft"].tolist()


def test_the_outlier_factor_of_a_linear_network_needs_no_copy_of_its_input(both):
    """Its penultimate layer is the input; of a large one the rows are computed when they are compared."""
    kept, drawn = both(study.single_run, model="linear", proxies=["local_outlier_factor"])
    np.testing.assert_allclose(kept.scores["local_outlier_factor"], drawn.scores["local_outlier_factor"], rtol=1e-6)
