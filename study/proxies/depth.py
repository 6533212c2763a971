"""Prediction depth.  in: classes of k-NN probes (l, n), of the network (n,)   out: depths (n,), accuracies by layer

Layer 0 is the input, layer l - 1 the softmax; between them are the placements of `study.models.placements`.
"""

from collections.abc import Mapping

import numpy as np

from study.proxies.registry import BoolArray, FloatArray, IntArray, proxy

DEPTH = {
    "family": "depth",
    "easy": "low",
    "unit": "layer",
    "source": "Baldock, Sec. 2.1, A.5 and A.6.1 (B-depth)",
    "ties": "many: one of l + 1 values; midranks, never broken",
    "never_learned": "no special case: the depth is that of the predicted class, right or wrong",
    "cost": "probes",
}


@proxy(**DEPTH, label="prediction depth")
def prediction_depth(probe_class: IntArray, final_class: IntArray) -> FloatArray:
    """Find the first layer from which on all k-NN probes agree with the network's final class.

    Args:
        probe_class: (l, n) classes predicted by the probes, input first, softmax last; on training rows.
        final_class: (n,) classes predicted by the network.

    Returns:
        (n,) 0 (the input) to l - 1 (the softmax), low means easy.  Where the softmax probe disagrees with the network
        the depth is undefined; it gets l, above every depth: hardest.

    Baldock assigns those none ("always fewer than 1 in 10^4"); a score has to be finite.  `undefined` counts them, and
    the source `probes` logs the count.

    >>> prediction_depth(np.array([[1, 0, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0]]), np.array([1, 0, 0, 1]))
    array([2., 0., 3., 3.])
    """
    agree = probe_class == final_class
    return len(agree) - np.cumprod(agree[::-1], axis=0).sum(axis=0, dtype=np.float64)


@proxy(**DEPTH, on="test", label="prediction depth, test")
def prediction_depth_test(probe_class: IntArray, final_class: IntArray) -> FloatArray:
    """Find the depth of test examples, the paper's validation split, by probes made of the training rows.

    Args:
        probe_class: (l, n) on test rows.
        final_class: (n,).

    Returns:
        (n,) 0 to l, low means easy; see `prediction_depth`.
    """
    return prediction_depth(probe_class, final_class)


@proxy(**DEPTH, label="prediction depth, logistic regression")
def prediction_depth_linear(linear_probe_class: IntArray, final_class: IntArray) -> FloatArray:
    """Find the depth by logistic-regression probes in place of k-NN (B-k, App. E); see `prediction_depth`.

    Args:
        linear_probe_class: (l, n) on training rows, which the probes were fitted on.
        final_class: (n,).

    Returns:
        (n,) 0 to l, low means easy.  The paper sets these probes aside: where a layer is wide they separate the
        training rows after the first one.
    """
    return prediction_depth(linear_probe_class, final_class)


def undefined(probe_class: IntArray, final_class: IntArray) -> BoolArray:
    """(n,) bool: the softmax probe disagrees with the network, so that there is no depth (Baldock, A.6.1)."""
    return probe_class[-1] != final_class


def majority(votes: IntArray) -> IntArray:
    """Class with most votes: (q, c) to (q,).

    Equal votes go to the lowest class.  The paper says nothing of them; for its consensus it takes the lowest class too
    where the true one is not among the tied (A.6.2), and a probe must not see the true class.
    """
    return votes.argmax(axis=1)


def probe_accuracy(probe_class: IntArray, classes: IntArray, rows: IntArray | BoolArray | slice) -> FloatArray:
    """Share of these rows whose probe predicts their class, layer by layer: (l,), 0 to 1; NaN without rows.

    Args:
        probe_class: (l, n).
        classes: (n,) the classes that count as right: labels, original labels, consensus classes.
        rows: any index of the n examples.
    """
    right = probe_class[:, rows] == classes[rows]
    return right.mean(axis=1) if right.shape[1] else np.full(len(right), np.nan)


def inference_curves(
    probe_class: IntArray,
    labels: IntArray,
    train: BoolArray,
    *,
    original: IntArray | None = None,
) -> Mapping[str, FloatArray]:
    """Probe accuracies as data pass from the input through the network: the inference learning curve (B-fig5).

    Args:
        probe_class: (l, n).
        labels: (n,) as trained on.
        train: (n,) bool, training rows; the others are test rows.
        original: (n,) classes before labels were changed; None where none were.

    Returns:
        {split: (l,) accuracies} of the paper's splits that have rows: "train", or with changed labels "unchanged",
        "mislabeled" (the new labels) and "original labels" (of the mislabeled); and "test".

    Source: Baldock et al. 2021, Sec. 3.2 and Fig. 5 right.
    """
    changed = np.zeros(len(labels), bool) if original is None else (labels != original) & train
    splits = {"unchanged" if changed.any() else "train": (labels, train & ~changed), "mislabeled": (labels, changed)}
    if original is not None:
        splits["original labels"] = (original, changed)
    splits["test"] = (labels, ~train)
    return {name: probe_accuracy(probe_class, classes, rows) for name, (classes, rows) in splits.items() if rows.any()}
