"""Published scores are compared with ours only when their labels say that they are in our order."""

import numpy as np
import pandas as pd
import pytest

from study import recipe
from study.data import load
from study.errors import DataError
from study.runs.reference import Scores, log_reference, match, read_scores
from tests.toys import blobs

pytest_plugins = ["tests.tracking_fixtures"]


@pytest.fixture
def dataset():
    return blobs()


@pytest.fixture
def labels(dataset):
    return dataset.labels[: dataset.n_train]


@pytest.fixture
def scores():
    return np.linspace(0, 1, 120)


@pytest.fixture
def written(tmp_path, labels, scores):
    """A function that writes the scores in one of the forms."""

    def write(suffix, **columns):
        path = tmp_path / f"theirs{suffix}"
        if suffix == ".npz":
            np.savez(path, **({"labels": labels, "scores": scores} | columns))
            return path
        table = pd.DataFrame({"label": labels, "cscore": scores} | columns)
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
        return path

    return write


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_scores_come_in_three_forms(written, labels, scores, suffix):
    """The authors' npz, or a table of one's own."""
    found_labels, found_scores, _ = read_scores(written(suffix))
    assert found_labels.tolist() == labels.tolist()
    assert found_scores.tolist() == pytest.approx(scores.tolist())


def test_a_column_may_be_called_score(tmp_path):
    """As another project's table has it."""
    pd.DataFrame({"label": [0, 1], "score": [0.25, 0.5]}).to_csv(tmp_path / "a.csv")
    assert read_scores(tmp_path / "a.csv")[1].tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (None, "a.npz"),
        (None, "a.csv"),
        (b"", "a.npz"),
        (b"", "a.csv"),
        (b"", "a.parquet"),
        (b"PK\x03\x04 not an archive", "a.npz"),
        (b"label,cscore\n1,high\n", "a.csv"),
        (b"label,cscore\n1\xff,0.5\n", "a.csv"),
        (b"label,cscore\n,0.5\n1,0.5\n", "a.csv"),
        (b"\x93NUMPY", "a.npz"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, content, name):
    """A wrong path, a cut download, a table with words."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: ") as caught:
        read_scores(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_plain_array_is_one_line(tmp_path):
    """numpy opens it under any name."""
    with open(tmp_path / "a.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"a\.npz: "):
        read_scores(tmp_path / "a.npz")


def test_pickled_objects_are_not_opened(tmp_path):
    """A file from the web must not run code."""
    np.savez(tmp_path / "a.npz", labels=np.array([{}]), scores=np.array([0.5]))
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        read_scores(tmp_path / "a.npz")


def test_a_missing_column_is_named(tmp_path, written, labels):
    """With what is needed."""
    np.savez(tmp_path / "a.npz", labels=labels)
    with pytest.raises(DataError, match=r"an \.npz needs labels and scores"):
        read_scores(tmp_path / "a.npz")
    (tmp_path / "a.csv").write_text("label,value\n1,0.5\n")
    with pytest.raises(DataError, match="a table label and cscore"):
        read_scores(tmp_path / "a.csv")


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan, np.inf])
def test_scores_outside_0_to_1_are_refused(written, scores, wrong):
    """A rank, a loss or a percentage is no C-score; the first row is named."""
    scores[7] = wrong
    with pytest.raises(DataError, match="1 scores are not between 0 and 1, first in row 7"):
        read_scores(written(".npz", scores=scores))


def test_lengths_that_differ_are_refused(written, scores):
    """Scores of another split."""
    with pytest.raises(DataError, match="120 labels but 119 scores"):
        read_scores(written(".npz", scores=scores[1:]))


def test_scores_go_to_the_examples_of_their_numbers(dataset, labels, scores, tmp_path):
    """`data.limit` leaves gaps; the number in the id says which row of the file is whose."""
    keep = np.array([0, 5, 7, 100, 120, 149])
    few = dataset.__class__(
        **{**vars(dataset), "images": dataset.images[keep], "labels": dataset.labels[keep], "ids": dataset.ids[keep]}
        | {"n_train": 4}
    )
    assert match(tmp_path, Scores(labels, scores), few).tolist() == scores[[0, 5, 7, 100]].tolist()


def test_classes_may_be_numbered_otherwise(dataset, labels, scores, tmp_path):
    """`data.classes` renumbers; each of their labels must go with one of ours, and back."""
    assert match(tmp_path, Scores((labels + 1) % 3, scores), dataset).tolist() == scores.tolist()
    with pytest.raises(DataError, match="another order"):
        match(tmp_path, Scores(np.minimum(labels, 1), scores), dataset)


def test_another_order_is_refused_in_a_line(dataset, labels, scores, tmp_path):
    """Wrongly ordered scores correlate with nothing, and nobody sees why."""
    shuffled = np.random.default_rng(0).permutation(labels)
    with pytest.raises(DataError, match=r"labels are not those of blobs, first at train/.*another order") as caught:
        match(tmp_path, Scores(shuffled, scores), dataset)
    assert "\n" not in str(caught.value)


def test_a_single_swap_is_found(dataset, labels, scores, tmp_path):
    """Two labels at each other's place: the example is named."""
    labels = labels.copy()
    labels[[10, 11]] = labels[[11, 10]]
    with pytest.raises(DataError, match=r"2 labels are not those of blobs, first at train/0010"):
        match(tmp_path, Scores(labels, scores), dataset)


