"""Published data sets: torchvision's layout read offline, and what a missing or broken one says."""

import gzip
import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest

from study.data import load
from study.errors import DataError

RNG = np.random.default_rng(0)


def refusal(section) -> str:
    with pytest.raises(DataError) as caught:
        load(section)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def idx(array) -> bytes:
    """An idx file as LeCun's page describes it."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def small_mnist(tmp_path):
    """Twenty train and ten test images in torchvision's layout."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, n in (("train", 20), ("t10k", 10)):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx((np.arange(n) % 10).astype(np.uint8)))
    return tmp_path


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """CIFAR-10 with four images per batch; torchvision's checksums are set to these files'."""
    import torchvision.datasets

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()

    def write(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes(), usedforsecurity=False).hexdigest()]

    def batch(start):
        pixels = RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": [(start + i) % 2 for i in range(4)]}

    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [write(f"data_batch_{i}", batch(i)) for i in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [write("test_batch", batch(0))])
    meta = write("batches.meta", {"label_names": ["airplane", "automobile"]})
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return tmp_path


def test_real_mnist_is_read_in_the_original_order(real_data, section):
    data = load(section("mnist", root=real_data / "mnist"))
    assert (data.n_train, data.n_test, data.shape) == (60_000, 10_000, (1, 28, 28))
    assert data.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert round(data.images[:60_000].mean() / 255, 4) == 0.1307


def test_mnist_is_read_as_torchvision_reads_it(small_mnist, section):
    """Its files are read without torchvision, whose import costs seconds in every worker."""
    import torchvision.datasets

    data = load(section("mnist", root=small_mnist))
    for split, train in (("train", True), ("test", False)):
        theirs = torchvision.datasets.MNIST(small_mnist, train=train)
        np.testing.assert_array_equal(data.images[data.rows(split), 0], theirs.data.numpy())
        np.testing.assert_array_equal(data.labels[data.rows(split)], theirs.targets.numpy())


@pytest.mark.parametrize(("name", "kind"), [("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_class_names_of_mnists_kin_are_torchvisions(small_mnist, section, name, kind):
    import torchvision.datasets

    (small_mnist / "MNIST").rename(small_mnist / kind)
    assert list(load(section(name, root=small_mnist)).classes) == getattr(torchvision.datasets, kind).classes


def test_gzipped_mnist_is_the_same_data(small_mnist, section):
    plain = load(section("mnist", root=small_mnist))
    for path in (small_mnist / "MNIST" / "raw").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load(section("mnist", root=small_mnist)).digest == plain.digest


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-3], lambda b: b + b"x", lambda b: b[:5], lambda b: b"", lambda b: b[4:]]
)
def test_damaged_idx_file_is_named(small_mnist, section, name, damage):
    """torchvision itself reads some of these without a word."""
    path = small_mnist / "MNIST" / "raw" / name
    path.write_bytes(damage(path.read_bytes()))
    assert f"{name}: " in refusal(section("mnist", root=small_mnist))


def test_idx_header_that_lies_asks_for_no_memory(small_mnist, section):
    path = small_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    assert "its header says" in refusal(section("mnist", root=small_mnist))


def test_cifar_planes_and_names(small_cifar, section):
    data = load(section("cifar10", root=small_cifar))
    first = pickle.loads((small_cifar / "cifar-10-batches-py" / "data_batch_1").read_bytes())
    np.testing.assert_array_equal(data.images[:4], first["data"].reshape(4, 3, 32, 32))
    assert (data.n_train, data.n_test, data.classes) == (20, 4, ("airplane", "automobile"))


def test_changed_cifar_file_is_not_unpickled(small_cifar, section):
    """The checksum is looked at before the pickle."""
    path = small_cifar / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(b"cos\nabort\n(tR.")
    assert "incomplete or damaged" in refusal(section("cifar10", root=small_cifar))


def test_cifar_archive_is_read_without_writing_to_the_root(small_cifar, section, tmp_path_factory, monkeypatch):
    """A shared data folder is often read-only and holds what the web page offers."""
    import torchvision.datasets

    root = tmp_path_factory.mktemp("archive")
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(small_cifar / "cifar-10-batches-py", "cifar-10-batches-py")
    digest = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", digest)
    data = load(section("cifar10", root=root))
    assert data.digest == load(section("cifar10", root=small_cifar)).digest
    assert os.listdir(root) == [archive.name]


def test_svhn_planes_and_zero(tmp_path, section, monkeypatch):
    """Its files call the zero 10 and put the examples last."""
    import scipy.io
    import torchvision.datasets

    pixels = RNG.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    sums = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels, "y": np.array([[10], [1], [10], [1]], np.uint8)})
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        sums[split] = ["no address", path.name, md5]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", sums)
    data = load(section("svhn", root=tmp_path, classes=["0", "1"]))
    np.testing.assert_array_equal(data.images[:4], pixels.transpose(3, 2, 0, 1))
    assert data.labels[:4].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn"])
def test_missing_data_say_what_is_expected_where(tmp_path, section, name):
    message = refusal(section(name, root=tmp_path))
    assert str(tmp_path) in message
    assert "expected" in message
    assert "data.download=true" in message


def test_failed_download_leaves_nothing_half_done(tmp_path, section, monkeypatch):
    """A half file would pass for the data set at the next start."""
    import torchvision.datasets

    def broken(self):
        (tmp_path / "seen").write_text(str(self.root))
        os.makedirs(self.raw_folder)
        with open(os.path.join(self.raw_folder, "train-images-idx3-ubyte"), "wb") as file:
            file.write(b"half")
        raise RuntimeError("Error downloading train-labels:\nTried a, got b")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", broken)
    root = tmp_path / "root"
    message = refusal(section("mnist", root=root, download=True))
    assert "cannot be downloaded" in message
    assert (tmp_path / "seen").exists()
    assert [path.name for path in root.rglob("*")] == [".lock"]


def test_download_moves_into_the_root(small_mnist, tmp_path_factory, section, monkeypatch):
    import shutil

    import torchvision.datasets

    def fake(self):
        shutil.copytree(small_mnist / "MNIST", os.path.join(self.root, "MNIST"), dirs_exist_ok=True)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fake)
    root = tmp_path_factory.mktemp("fresh") / "deep"
    (root / ".download-killed" / "MNIST").mkdir(parents=True)
    assert load(section("mnist", root=root, download=True)).n == 30
    assert load(section("mnist", root=root)).n == 30
    assert sorted(os.listdir(root)) == [".lock", "MNIST"]


def test_root_that_cannot_be_written_gets_one_line(tmp_path, section):
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be downloaded" in refusal(section("mnist", root=tmp_path / "file" / "x", download=True))
