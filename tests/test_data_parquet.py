"""Parquet files as on the Hugging Face hub."""

import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.data import load
from study.data.types import Columns
from study.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 5, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 2


def refusal(section) -> str:
    with pytest.raises(DataError) as caught:
        load(section)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png(image) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


FILES = [png(image) for image in PIXELS]


def write(path, images=None, labels=LABELS, *, struct=True, names=("image", "label"), metadata=None):
    images = FILES if images is None else images
    column = pa.array([{"bytes": data, "path": None} for data in images]) if struct else pa.array(images, pa.binary())
    table = pa.table({names[0]: column, names[1]: labels})
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)
    return path


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("name", ["image", "img"])
def test_images_and_labels_come_in_file_order(tmp_path, section, struct, name):
    data = load(section("parquet", train=write(tmp_path / "a.parquet", struct=struct, names=(name, "label"))))
    np.testing.assert_array_equal(data.images, PIXELS.transpose(0, 3, 1, 2))
    assert data.labels.tolist() == LABELS.tolist()
    assert data.ids[[0, -1]].tolist() == ["train/00", "train/39"]


def test_root_with_two_splits(tmp_path, section):
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet", FILES[:4], LABELS[:4])
    data = load(section("parquet", root=tmp_path))
    assert (data.n_train, data.n_test, data.ids[-1]) == (40, 4, "test/3")


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "val"), ("data", "TESTING")])
def test_splits_go_by_their_usual_names_in_any_case(tmp_path, section, train, test):
    """Test.parquet beside Train.parquet joined the training set."""
    write(tmp_path / f"{train}.parquet")
    write(tmp_path / f"{test}.parquet", FILES[:4], LABELS[:4])
    data = load(section("parquet", root=tmp_path))
    assert (data.n_train, data.n_test) == (40, 4)


def test_a_second_held_out_split_is_named(tmp_path, section):
    for name in ("train", "validation", "test"):
        write(tmp_path / f"{name}.parquet")
    (line,) = load(section("parquet", root=tmp_path)).unusable
    assert line.endswith("validation.parquet: not used; to hold it out instead, set data.test")


def test_held_out_files_alone_are_no_train_split(tmp_path, section):
    write(tmp_path / "test.parquet")
    assert "there is test.parquet, and no train split" in refusal(section("parquet", root=tmp_path))


@pytest.mark.parametrize("way", ["absolute", "upward"])
def test_a_row_reads_nothing_outside_its_folder(tmp_path, section, way):
    (tmp_path / "secret.png").write_bytes(FILES[0])
    (tmp_path / "set").mkdir()
    path = str(tmp_path / "secret.png") if way == "absolute" else "../secret.png"
    rows = [{"bytes": data, "path": None} for data in FILES] + [{"bytes": None, "path": path}]
    table = pa.table({"image": pa.array(rows), "label": [*LABELS, 0]})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    data = load(section("parquet", root=tmp_path / "set"))
    assert data.n_train == 40
    assert "leads out of the folder" in data.unusable[0]


def test_shards_of_the_hub_are_joined_in_order(tmp_path, section):
    (tmp_path / "data").mkdir()
    for shard in (1, 0):
        part = slice(20 * shard, 20 * shard + 20)
        write(tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", FILES[part], LABELS[part])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", FILES[:4], LABELS[:4])
    data = load(section("parquet", root=tmp_path))
    np.testing.assert_array_equal(data.images[:40], PIXELS.transpose(0, 3, 1, 2))
    assert data.n_test == 4


def test_missing_shard_is_named(tmp_path, section):
    """Half a data set trains without a complaint."""
    write(tmp_path / "train-00000-of-00002.parquet")
    assert "train-00001-of-00002*.parquet: this shard of 2 is missing" in refusal(section("parquet", root=tmp_path))


def test_class_names_of_the_hub_are_used(tmp_path, section):
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    path = write(tmp_path / "a.parquet", metadata={"huggingface": json.dumps(features)})
    assert load(section("parquet", train=path)).classes == ("cat", "dog")


@pytest.mark.parametrize("text", ["{}", "not json", '{"info": 3}', '{"info": {"features": {"label": {}}}}'])
def test_other_metadata_are_passed_over(tmp_path, section, text):
    path = write(tmp_path / "a.parquet", metadata={"huggingface": text})
    assert load(section("parquet", train=path)).classes == ("0", "1")


def test_classes_txt_beside_the_file_names_the_classes(tmp_path, section):
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert load(section("parquet", train=write(tmp_path / "a.parquet"))).classes == ("ant", "bee")


@pytest.mark.parametrize("dictionary", [False, True])
def test_text_labels_are_sorted(tmp_path, section, dictionary):
    labels = pa.array(["wren" if label else "owl" for label in 1 - LABELS])
    path = write(tmp_path / "a.parquet", labels=labels.dictionary_encode() if dictionary else labels)
    data = load(section("parquet", train=path))
    assert data.classes == ("owl", "wren")
    assert data.labels.tolist() == (1 - LABELS).tolist()


def test_text_label_that_train_lacks_is_refused(tmp_path, section):
    write(tmp_path / "train.parquet", labels=pa.array(["a", "b"] * 20))
    write(tmp_path / "test.parquet", labels=pa.array(["a", "c"] * 20))
    assert "class 'c' is not in the train split" in refusal(section("parquet", root=tmp_path))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"names": ("scan", "label")}, r"no image column .* there are scan, label, name it with data.columns.image"),
        ({"names": ("image", "grade")}, r"no label column .* there are image, grade, name it with data.columns.label"),
        ({"labels": pa.array([0, None] * 20)}, r"row 1 has no label \(20 such rows\)"),
        ({"labels": np.full(40, -1)}, r"label -1 at index 0 is negative"),
        ({"labels": LABELS + 0.5}, r"label 0.5 at index 0 is not a whole number"),
        ({"labels": pa.array([[0]] * 40)}, r"write whole numbers"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, section, settings, expected):
    assert re.search(expected, refusal(section("parquet", train=write(tmp_path / "a.parquet", **settings))))


