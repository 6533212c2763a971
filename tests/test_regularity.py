"""Zhang's plane of regularity: the counts, the density, and the picture."""

import io

import numpy as np
import pandas as pd
import pytest

from study import figures
from study.proxies.learning_speed import cbgl, cbtl, forgetting_events
from study.scores.regularity_plane import BLOCK, representation, sample_density, sample_radius


def test_the_representation_by_hand():
    """Zhang, Eq. 1 and 2: right at t - 1 and wrong at t is an event; never right has none."""
    correct = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], bool)
    right, events = representation(correct)
    assert right.tolist() == [2, 3, 0]
    assert events.tolist() == [2, 0, 0]


def test_the_representation_agrees_with_the_proxies_where_an_example_was_learned():
    """Only for the never learned do the proxies differ: they rank them hardest."""
    correct = np.random.default_rng(0).random((9, 50)) < 0.6
    right, events = representation(correct)
    assert (right == cbtl(correct)).all()
    assert (right == cbgl(correct)).all()
    assert (events == forgetting_events(correct))[right > 0].all()


@pytest.mark.parametrize("n", [5, 3 * BLOCK])
def test_the_density_equals_a_naive_loop(n):
    """More points than a block, most of them alone."""
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, 200, n), rng.integers(0, 60, n)
    radius = sample_radius(x, y)
    naive = [((x - a) ** 2 + (y - b) ** 2 <= radius**2).sum() / (np.pi * radius**2) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(sample_density(x, y), naive)


def test_the_radius_by_hand():
    """The paper's 6.8 comes of ranges of about 200 epochs and 35 events."""
    assert sample_radius([0, 90, 30], [0, 120, 30]) == 5
    assert sample_radius([0, 200], [0, 40]) == pytest.approx(6.8, abs=0.01)


def test_samples_at_one_point_have_no_density():
    """The paper's radius is 0 there; infinity would end in a picture."""
    with pytest.raises(ValueError, match="above 0"):
        sample_density([1, 1], [2, 2])


def plane(n):
    """A table of n examples along a line."""
    right, events = np.arange(n) % 20, np.arange(n) % 3
    density = sample_density(right, events) if n > 1 else np.ones(n)
    return pd.DataFrame({"right": right, "events": events, "density": density, "radius": 0.7})


@pytest.mark.parametrize(
    "planes",
    [{}, {"train": plane(0)}, {"train": plane(1)}, {"train": plane(300)}, {"train": plane(9), "test": plane(5)}],
)
def test_any_plane_is_drawn_without_a_warning(planes):
    """Data without a test split, or with one point, have their report too."""
    figures.regularity_planes(planes).savefig(io.BytesIO(), format="svg")


def test_a_radius_below_1_is_said_on_the_figure():
    """On short runs the paper's rule counts coinciding points alone, which nobody sees in the colours."""
    titles = [
        figures.regularity_planes({"train": plane(30).assign(radius=radius)}).axes[0].get_title(loc="left")
        for radius in (0.7, 2)
    ]
    assert "radius 0.7: only examples at one point" in titles[0]
    assert titles[1].endswith("radius 2")


def test_each_point_is_drawn_once_and_the_densest_last():
    """Fifty thousand dots on four hundred places would be a large file that hides its rare examples."""
    table = plane(300)
    points = figures.regularity_planes({"train": table}).axes[0].collections[0]
    assert len(points.get_offsets()) == len(table.drop_duplicates(["right", "events"])) == 60
    assert (np.diff(points.get_array()) >= 0).all()
