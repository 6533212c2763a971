"""Data sets of arrays: digits and npz, the common checks, subsets, the digest."""

import hashlib
import re
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from PIL import Image

from study.data import load
from study.data.checks import select
from study.data.digest import digest_of
from study.data.raw import Raw
from study.data.resize import fit
from study.errors import DataError


@pytest.fixture
def npz(tmp_path, section):
    """Write arrays as an npz file and load it; `settings` go to the [data] table."""

    def make(settings=None, /, **arrays):
        np.savez(tmp_path / "toy.npz", **arrays)
        return load(section("npz", **{"train": tmp_path / "toy.npz", **(settings or {})}))

    return make


def toy(n=12, c=3, *shape):
    """n images of random bytes and labels 0..c-1 in turn."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *(shape or (4, 5))), dtype=np.uint8), np.arange(n) % c


def refusal(call, *args, **kwargs) -> str:
    """The one line of the DataError."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_digits_hold_out_every_fifth_example(section):
    """The split is the same for everyone, without a seed to agree on."""
    from sklearn.datasets import load_digits

    source, data = load_digits(), load(section())
    assert (data.n, data.n_train, data.n_test, data.shape, data.maximum) == (1797, 1438, 359, (1, 8, 8), 16.0)
    np.testing.assert_array_equal(data.images[data.rows("test"), 0], source.images[4::5])
    np.testing.assert_array_equal(data.labels[data.rows("test")], source.target[4::5])


def test_arrays_have_the_promised_types(section):
    data = load(section())
    assert (data.images.dtype, data.labels.dtype, data.ids.dtype.kind) == (np.uint8, np.int64, "U")
    assert data.images.flags.c_contiguous
    assert data.n_classes == len(data.classes) == 10


def test_ids_are_padded_to_the_width_of_their_split(section):
    data = load(section())
    assert [data.ids[0], data.ids[1437], data.ids[1438]] == ["train/0000", "train/1437", "test/000"]


def test_split_column_says_train_first_then_test(section):
    data = load(section())
    np.testing.assert_array_equal(data.split(), ["train"] * 1438 + ["test"] * 359)


def test_dataset_is_frozen(section):
    with pytest.raises(FrozenInstanceError):
        load(section()).n_train = 3


def test_label_of_the_recipe_names_the_data_set(section):
    assert (load(section()).name, load(section(label="mine")).name) == ("digits", "mine")


def test_loading_files_does_not_import_torch():
    """`study check` and the workers' start should not pay three seconds for nothing."""
    import subprocess

    code = "import sys, study.data; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_gets_the_nearest_one(section):
    assert "did you mean 'digits'" in refusal(load, section("digist"))


@pytest.mark.parametrize(
    ("keys", "n_train"),
    [
        (("images", "labels"), 12),
        (("x", "y"), 12),
        (("x_train", "y_train", "x_test", "y_test"), 12),
        (("train_images", "train_labels", "test_images", "test_labels"), 12),
    ],
)
def test_npz_keys_in_use_are_known(npz, keys, n_train):
    x, y = toy()
    data = npz(**dict(zip(keys, (x, y, x, y), strict=False)))
    assert (data.n_train, data.n_test) == (n_train, 12 if len(keys) == 4 else 0)
    np.testing.assert_array_equal(data.images[:12, 0], x)


def test_npz_splits_may_be_two_files(tmp_path, section):
    x, y = toy()
    np.savez(tmp_path / "train.npz", images=x, labels=y)
    np.savez(tmp_path / "Test.npz", images=x[:6], labels=y[:6])
    data = load(section("npz", root=tmp_path))
    assert (data.n_train, data.n_test, data.ids[-1]) == (12, 6, "test/5")


def test_npz_layouts_become_channels_first(npz):
    x, y = toy(12, 3, 4, 5, 3)
    last, first = npz(x=x, y=y), npz(x=x.transpose(0, 3, 1, 2), y=y)
    assert last.shape == (3, 4, 5)
    assert last.digest == first.digest


def test_npz_labels_may_be_a_column_of_whole_floats(npz):
    """MedMNIST has (n, 1); some tools only write floats."""
    x, y = toy()
    assert npz(x=x, y=y[:, None].astype(float)).digest == npz(x=x, y=y).digest


