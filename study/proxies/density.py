"""Density with and without labels.  in: class kernel sums (n, c), labels, local densities   out: scores (n,)

X_density[i, j] is 1 / N times the sum of K(x, x_i) over the training examples x of class j, x_i itself included, as in
Jiang, Eq. 3 to 5, with K = exp(-d^2 / h^2) and h half the mean pairwise Euclidean distance (App. A).
"""

import numpy as np

from study.proxies.registry import FloatArray, IntArray, proxy

INPUT = {"family": "density", "easy": "high", "unit": "kernel mass", "cost": "n x n", "ties": "exact duplicates only"}
HIDDEN = {**INPUT, "single_checkpoint": True}


@proxy(**INPUT, label="class-relative density, input", source="Jiang, Eq. 3 (J-kde-input)")
def kernel_density_input_relative(input_density: FloatArray, labels: IntArray) -> FloatArray:
    """Density of the own class less the density of all others, on inputs: mean of 2 (1[y = y_i] - 1/2) K(x_i, x).

    Args:
        input_density: (n, c).
        labels: (n,).

    Returns:
        (n,) -1 to 1, high means easy: near its own class and away from the others.
    """
    return 2 * _own(input_density, labels) - _total(input_density)


@proxy(**INPUT, label="class-conditional density, input", source="Jiang, Eq. 4 (J-kde-input)")
def kernel_density_input_conditional(input_density: FloatArray, labels: IntArray) -> FloatArray:
    """Density of the own class on inputs: mean of 1[y = y_i] K(x_i, x); (n,) 1/N to 1, high means easy."""
    return _own(input_density, labels)


@proxy(**INPUT, label="class-independent density, input", source="Jiang, Eq. 5 (J-kde-input)", blind_to=("flip",))
def kernel_density_input_independent(input_density: FloatArray) -> FloatArray:
    """Density of all classes together on inputs: mean of K(x_i, x); (n,) 1/N to 1, high means easy; ignores labels."""
    return _total(input_density)


@proxy(**HIDDEN, label="class-relative density, hidden", source="Jiang, Sec. 4.2 and Eq. 3 (J-kde-hidden)")
def kernel_density_hidden_relative(hidden_density: FloatArray, labels: IntArray) -> FloatArray:
    """Density of the own class less the density of all others, on the penultimate layer at one checkpoint of training.

    Args:
        hidden_density: (n, c).
        labels: (n,).

    Returns:
        (n,) -1 to 1, high means easy.
    """
    return 2 * _own(hidden_density, labels) - _total(hidden_density)


@proxy(**HIDDEN, label="class-conditional density, hidden", source="Jiang, Sec. 4.2 and Eq. 4 (J-kde-hidden)")
def kernel_density_hidden_conditional(hidden_density: FloatArray, labels: IntArray) -> FloatArray:
    """Density of the own class on the penultimate layer; (n,) 1/N to 1, high means easy."""
    return _own(hidden_density, labels)


@proxy(
    **HIDDEN,
    label="class-independent density, hidden",
    source="Jiang, Sec. 4.2 and Eq. 5 (J-kde-hidden)",
    blind_to=("flip",),
)
def kernel_density_hidden_independent(hidden_density: FloatArray) -> FloatArray:
    """Density of all classes together on the penultimate layer; (n,) 1/N to 1, high means easy; ignores labels."""
    return _total(hidden_density)


@proxy(
    family="density",
    easy="low",
    unit="1",
    label="local outlier factor",
    source="Breunig et al. 2000, Def. 7 (LOF)",
    ties="exact duplicates only",
    blind_to=("flip",),
    cost="n x n",
)
def local_outlier_factor(local_density: FloatArray, neighbor_density: FloatArray) -> FloatArray:
    """Density of the neighbours over the own density: the mean ratio of their local reachability densities.

    Args:
        local_density: (n,) of `reachability`.
        neighbor_density: (n, k), those of each example's k nearest.

    Returns:
        (n,) about 1 within a cluster, above it for outliers; low means easy.  Beside k + 1 and more exact copies an
        ordinary example resembles an outlier, since theirs is a density of 1e10.
    """
    return neighbor_density.mean(axis=1, dtype=np.float64) / local_density


def reachability(distance: FloatArray, index: IntArray) -> tuple[FloatArray, FloatArray]:
    """Local reachability density of each example and of its neighbours.

    Args:
        distance: (n, k) to the k nearest others, rising.
        index: (n, k) their rows.

    Returns:
        (n,) one over the mean reachability distance max(distance, k-distance of the neighbour); and (n, k), the same
        of the neighbours.

    Source: Breunig et al. 2000, Def. 3 to 6.  Their neighbourhood takes in all that tie at the k-distance, ours the k
        nearest with ties by row.  They suppose that no k examples are the same; 1e-10 is added to the mean, so that a
        heap of copies has the density 1e10, as in scikit-learn.
    """
    reached = np.maximum(distance, distance[index, -1])
    density = 1 / (reached.mean(axis=1) + 1e-10)
    return density, density[index]


def _own(density: FloatArray, labels: IntArray) -> FloatArray:
    return density[np.arange(len(labels)), labels].astype(np.float64)


def _total(density: FloatArray) -> FloatArray:
    return density.sum(axis=1, dtype=np.float64)
