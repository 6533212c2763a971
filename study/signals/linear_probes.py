"""Logistic-regression probes after every layer of a trained network.  in: a checkpoint   out: their classes (l, n)"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from study.errors import RecipeError
from study.kernels.knn import Stream
from study.signals.activations import Layers
from study.signals.registry import Checkpoint, source


@source("linear_probe_class", when="last")
def linear_probes(checkpoint: Checkpoint, *, inverse_penalty: float = 1.0, steps: int = 200) -> np.ndarray:
    """Fit multinomial logistic regressions on the training rows, at the places of the k-NN probes (B-k, App. E).

    Args:
        checkpoint: after the last epoch.
        inverse_penalty: C of scikit-learn's LogisticRegression: the loss is the sum of the cross-entropies and half the
            squared norm of the weights, over C.
        steps: at most, of L-BFGS.

    Returns:
        linear_probe_class (l, n) int16.  Features have mean 0 and SD 1 over the training rows.  The run's
        linear_probes.npz keeps it, and the layers' names.

    Raises:
        RecipeError: a layer of more than 1.5 GiB.
    """
    layers, dataset = Layers(checkpoint), checkpoint.dataset
    labels = torch.from_numpy(dataset.labels[: dataset.n_train]).to(layers.device)
    classes = []
    for number, name in enumerate(layers.names):
        features = layers.features(name)
        if isinstance(features, Stream):
            raise RecipeError(f"linear_probes: layer {name} has more than 1.5 GiB; leave prediction_depth_linear out")
        standard = _standardized(features.float(), dataset.n_train)
        weights = fit_logistic(standard[: dataset.n_train], labels, dataset.n_classes, inverse_penalty, steps)
        classes.append(_logits(standard, weights).argmax(dim=1).to(torch.int16).cpu().numpy())
        if checkpoint.progress is not None:
            checkpoint.progress((number + 1) / len(layers.names))
    stacked = np.stack(classes)
    checkpoint.keep("layers", np.array(layers.names))
    checkpoint.keep("linear_probe_class", stacked)
    return stacked


def fit_logistic(features: Tensor, labels: Tensor, n_classes: int, inverse_penalty: float, steps: int) -> Tensor:
    """(d + 1, c) weights, the last row the intercepts, which have no penalty: (n, d) features, (n,) labels."""
    weights = features.new_zeros(features.shape[1] + 1, n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = weights[:-1].square().sum() / (2 * inverse_penalty * len(labels))
        value = functional.cross_entropy(_logits(features, weights), labels) + penalty
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weights.detach()


def _logits(features: Tensor, weights: Tensor) -> Tensor:
    return features @ weights[:-1] + weights[-1]


def _standardized(features: Tensor, n_train: int) -> Tensor:
    train = features[:n_train]
    spread = train.std(dim=0, correction=0)
    return (features - train.mean(dim=0)) / torch.where(spread > 0, spread, 1.0)
