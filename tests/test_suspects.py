"""Which examples are to be checked first."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from study.analysis.suspects import ranked_by, suspects
from study.data import Dataset

SOFT = [0.9, 0.3, 0.6, 0.1]
CONFIDENCE = [0.9, 0.9, 0.3, np.nan]


@pytest.fixture
def dataset() -> Dataset:
    """Three training examples and one test example."""
    images = np.zeros((3, 4, 4), np.uint8)
    return Dataset.from_arrays(images, [0, 1, 1], test_images=images[:1], test_labels=[0], classes=["cat", "dog"])


def runs_of(dataset, *, ensemble=True, single=True) -> SimpleNamespace:
    scores = pd.DataFrame({"example": dataset.ids, "label": dataset.labels})
    if ensemble:
        scores = scores.assign(cscore_soft=SOFT, cscore=0.5, consensus=1, held_out=2)
    singles = [pd.DataFrame({"target_confidence": CONFIDENCE})] if single else []
    return SimpleNamespace(ensemble=ensemble, reference=None, cscores=scores, scores=singles)


def test_an_ensemble_beside_a_single_run_weighs_both(dataset):
    """One run ranks planted label errors higher than the soft score of four members, and both together highest."""
    runs = runs_of(dataset)
    table = suspects(runs, dataset)
    assert ranked_by(runs) == "label_confidence"
    assert table["example"].tolist() == ["test/0", "train/2", "train/1", "train/0"]
    np.testing.assert_allclose(table["label_confidence"], [0.1, 0.36, 0.78, 0.9])


@pytest.mark.parametrize(
    ("parts", "order"), [({"single": False}, "cscore_soft"), ({"ensemble": False}, "target_confidence")]
)
def test_each_alone_ranks_by_itself(dataset, parts, order):
    """A single run has nothing to say of test examples."""
    runs = runs_of(dataset, **parts)
    assert ranked_by(runs) == order
    assert len(suspects(runs, dataset)) == (4 if "single" in parts else 3)
