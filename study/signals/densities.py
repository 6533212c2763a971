"""Densities of inputs and of layers.  in: a moment   out: kernel sums (n_train, c), local densities (n_train,)"""

import numpy as np

from study.kernels.kde import class_kernel_sums
from study.kernels.knn import nearest
from study.proxies.density import reachability
from study.signals.activations import train_features
from study.signals.registry import Checkpoint, source


@source("input_density", when="data")
def input_density(moment: Checkpoint) -> np.ndarray:
    """(n_train, c) kernel sums in the input space (J-kde-input); the same for every run on this data."""
    return _sums(moment, moment.dataset.images[moment.dataset.rows("train")])


@source("hidden_density", when="due")
def hidden_density(moment: Checkpoint, *, layer: str = "penultimate") -> np.ndarray:
    """(n_train, c) kernel sums on the penultimate layer (J-kde-hidden), or on another one.

    Args:
        moment: of training.
        layer: "penultimate", "input", "softmax", a placement of the network, or a number in their order as text.  All
            of its features are held: n_train d floats.
    """
    sums = _sums(moment, train_features(moment, layer))
    moment.log("density/bandwidth_hidden", moment.memory["bandwidth"])
    return sums


@source("local_density", "neighbor_density", when="last")
def local_densities(moment: Checkpoint, *, k: int = 20, layer: str = "penultimate") -> dict[str, np.ndarray]:
    """(n_train,) and (n_train, k) local reachability densities, of which the local outlier factor is made.

    Args:
        moment: after the last pass.
        k: neighbours, MinPts; Breunig et al. advise 10 at least, 20 is scikit-learn's default.  All others where there
            are fewer, as there.
        layer: as for `hidden_density`.
    """
    features, k = train_features(moment, layer), min(k, moment.dataset.n_train - 1)
    distance, index = nearest(features, k, exclude_self=True, device=moment.device, progress=moment.progress)
    own, others = reachability(distance, index)
    return {"local_density": own, "neighbor_density": others}


def _sums(moment: Checkpoint, features: np.ndarray) -> np.ndarray:
    labels = moment.dataset.labels[moment.dataset.rows("train")]
    sums, moment.memory["bandwidth"] = class_kernel_sums(
        features, labels, moment.dataset.n_classes, device=moment.device, progress=moment.progress
    )
    return sums