def test_images_as_numbers_are_refused(tmp_path, section):
    table = pa.table({"image": pa.array([[1, 2]] * 40), "label": LABELS})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "write encoded files" in refusal(section("parquet", train=tmp_path / "a.parquet"))


def test_broken_image_is_listed_by_row_and_the_ids_stay(tmp_path, section):
    images = [*FILES[:17], b"broken", *FILES[18:]]
    data = load(section("parquet", train=write(tmp_path / "a.parquet", images)))
    assert data.unusable == (f"{tmp_path}/a.parquet row 17: not an image of a known format",)
    assert data.ids[16:18].tolist() == ["train/16", "train/18"]


def test_missing_image_is_listed(tmp_path, section):
    images = [*FILES[:17], None, *FILES[18:]]
    for struct in (True, False):
        data = load(section("parquet", train=write(tmp_path / "a.parquet", images, struct=struct)))
        assert data.unusable[0].endswith("row 17: no image in this row")


def test_path_beside_the_file_stands_in_for_bytes(tmp_path, section):
    (tmp_path / "x.png").write_bytes(FILES[0])
    column = pa.array([{"bytes": None, "path": "x.png"}] * 40)
    pq.write_table(pa.table({"image": column, "label": LABELS}), tmp_path / "a.parquet")
    data = load(section("parquet", train=tmp_path / "a.parquet"))
    np.testing.assert_array_equal(data.images[39], PIXELS[0].transpose(2, 0, 1))


def test_images_may_be_paths_as_text(tmp_path, section):
    """A table that names files beside it, or below the root, as a data set of files has."""
    (tmp_path / "data").mkdir()
    (tmp_path / "pictures").mkdir()
    for row in range(40):
        (tmp_path / ("data" if row % 2 else "pictures") / f"{row}.png").write_bytes(FILES[row])
    paths = [f"{row}.png" if row % 2 else f"pictures/{row}.png" for row in range(40)]
    pq.write_table(pa.table({"file_name": paths, "label": LABELS}), tmp_path / "data" / "train.parquet")
    data = load(section("parquet", root=tmp_path))
    np.testing.assert_array_equal(data.images, PIXELS.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["fine_label", "Category", "grade"])
def test_columns_go_by_usual_names_or_by_setting(tmp_path, section, name):
    """CIFAR-100 of the hub has `img`, `fine_label` and `coarse_label`."""
    features = {"info": {"features": {name: {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    path = write(tmp_path / "a.parquet", names=("img", name), metadata={"huggingface": json.dumps(features)})
    columns = Columns(image="img", label="grade") if name == "grade" else Columns()
    data = load(section("parquet", train=path, columns=columns))
    assert (data.classes, data.labels.tolist()) == (("cat", "dog"), LABELS.tolist())


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train/a.parquet", "validation/a.parquet"),
    ],
)
def test_tables_may_lie_in_folders_as_on_the_hub(tmp_path, section, train, test):
    for name, n in ((train, 40), (test, 4)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, FILES[:n], LABELS[:n])
    data = load(section("parquet", root=tmp_path))
    assert (data.n_train, data.n_test) == (40, 4)


def test_several_folders_of_tables_are_named(tmp_path, section):
    for name in ("large", "small"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.parquet")
    assert "large, small hold tables; choose one, such as data.root=" in refusal(section("parquet", root=tmp_path))


@pytest.mark.parametrize("hidden", [-1, None])
def test_validation_stands_in_for_a_test_split_without_labels(tmp_path, section, hidden):
    """Test splits of competitions keep their labels back."""
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.parquet", labels=pa.array([hidden] * 40, pa.int64()))
    assert load(section("parquet", root=tmp_path)).n_test == 0
    write(tmp_path / "validation.parquet", FILES[:4], LABELS[:4])
    data = load(section("parquet", root=tmp_path))
    assert (data.n_test, data.unusable) == (4, (f"{tmp_path}/test.parquet: not used, it has no labels",))


def test_truncated_file_gets_one_line(tmp_path, section):
    path = write(tmp_path / "a.parquet")
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "a.parquet: not readable as parquet" in refusal(section("parquet", train=path))


def test_damaged_pages_get_one_line(tmp_path, section):
    path = write(tmp_path / "a.parquet")
    whole = bytearray(path.read_bytes())
    whole[4:600] = bytes(596)
    path.write_bytes(whole)
    assert "a.parquet" in refusal(section("parquet", train=path))


def test_missing_file_is_named(tmp_path, section):
    assert "gone: no parquet file here" in refusal(section("parquet", train=tmp_path / "gone"))


def test_real_cifar_is_in_the_published_order(real_data, section):
    """The published C-scores join by row: their labels are in the original order."""
    data = load(section("parquet", train=real_data / "cifar10-jpeg" / "test.parquet"))
    assert (data.n, data.shape, data.classes[3], data.unusable) == (10_000, (3, 32, 32), "cat", ())
    with np.load(real_data / "cscores" / "cifar10-cscores-orig-order.npz") as published:
        train = pq.read_table(real_data / "cifar10-jpeg" / "train.parquet", columns=["label"])["label"]
        np.testing.assert_array_equal(train.to_numpy(), published["labels"])
