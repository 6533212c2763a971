"""Scores of others from cross-validated predictions.  in: probabilities (n, c), labels (n,)   out: (n,) each"""

import importlib

import numpy as np

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
LIBRARY = "cleanlab"
REASON = f"{LIBRARY}'s scores are left out: it is not installed (`pip install {LIBRARY}`)"


def cleanlab_installed() -> bool:
    """Whether its scores can be computed: who lacks it need not cross-validate."""
    try:
        importlib.import_module(f"{LIBRARY}.rank")
    except ImportError:
        return False
    return True


def cleanlab_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Cleanlab's label quality by each of its methods.

    Args:
        labels: (n,) given classes.
        probabilities: (n, c) of each example by a network that has not seen it.

    Returns:
        (n,) by method, high means good.

    Raises:
        ImportError: cleanlab is not installed.
    """
    rank = importlib.import_module(f"{LIBRARY}.rank")
    doubles = probabilities.astype(np.float64)  # their rows must add up to 1
    doubles /= doubles.sum(axis=1, keepdims=True)
    return {method: rank.get_label_quality_scores(labels, doubles, method=method) for method in METHODS}