@pytest.mark.parametrize(("scale", "maximum"), [(1 / 255, 1.0), (1.0, 255.0)])
def test_npz_floats_stay_floats(npz, scale, maximum):
    x, y = toy(400, 4, 8, 8)
    data = npz(x=x * scale, y=y)
    assert (data.images.dtype, data.maximum) == (np.float32, maximum)
    np.testing.assert_allclose(data.images[:, 0], x * scale, rtol=1e-7)


def test_npz_bools_count_to_one(npz):
    x, y = toy()
    data = npz(x=x > 127, y=y)
    assert (data.images.dtype, data.images.max(), data.maximum) == (np.uint8, 1, 1.0)


def test_npz_other_integers_become_bytes(npz):
    x, y = toy()
    assert npz(x=x.astype(np.int64), y=y).digest == npz(x=x, y=y).digest


def test_npz_splits_go_by_their_usual_names_in_any_case(npz):
    """`X_train` is what most people write; a validation split stands in for test labels that are kept back."""
    x, y = toy()
    names = {"X_train": x, "Y_train": y, "val_x": x[:6], "val_y": y[:6], "Test_X": x, "Test_y": np.full(len(y), -1)}
    data = npz(**names)
    assert (data.n_train, data.n_test) == (len(x), 6)
    assert data.unusable[0].endswith("Test_X: not used, it has no labels")
    names["Test_y"] = y
    assert npz(**names).unusable[0].endswith("val_x: not used; to hold it out instead, set data.test")


def with_value(array, index, value, dtype=None):
    """A copy with one value changed."""
    out = array.astype(dtype or array.dtype)
    out[index] = value
    return out


X, Y = toy()
BAD_NPZ = {
    "NaN pixel": ({"x": with_value(X, (7, 0, 0), np.nan, float), "y": Y}, r"1 images hold NaN.* index 7"),
    "float overflow": ({"x": with_value(X, (2, 0, 0), 1e300, float), "y": Y}, r"infinite pixels, first at index 2"),
    "large integers": ({"x": X.astype(np.int32) + 300, "y": Y}, r"pixels are int32 from 30\d to"),
    "negative integers": ({"x": X.astype(np.int32) - 1, "y": Y}, r"bring them to 0..255"),
    "complex pixels": ({"x": X * 1j, "y": Y}, r"pixels are complex128"),
    "flat images": ({"x": X.reshape(12, -1), "y": Y}, r"images are \(12, 20\)"),
    "five channels": ({"x": X[:, None].repeat(5, 1), "y": Y}, r"with 1 or 3 channels"),
    "NaN label": ({"x": X, "y": with_value(Y, 4, np.nan, float)}, r"label nan at index 4 is not a number"),
    "fraction": ({"x": X, "y": with_value(Y, 5, 1.5, float)}, r"label 1.5 at index 5 is not a whole number"),
    "negative label": ({"x": X, "y": with_value(Y, 6, -1)}, r"label -1 at index 6 is negative"),
    "huge label": ({"x": X, "y": with_value(Y, 6, 2**40)}, r"at index 6 is too large"),
    "gap": ({"x": X, "y": Y * 1000}, r"no example has label 1;"),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, r"labels are \(12, 3\)"),
    "text": ({"x": X, "y": Y.astype(str)}, r"write whole numbers"),
    "lengths": ({"x": X, "y": Y[:9]}, r"12 images, but 9 labels"),
    "other keys": ({"a": X, "b": Y}, r"found a, b"),
    "pickle": ({"x": np.array([{}, {}]), "y": Y}, r"without pickles"),
    "empty floats": ({"x": X[:0].astype(float), "y": Y[:0]}, r"two classes"),
    "no pixels": ({"x": X[:, :0], "y": Y}, r"without a pixel"),
    "a scalar": ({"x": np.float64(3), "y": Y}, r"images are \(\)"),
    "scalar label": ({"x": X, "y": np.int64(3)}, r"labels are \(\)"),
    "one class": ({"x": X, "y": Y * 0}, r"at least two classes"),
    "empty": ({"x": X[:0], "y": Y[:0]}, r"two classes"),
    "empty test": ({"x_train": X, "y_train": Y, "x_test": X[:0], "y_test": Y[:0]}, r"the test split is empty"),
    "shapes differ": ({"x_train": X, "y_train": Y, "x_test": X[:, 1:], "y_test": Y}, r"test images are \(1, 3, 5\)"),
    "class not in train": (
        {"x_train": X, "y_train": Y % 2, "x_test": X, "y_test": Y},
        r"no train example of class '2'",
    ),
}


