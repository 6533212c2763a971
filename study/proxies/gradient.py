"""Scores in the space of the weights.  in: norms and kernel sums of per-example gradients   out: scores (n,)

Two examples are near to each other there when a step on one helps the other.
"""

import numpy as np

from study.proxies.registry import FloatArray, IntArray, proxy

NORM = {"family": "gradient", "easy": "low", "cost": "gradients", "unit": "gradient norm"}
DENSITY = {"family": "gradient", "easy": "high", "cost": "gradients", "unit": "kernel mass"}
APPENDIX = "Jiang, App. C (J-kde-gradient)"


@proxy(**NORM, label="GraNd", source="Paul et al. 2021, Def. 2.1 (not in the inventory)", single_checkpoint=True)
def grand(gradient_norm: FloatArray) -> FloatArray:
    """Norm of the gradient of an example's loss with respect to all trained weights, at one checkpoint.

    Args:
        gradient_norm: (n,).

    Returns:
        (n,) 0 and above, low means easy.  The paper averages over ten initial weights: `single.repeats`.
    """
    return gradient_norm.astype(np.float64)


@proxy(
    **NORM,
    label="GraNd at initialization",
    source="Paul et al. 2021, Def. 2.1 (not in the inventory)",
    blind_to=("flip", "stray"),
)
def grand_first(gradient_norm_first: FloatArray) -> FloatArray:
    """Norm of the gradient of an example's loss with respect to all trained weights, before the first step.

    Args:
        gradient_norm_first: (n,).

    Returns:
        (n,) 0 and above, low means easy.  A network that has seen nothing tells no class from another, so the label all
        but drops out and the norm of the input is what is left.
    """
    return gradient_norm_first.astype(np.float64)


@proxy(**DENSITY, label="gradient density, last layer", source=APPENDIX, single_checkpoint=True)
def gradient_density_last_layer(last_layer_gradient_density: FloatArray) -> FloatArray:
    """Density of an example among the gradients of all with respect to the last layer; mean of K(g_i, g).

    Args:
        last_layer_gradient_density: (n, c).

    Returns:
        (n,) 1/N to 1, high means easy.  The label is in the gradient, so the paper needs no reweighting of classes;
        well-fitted examples of all classes lie together next to 0, where it would set them against each other.
    """
    return _total(last_layer_gradient_density)


@proxy(**DENSITY, label="gradient density", source=APPENDIX)
def gradient_density(gradient_density: FloatArray) -> FloatArray:
    """Density of an example among the gradients of all with respect to all trained weights; mean of K(g_i, g).

    Args:
        gradient_density: (n, c).

    Returns:
        (n,) 1/N to 1, high means easy.
    """
    return _total(gradient_density)


@proxy(**DENSITY, label="class-relative tangent density, first", source=f"{APPENDIX}, empirical NTK at initialization")
def tangent_density_first(tangent_density_first: FloatArray, labels: IntArray) -> FloatArray:
    """Density of the own class less that of all others under the tangent features, before the first step.

    Args:
        tangent_density_first: (n, c) kernel sums on the gradients of the logits; these do not know the label.
        labels: (n,).

    Returns:
        (n,) -1 to 1, high means easy.
    """
    return _relative(tangent_density_first, labels)


@proxy(
    **DENSITY, label="class-relative tangent density, last", source=f"{APPENDIX}, empirical NTK of the final network"
)
def tangent_density_last(tangent_density_last: FloatArray, labels: IntArray) -> FloatArray:
    """Density of the own class less that of all others under the tangent features, after the last epoch.

    Args:
        tangent_density_last: (n, c) kernel sums on the gradients of the logits.
        labels: (n,).

    Returns:
        (n,) -1 to 1, high means easy.
    """
    return _relative(tangent_density_last, labels)


def _total(density: FloatArray) -> FloatArray:
    return density.sum(axis=1, dtype=np.float64)


def _relative(density: FloatArray, labels: IntArray) -> FloatArray:
    return 2 * density[np.arange(len(labels)), labels].astype(np.float64) - _total(density)
