"""Kernel sums by class.  in: inputs, hidden features   out: (n_train, c) sums, from which all densities follow"""

import numpy as np

from study.evidence.sources import Moment, source
from study.proxies.neighbors import class_kernel_sums


@source("input_density", when="data")
def input_density(moment: Moment) -> np.ndarray:
    """(n_train, c) kernel sums in the input space (J-kde-input); the same for every run on this data."""
    return _sums(moment, moment.dataset.images[moment.dataset.rows("train")])


@source("hidden_density", when="due")
def hidden_density(moment: Moment) -> np.ndarray:
    """(n_train, c) kernel sums on the penultimate layer (J-kde-hidden)."""
    return _sums(moment, moment.look.features()[moment.dataset.rows("train")])


def _sums(moment: Moment, features: np.ndarray) -> np.ndarray:
    labels = moment.dataset.labels[moment.dataset.rows("train")]
    sums, moment.memory["bandwidth"] = class_kernel_sums(
        features, labels, moment.dataset.n_classes, device=moment.device, progress=moment.progress
    )
    return sums