@pytest.mark.parametrize("fault", BAD_NPZ)
def test_npz_that_cannot_be_used_gets_one_line(npz, fault):
    """A wrong label found now is a device-side assert saved later."""
    arrays, expected = BAD_NPZ[fault]
    message = refusal(npz, **arrays)
    assert re.search(expected, message)
    assert fault == "pickle" or "toy.npz" in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x93NUMPY\x01\x00", b"text"])
def test_broken_npz_file_gets_one_line(tmp_path, section, content):
    (tmp_path / "b.npz").write_bytes(content)
    assert "b.npz: not readable as npz" in refusal(load, section("npz", train=tmp_path / "b.npz"))


def test_truncated_npz_file_gets_one_line(tmp_path, section):
    np.savez_compressed(tmp_path / "b.npz", x=X, y=Y)
    whole = (tmp_path / "b.npz").read_bytes()
    for length in range(0, len(whole) - 1, 37):
        (tmp_path / "b.npz").write_bytes(whole[:length])
        assert "b.npz" in refusal(load, section("npz", train=tmp_path / "b.npz"))


def test_missing_npz_file_is_named(tmp_path, section):
    assert "gone.npz" in refusal(load, section("npz", train=tmp_path / "gone.npz"))


@pytest.mark.parametrize("name", ["npz", "folder", "parquet"])
def test_files_without_a_place_say_what_to_set(section, name):
    assert "set data." in refusal(load, section(name))


def test_classes_txt_names_the_classes(npz, tmp_path):
    (tmp_path / "classes.txt").write_text("Kätzchen\ndog\nsea lion\n", encoding="utf-8")
    assert npz(x=X, y=Y).classes == ("Kätzchen", "dog", "sea lion")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\n", r"label 2 at index 2 is outside 0..1"),
        ("a\nb\nc\nd\n", r"class 'd' has no examples"),
        ("a\na\nb\n", r"a name is empty or comes twice"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(npz, tmp_path, text, expected):
    (tmp_path / "classes.txt").write_text(text)
    assert re.search(expected, refusal(npz, x=X, y=Y))


def test_chosen_classes_are_renumbered_in_the_order_given(section):
    whole, part = load(section()), load(section(classes=["7", "2"]))
    kept = np.isin(whole.labels, [7, 2])
    assert part.classes == ("7", "2")
    np.testing.assert_array_equal(part.labels, np.where(whole.labels[kept] == 7, 0, 1))


def test_subset_keeps_the_ids_of_the_whole(section):
    """Scores of a subset must join with scores of the whole, or with published ones."""
    whole, part = load(section()), load(section(classes=["7", "2"], limit=5))
    rows = {name: row for row, name in enumerate(whole.ids)}
    for name, image in zip(part.ids, part.images, strict=True):
        np.testing.assert_array_equal(image, whole.images[rows[name]])


def test_limit_keeps_the_first_train_examples_of_each_class_and_a_hundred_test_examples(section):
    """Test examples of a class are as many, but at least 100; ten thousand slow a tiny run down."""
    whole, part = load(section()), load(section(limit=3))
    assert part.n_test == whole.n_test
    assert np.bincount(load(section(limit=3, limit_test=2)).labels[part.n_train :]).tolist() == [2] * 10
    labels, ids = np.repeat([0, 1], 450), np.arange(900).astype(str)
    raw = Raw(np.zeros((900, 1, 1, 1), np.uint8), labels, ids, 0, ("a", "b"), "", "")
    assert len(select(raw, None, 3).labels) == 200
    assert len(select(raw, None, 150).labels) == 300
    assert np.bincount(part.labels[: part.n_train]).tolist() == [3] * 10
    first = [np.flatnonzero(whole.labels[: whole.n_train] == label)[:3] for label in range(10)]
    assert part.ids[: part.n_train].tolist() == whole.ids[np.sort(np.concatenate(first))].tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classes": ["1", "eight"]}, "no class"),
        ({"classes": ["1", "1"]}, "twice"),
        ({"classes": ["1"]}, "at least two classes"),
        ({"limit": 0}, "data.limit is 0"),
    ],
)
def test_wrong_subset_gets_one_line(section, settings, expected):
    assert expected in refusal(load, section(**settings))


