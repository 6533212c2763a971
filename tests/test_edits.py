"""What a person decides about examples changes the data, and what does not fit is refused in one line."""

import csv

import numpy as np
import pytest

from study.data import DataSpec, NoiseSpec, open_data
from study.data.edits import PREFIX
from study.errors import DataError
from study.recipe import flatten
from tests.toys import blobs, blobs_with_errors, toy_recipe

HEADER = ["example", "data_digest", "decision", "new_label", "suggested"]


@pytest.fixture
def dataset():
    return blobs_with_errors()


@pytest.fixture
def written(tmp_path):
    """Write a table and give its path."""

    def write(rows, header=HEADER):
        path = tmp_path / "decisions.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


def decided(dataset, example, decision, new_label="", suggested=""):
    return [example, PREFIX + dataset.digest, decision, new_label, suggested]


def test_decisions_relabel_and_drop(dataset, written):
    """Ids stay, so that scores of the data before can still be joined; the empty new label is the suggested one."""
    rows = [
        decided(dataset, "train/0000", "relabel", "class 0"),
        decided(dataset, "train/0010", "relabel", "", "class 1"),
        decided(dataset, "train/0020", "drop"),
        decided(dataset, "train/0001", "keep"),
        decided(dataset, "test/0003", "drop"),
        decided(dataset, "train/0002", ""),
    ]
    changed = dataset.with_decisions(written(rows))
    assert (changed.n_train, changed.n_test) == (119, 29)
    assert changed.labels[[0, 10]].tolist() == [0, 1]
    gone = {"train/0020", "test/0003"}
    assert changed.ids.tolist() == [name for name in dataset.ids.tolist() if name not in gone]
    wrong = changed.labels != changed.clean_labels
    assert wrong.sum() == (dataset.labels != dataset.clean_labels).sum() - 3
    assert changed.digest != dataset.digest
    assert changed.edits[0].summary().items() >= {"before": dataset.digest, "relabel": 2, "drop": 2, "keep": 1}.items()
    np.testing.assert_array_equal(changed.images, dataset.images[np.isin(dataset.ids, list(gone), invert=True)])


def test_a_name_that_the_report_has_quoted_is_understood(dataset, written):
    """suspects.csv has an apostrophe before names that a spreadsheet would run as a formula."""
    rows = [decided(dataset, "'train/0000", "Relabel ", "'class 2")]
    assert dataset.with_decisions(written(rows)).labels[0] == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["train/0000", "sha256:0123456789abcdef", "drop"], "is of other data"),
        (["train/0000", "", "drop"], "digest missing"),
        (["nobody", None, "drop"], "unknown examples, first 'nobody'"),
        (["train/0000", None, "relabel", "clas 1"], "did you mean 'class 1'"),
        (["train/0000", None, "relabel"], "has no new_label"),
        (["train/0000", None, "delete"], "take keep, relabel or drop"),
        (["train/0000", None, ""], "holds no decision"),
    ],
)
def test_decisions_that_do_not_fit_are_refused(dataset, written, row, message):
    """A wrong list that is applied in silence costs days of training on the wrong data."""
    row = [PREFIX + dataset.digest if value is None else value for value in row]
    with pytest.raises(DataError, match=message) as error:
        dataset.with_decisions(written([row]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "names no example"),
        ([["nobody"]], "unknown examples"),
        ([["train/0001"], ["train/0001"]], "comes 2 times"),
        ([["test/0001"]], "is a test example"),
        ([["train/0001"]], "no training example of class"),
    ],
)
def test_keep_lists_that_do_not_fit_are_refused(dataset, written, rows, message):
    """An empty list would train on nothing; one without a class would train on other classes."""
    with pytest.raises(DataError, match=message):
        dataset.with_only(written(rows, ["example"]))


def test_a_recipe_applies_decisions_to_the_noisy_data_and_the_keep_list_last(written, tmp_path):
    """The report that a person has looked at was of the noisy data."""
    noise = NoiseSpec(labels="symmetric", share=0.1)
    noisy = open_data(DataSpec("digits"), noise)
    path = written([decided(noisy, noisy.ids[5], "drop")])
    keep = tmp_path / "keep.csv"
    keep.write_text("example\n" + "\n".join(noisy.ids[100 : noisy.n_train]))
    data = toy_recipe("single", data={"name": "digits", "decisions": str(path), "keep": str(keep)}).data
    changed = open_data(data, noise)
    assert changed.n_train == noisy.n_train - 100
    assert [edit.kind for edit in changed.edits] == ["decisions", "keep"]
    assert changed.noise == noise


def test_runs_name_the_files_that_have_changed_their_data():
    """The digest stays, so that runs before and after are of one recipe; the parameters tell them apart."""
    plain, edited = toy_recipe("single"), toy_recipe("single", data={"decisions": "decisions.csv", "keep": "keep.csv"})
    assert edited.digest() == plain.digest()
    differing = dict(set(flatten(edited).items()) - set(flatten(plain).items()))
    assert differing == {"data.decisions": "decisions.csv", "data.keep": "keep.csv"}
    assert blobs().profile == {"classes": 3}
