"""Kernel density with and without labels.  in: class kernel sums (n, c) of `neighbors`, labels   out: scores (n,)

X_density[i, j] is 1 / N times the sum of K(x, x_i) over the training examples x of class j, x_i itself included, as in
Jiang, Eq. 3 to 5, with K = exp(-d^2 / h^2) and h half the mean pairwise Euclidean distance (App. A).
"""

import numpy as np

from study.proxies.registry import FloatArray, IntArray, proxy

INPUT = {"family": "density", "easy": "high", "unit": "kernel mass", "cost": "n x n", "ties": "exact duplicates only"}
HIDDEN = {**INPUT, "moment": True}


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
    """Density of the own class less the density of all others, on the penultimate layer at one moment of training.

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


def _own(density: FloatArray, labels: IntArray) -> FloatArray:
    return density[np.arange(len(labels)), labels].astype(np.float64)


def _total(density: FloatArray) -> FloatArray:
    return density.sum(axis=1, dtype=np.float64)