def test_digest_is_the_hash_of_these_bytes():
    """The digest is kept in old runs: another recipe for it would orphan them."""
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    digest = digest_of(images, np.array([0, 1]), np.array(["train/0", "test/0"]), 1)
    by_hand = b"((2, 3, 2, 2), '|u1', 1)" + bytes(range(24)) + bytes([0] * 8 + [1] + [0] * 7)
    by_hand += b"\x07\0\0\0train/0" + b"\x06\0\0\0test/0"
    assert digest == hashlib.sha256(by_hand).hexdigest()[:16]


def test_digest_is_independent_of_byte_order_and_memory_layout():
    images = np.random.default_rng(0).random((5, 3, 4, 4)).astype("<f4")
    args = np.arange(5), np.array(list("abcde")), 3
    swapped = images.astype(">f4"), args[0].astype(">i4"), args[1].astype(">U7"), 3
    strided = np.asfortranarray(images), *args
    assert digest_of(images, *args) == digest_of(*swapped) == digest_of(*strided)


def test_digest_changes_with_every_part():
    """Two runs with one digest have seen the same examples."""
    x, y, ids = X[:, None], Y, np.array([f"i{k}" for k in range(12)])
    variants = [
        (x, y, ids, 6),
        (with_value(x, (11, 0, 3, 4), x[11, 0, 3, 4] ^ 1), y, ids, 6),
        (x, with_value(y, 11, 0), ids, 6),
        (x, y, with_value(ids, 3, "x"), 6),
        (x, y, ids, 7),
        (x.reshape(12, 1, 5, 4), y, ids, 6),
        (x.view(np.int8), y, ids, 6),
        (x[::-1], y, ids, 6),
    ]
    assert len({digest_of(*variant) for variant in variants}) == len(variants)


def test_digest_does_not_depend_on_the_path(tmp_path, section):
    digests = set()
    for folder in (tmp_path / "one", tmp_path / "two words ü"):
        folder.mkdir()
        np.savez(folder / "t.npz", x=X, y=Y)
        digests.add(load(section("npz", train=folder / "t.npz")).digest)
    assert len(digests) == 1


def test_size_and_channels_shape_every_image(section):
    data = load(section(size=16, channels=3))
    assert data.shape == (3, 16, 16)
    np.testing.assert_array_equal(data.images[:, 0], data.images[:, 2])


def test_colours_become_gray_as_in_pillow():
    images = toy(6, 2, 3, 7, 7)[0]
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in images]
    np.testing.assert_array_equal(fit(images, None, 1)[:, 0], expected)


def test_floats_are_resized_like_bytes():
    """Up to the rounding of bytes, once per axis."""
    images = toy(3, 2, 3, 9, 9)[0]
    np.testing.assert_allclose(fit(images.astype(np.float32), 6, None), fit(images, 6, None), atol=1.01)


def test_progress_is_told_of_every_image(tmp_path, section):
    from contextlib import contextmanager

    calls = []

    @contextmanager
    def record(what, total):
        calls.append(total)
        yield calls.append

    for name in ("a/1.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(X[0]).save(tmp_path / name)
    load(section("folder", root=tmp_path), progress=record)
    assert calls[0] == sum(calls[1:]) == 3


def test_duplicate_ids_are_refused(section, monkeypatch):
    """An id that stands for two examples would join scores with the wrong images."""
    import study.data.readers.digits

    monkeypatch.setattr(study.data.readers.digits, "numbered", lambda split, n: ["same"] * n)
    assert "stands for 1797 examples" in refusal(load, section())
