"""Lists of image files and labels in CSV files, as a recipe's data."""

import numpy as np
import pytest
from PIL import Image

from study.data import load
from study.data.types import Columns
from study.errors import DataError


@pytest.fixture
def pictures(tmp_path):
    """Six images `images/0.png` ... `images/5.png`."""
    (tmp_path / "images").mkdir()
    for row in range(6):
        Image.fromarray(np.full((5, 5), 40 * row, np.uint8)).save(tmp_path / "images" / f"{row}.png")
    return tmp_path


def write(path, header, rows, delimiter=","):
    path.write_text("\n".join(delimiter.join(map(str, row)) for row in [header, *rows]) + "\n")
    return path


ROWS = [(f"images/{row}.png", ("cat", "dog")[row % 2]) for row in range(6)]


def refusal(section) -> str:
    with pytest.raises(DataError) as caught:
        load(section)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [("file", "label"), ("Filename", "Class"), ("image_path", "category")])
def test_a_list_beside_its_images_needs_the_root_alone(pictures, section, header, delimiter):
    """The commonest form in which labelled images come."""
    write(pictures / "labels.csv", header, ROWS, delimiter)
    data = load(section("csv", root=pictures))
    assert (data.classes, data.labels.tolist(), data.n_test) == (("cat", "dog"), [0, 1, 0, 1, 0, 1], 0)
    assert (data.ids[2], data.files[2]) == ("images/2.png", str(pictures / "images" / "2.png"))
    assert data.images[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]


def test_root_is_the_folder_of_the_images_where_train_names_the_list(pictures, section, tmp_path_factory):
    """Ids without an ending are what Kaggle's lists hold."""
    table = write(
        tmp_path_factory.mktemp("list") / "a.csv", ("id", "breed"), [(row, "ab"[row % 2]) for row in range(6)]
    )
    data = load(section("csv", train=table, root=pictures / "images"))
    assert (data.classes, data.ids.tolist()) == (("a", "b"), list("012345"))


def test_splits_in_a_column(pictures, section):
    """Test rows are held out, validation rows are named."""
    words = ("Train", "train", "training", "TEST", "test", "val")
    rows = [(*row, word) for row, word in zip(ROWS, words, strict=True)]
    table = write(pictures / "labels.csv", ("file", "label", "Split"), rows)
    data = load(section("csv", root=table))
    assert (data.n_train, data.n_test) == (3, 2)
    assert data.unusable == (f"{table}: split validation: not used; to hold it out instead, set data.test",)


@pytest.mark.parametrize("label", ["", "-1"])
def test_validation_stands_in_for_test_rows_without_labels(pictures, section, label):
    rows = [(*row, "train") for row in ROWS[:4]] + [(ROWS[4][0], label, "test"), (*ROWS[5], "valid")]
    table = write(pictures / "labels.csv", ("file", "label", "split"), rows)
    data = load(section("csv", root=table))
    assert (data.n_train, data.n_test, data.ids[-1]) == (4, 1, "images/5.png")
    assert data.unusable == (f"{table}: split test: not used, it has no labels",)


def test_a_table_per_split(pictures, section):
    """A competition's test table has no labels at all, and a sample of answers lies beside it."""
    write(pictures / "train.csv", ("file", "label"), ROWS[:4])
    write(pictures / "val.csv", ("file", "label"), ROWS[4:])
    write(pictures / "test.csv", ("file",), [row[:1] for row in ROWS])
    write(pictures / "sample_submission.csv", ("file", "label"), ROWS)
    data = load(section("csv", root=pictures))
    assert (data.n_train, data.n_test) == (4, 2)
    assert data.unusable == (f"{pictures}/test.csv: not used, it has no labels",)


def test_columns_are_named_by_setting(pictures, section):
    write(pictures / "a.csv", ("scan", "grade", "fold"), [(*row, "train") for row in ROWS])
    assert "name it with data.columns.image" in refusal(section("csv", root=pictures))
    assert load(section("csv", root=pictures, columns=Columns("scan", "grade", "fold"))).n == 6


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("elsewhere/1.png", "cat"), ("elsewhere/2.png", "dog")], "none of its files is there"),
        ([*ROWS[:5], (ROWS[5][0], "")], "line 7 has no label"),
        ([*ROWS, ROWS[0]], "stands for 2 examples"),
    ],
)
def test_lists_that_cannot_be_used_get_one_line(pictures, section, rows, expected):
    write(pictures / "labels.csv", ("file", "label"), rows)
    assert expected in refusal(section("csv", root=pictures))


def test_several_lists_are_named(pictures, section):
    for name in ("a.csv", "b.csv"):
        write(pictures / name, ("file", "label"), ROWS)
    assert "there are a.csv, b.csv; set data.train to yours" in refusal(section("csv", root=pictures))
