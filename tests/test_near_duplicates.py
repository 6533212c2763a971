"""Images that are nearly another one: what the rule takes for near, and what a near pair is called."""

import numpy as np
from toys import blobs

from study.data import Dataset
from study.data.findings import find
from study.data.near_duplicates import near_pairs
from study.report.tables import odd_images


def pictures() -> Dataset:
    """Thirty images far from each other and three planted near copies: a test image, another class, the same class."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (33, 8, 8)).astype(np.uint8)
    for copy, of in ((32, 0), (20, 1), (21, 3)):
        images[copy] = np.clip(images[of].astype(int) + rng.integers(-2, 3, (8, 8)), 0, 255)
    labels = np.arange(33) % 2
    return Dataset.from_arrays(images[:30], labels[:30], test_images=images[30:], test_labels=labels[30:])


def test_near_copies_are_told_by_what_they_spoil():
    """A digest finds none of them; each pair comes once, at the copy."""
    named = {(each.row, each.kind, each.same_as) for each in find(pictures(), near=True)}
    assert named == {(32, "near leak", 0), (20, "near conflict", 1), (21, "near duplicate", 3)}
    assert not find(pictures())


def test_images_that_differ_as_much_as_images_do_are_not_near():
    """The rule is relative to these data: noisy copies of three images are no near duplicates of each other."""
    assert len(near_pairs(blobs().images)[0]) == 0


def test_a_report_lists_near_pairs_beside_equal_ones():
    """The table of the page, and odd_images.csv."""
    table = odd_images(pictures()).set_index("what")
    assert table.loc["near leak", ["example", "same as"]].tolist() == ["test/2", "train/00"]
