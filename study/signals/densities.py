"""Densities of inputs and of layers.  in: a checkpoint   out: kernel sums (n_train, c), local densities (n_train,)"""

import numpy as np
from torch import Tensor

from study.kernels.kde import class_kernel_sums
from study.kernels.knn import Stream, nearest
from study.proxies.density import reachability
from study.signals.activations import train_features
from study.signals.registry import Checkpoint, source


@source("input_density", when="data")
def input_density(checkpoint: Checkpoint) -> np.ndarray:
    """(n_train, c) kernel sums in the input space (J-kde-input); the same for every run on this data."""
    return _sums(checkpoint, checkpoint.dataset.images[checkpoint.dataset.rows("train")])


@source("hidden_density", when="due")
def hidden_density(checkpoint: Checkpoint, *, layer: str = "penultimate") -> np.ndarray:
    """(n_train, c) kernel sums on the penultimate layer (J-kde-hidden), or on another one.

    Args:
        checkpoint: of training.
        layer: "penultimate", "input", "softmax", a placement of the network, or a number in their order as text.  All
            of its features are held: n_train d floats.
    """
    features = train_features(checkpoint, layer)
    sums = _sums(checkpoint, features.read(0, features.n) if isinstance(features, Stream) else features)
    checkpoint.log("density/bandwidth_hidden", checkpoint.memory["bandwidth"])
    return sums


@source("local_density", "neighbor_density", when="last")
def local_densities(checkpoint: Checkpoint, *, k: int = 20, layer: str = "penultimate") -> dict[str, np.ndarray]:
    """(n_train,) and (n_train, k) local reachability densities, of which the local outlier factor is made.

    Args:
        checkpoint: after the last pass.
        k: neighbours, MinPts; Breunig et al. advise 10 at least, 20 is scikit-learn's default.  All others where there
            are fewer, as there.
        layer: as for `hidden_density`.
    """
    features, k = train_features(checkpoint, layer), min(k, checkpoint.dataset.n_train - 1)
    distance, index = nearest(features, k, exclude_self=True, device=checkpoint.device, progress=checkpoint.progress)
    densities, neighbors = reachability(distance, index)
    return {"local_density": densities, "neighbor_density": neighbors}


def _sums(checkpoint: Checkpoint, features: np.ndarray | Tensor) -> np.ndarray:
    labels = checkpoint.dataset.labels[checkpoint.dataset.rows("train")]
    sums, checkpoint.memory["bandwidth"] = class_kernel_sums(
        features, labels, checkpoint.dataset.n_classes, device=checkpoint.device, progress=checkpoint.progress
    )
    return sums