def test_too_few_scores_are_refused(dataset, labels, scores, tmp_path):
    """Those of another data set."""
    with pytest.raises(DataError, match="holds 100 scores, but blobs has an example number 119"):
        match(tmp_path, Scores(labels[:100], scores[:100]), dataset)


def test_examples_without_numbers_are_refused(dataset, labels, scores, tmp_path):
    """A folder of images has names; a list has none."""
    ids = np.array([f"cat/{row}.png" for row in range(dataset.n)])
    named = dataset.__class__(**{**vars(dataset), "ids": ids})
    with pytest.raises(DataError, match="the examples of blobs have no numbers"):
        match(tmp_path, Scores(labels, scores), named)


@pytest.mark.parametrize("part", ["whole", "file name"])
def test_scores_of_files_go_by_their_names(dataset, labels, scores, tmp_path, part):
    """Two programs list a folder in two orders; the path says which image is whose, and class names may be text."""
    ids = np.array([f"cat/{row:03d}.png" for row in range(dataset.n)])
    named = dataset.__class__(**{**vars(dataset), "ids": ids})
    order = np.random.default_rng(0).permutation(dataset.n_train)
    names = ids[order] if part == "whole" else [f"other/{name[4:]}" for name in ids[order]]
    words = np.array(["ant", "bee", "cow"])[labels]
    table = pd.DataFrame({"file": names, "label": words[order], "score": scores[order]})
    table.to_csv(tmp_path / "theirs.csv", index=False)
    assert match(tmp_path, read_scores(tmp_path / "theirs.csv"), named).tolist() == pytest.approx(scores.tolist())
    table[1:].to_csv(tmp_path / "theirs.csv", index=False)
    with pytest.raises(DataError, match=r"no row for \d+ of 120 training examples"):
        match(tmp_path, read_scores(tmp_path / "theirs.csv"), named)


def test_a_reference_is_a_run_with_a_row_per_example(dataset, written, scores, store):
    """Missing for test rows, which nobody has published."""
    run = log_reference(written(".npz"), "digits", dataset, store)
    table = run.read_table("reference.parquet")
    assert table["example"].tolist() == dataset.ids.tolist()
    assert table["cscore"][:120].tolist() == scores.tolist()
    assert table["cscore"][120:].isna().all()
    assert (run.experiment, run.status, run.params["file"]) == ("digits/reference", "FINISHED", "theirs.npz")
    assert run.tags["study.data"] == dataset.digest
    assert run.metrics["cscore/mean"] == pytest.approx(0.5)


@pytest.fixture(scope="module")
def cifar(real_data):
    """A few images of CIFAR-10 and the file of its published C-scores."""
    train, file = real_data / "cifar10-jpeg" / "train.parquet", real_data / "cscores"
    file = file / "cifar10-cscores-orig-order.npz"
    if not train.is_file() or not file.is_file():
        pytest.skip(f"no CIFAR-10 with C-scores in {real_data}; set STUDY_TEST_DATA")
    table = {"data": {"name": "parquet", "train": str(train), "limit": 20}}
    return load(recipe.parse(table, "test").data), file


def test_the_published_file_matches_cifar10(cifar):
    """The real thing: 50,000 rows, some of ours, found by number; J-fig's classes differ in their means."""
    dataset, file = cifar
    labels, scores, _ = read_scores(file)
    result = match(file, Scores(labels, scores), dataset)
    assert len(scores) == 50_000
    assert len(result) == 200
    numbers = [int(name.rpartition("/")[2]) for name in dataset.ids[:200]]
    assert max(numbers) > 200  # the first twenty of each class leave gaps
    assert result.tolist() == scores[numbers].tolist()
    assert labels[numbers].tolist() == dataset.labels[:200].tolist()


def test_the_published_file_in_another_order_is_refused(cifar):
    """The file comes in two orders; the other one is the usual mistake."""
    dataset, file = cifar
    labels, scores, _ = read_scores(file)
    order = np.random.default_rng(0).permutation(len(labels))
    with pytest.raises(DataError, match="the scores are in another order"):
        match(file, Scores(labels[order], scores[order]), dataset)
