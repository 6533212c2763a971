"""The zoo that a small test set is to rank holds networks that see images as images."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from study.uses.zoo import convolutional_networks, right_on_test
from tests.toys import blobs


def nearest(seed):
    return {"nearest": NearestCentroid()}


@pytest.fixture(scope="module")
def right():
    return right_on_test(blobs(), zoo=nearest)


def test_convolutional_networks_of_several_lengths_are_in_the_zoo(right):
    """A test set that ranks pixel classifiers alone says nothing of the networks that people use."""
    assert list(right) == ["nearest", *convolutional_networks()]
    assert len(convolutional_networks()) >= 3
    assert right.mean().iloc[-1] > 0.5  # of three classes: it has learned


def test_rows_of_features_have_no_convolutional_networks():
    """There is no image to convolve."""
    images = blobs()
    features = replace(images, images=images.images.reshape(images.n, -1, 1, 1).astype(np.float32))
    assert list(right_on_test(features, zoo=nearest)) == ["nearest"]
