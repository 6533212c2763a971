"""Softmax confidence.  in: probabilities of one moment (n,) or of all epochs (e, n)   out: scores (n,)"""

import numpy as np

from study.proxies.registry import FloatArray, proxy


@proxy(
    family="confidence",
    easy="high",
    unit="probability",
    label="confidence of the label",
    source="Jiang, Sec. 4.3 and Fig. 9b, p_L (J-fig9b)",
    ties="many at 1 late in training, where float32 saturates",
    moment=True,
    cost="pass",
)
def target_confidence(target_confidence_now: FloatArray) -> FloatArray:
    """Softmax probability of the labelled class at one moment of training, p_L.

    Args:
        target_confidence_now: (n,) on training rows; after the last epoch for a final score.

    Returns:
        (n,) 0 to 1, high means easy.
    """
    return target_confidence_now.astype(np.float64)


@proxy(
    family="confidence",
    easy="high",
    unit="probability",
    label="confidence of the prediction",
    source="Jiang, Sec. 4.3 and Fig. 9b, p_max (J-fig9b)",
    ties="many at 1 late in training, where float32 saturates",
    blind_to=("flip",),
    moment=True,
    cost="pass",
)
def top_confidence(top_confidence_now: FloatArray) -> FloatArray:
    """Softmax probability of the predicted class at one moment of training, p_max.

    Args:
        top_confidence_now: (n,) on training rows; after the last epoch for a final score.

    Returns:
        (n,) 1 / c to 1, high means easy.  It never looks at the label, so a confidently mistaken one ranks as easy;
        far from all data a network may be confident too.
    """
    return top_confidence_now.astype(np.float64)


@proxy(
    family="confidence",
    easy="high",
    unit="probability",
    label="cumulative confidence",
    source="p_L of Jiang, Fig. 9b, averaged over epochs as J-cbtl averages correctness",
)
def cumulative_confidence(confidence: FloatArray) -> FloatArray:
    """Mean over the epochs of the softmax probability of the labelled class, at epoch ends.

    Args:
        confidence: (e, n) on training rows.

    Returns:
        (n,) 0 to 1, high means easy: CBTL without its ties.  Jiang reports p_L per epoch only, not this mean.
    """
    return confidence.mean(axis=0, dtype=np.float64)
