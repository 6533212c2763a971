"""Images that repeat others, blank images: listed, and held out together where the recipe says so."""

from functools import partial

import numpy as np
import pytest

from study.cli.tables import dataset_table
from study.data import Dataset, open_data
from study.data.findings import copies, find
from study.random_streams import random_stream
from study.scores.subsets import subset_mask

RNG = np.random.default_rng(0)


@pytest.fixture
def dataset() -> Dataset:
    """Twelve training and three test images: copies in a class, in two classes and in both splits; three odd ones."""
    images = RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    test = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    images[2] = images[0]  # both of class 0
    images[3] = images[4]  # of classes 1 and 0
    test[1] = images[5]
    images[7], images[8] = 90, 100
    images[8, 0, 0] = 110
    images[9] = np.arange(8) * 30
    labels = np.arange(12) % 2
    return Dataset.from_arrays(images, labels, test_images=test, test_labels=[0, 1, 0], classes=["cat", "dog"])


def test_repeated_and_blank_images_are_found(dataset):
    """A leak undermines "held out", a conflict is a wrong label for certain."""
    findings = [(finding.kind, str(dataset.ids[finding.row]), finding.same_as) for finding in find(dataset)]
    assert findings == [
        ("leak", "test/1", 5),
        ("conflict", "train/03", 4),
        ("conflict", "train/04", 3),
        ("duplicate", "train/02", 0),
        ("blank", "train/07", None),
        ("nearly blank", "train/08", None),
        ("few levels", "train/09", None),
    ]
    assert copies(dataset) == "test images that are training images too: 1, images with a copy in another class: 2"


def test_the_command_lists_them(dataset, capsys):
    dataset_table(dataset)
    lines = capsys.readouterr().out.splitlines()
    assert "    train/03 (dog) = train/04 (cat)" in lines
    assert "images of one colour: 1" in lines


def test_what_most_images_are_is_counted_only(section, capsys):
    """The digits have 17 grey levels."""
    dataset_table(open_data(section("digits")))
    assert capsys.readouterr().out.splitlines()[-1] == "images with fewer than 20 grey levels: 1797"


@pytest.mark.parametrize("design", ["balanced", "uniform"])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_copies_are_held_out_together_at_the_same_sizes(design, ratio):
    """A network that has trained on a copy of an image does not hold that image out."""
    groups = [np.array([0, 5, 9]), np.array([2, 3])]
    for member in range(12):
        plain, grouped = (
            subset_mask(partial(random_stream, 1), ratio, member, 24, design, rows) for rows in ((), groups)
        )
        assert grouped.sum() == plain.sum()
        assert all(len(set(grouped[rows].tolist())) == 1 for rows in groups)
    assert design == "uniform" or _held_out_equally(ratio, groups)


def _held_out_equally(ratio: float, groups: list[np.ndarray]) -> bool:
    block = [subset_mask(partial(random_stream, 1), ratio, member, 24, "balanced", groups) for member in range(4)]
    return len(set(np.sum(block, axis=0).tolist())) == 1
