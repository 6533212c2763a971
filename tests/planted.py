"""Planted truth for the contract tests of proxies: blobs whose odd examples are known, and evidence of every word.

A new word of evidence needs a function here, decorated with its name, that makes it of a planted data set as a source
would make it of a network.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from study.kernels import kde
from study.proxies import density

EPOCHS, CLASSES, EACH = 20, 3, 100
N = CLASSES * EACH
HARD = ("flip", "stray")
WORD: dict[str, Callable[[SimpleNamespace], np.ndarray]] = {}


def word(name: str) -> Callable[[Callable], Callable]:
    """Register the function that makes a word of evidence."""

    def register(function: Callable) -> Callable:
        assert name not in WORD
        WORD[name] = function
        return function

    return register


def blobs(seed: int) -> SimpleNamespace:
    """Three tidy blobs of 100 examples; in each 6 labels are flipped, 5 examples stray past the middle, 4 are copies.

    features (n, 2), labels (n,), where {plant: (n,) bool}.
    """
    rng = np.random.default_rng(seed)
    tidy = np.repeat(np.arange(CLASSES), EACH)
    angle = 2 * np.pi * tidy / CLASSES
    features = 3 * np.stack((np.cos(angle), np.sin(angle)), axis=1) + rng.normal(scale=0.5, size=(N, 2))
    stray, flip, duplicate = np.zeros((3, N), bool)
    for start in range(0, N, EACH):
        odd = start + rng.permutation(EACH)[:16]
        stray[odd[:5]], flip[odd[5:11]], duplicate[odd[11:]] = True, True, True
        features[odd[11:15]] = features[odd[15]]
    features[stray] = -0.4 * features[stray] + rng.normal(scale=0.15, size=(15, 2))
    labels = np.where(flip, (tidy + rng.integers(1, CLASSES, size=N)) % CLASSES, tidy)
    order = rng.permutation(N)
    where = {"flip": flip[order], "stray": stray[order], "duplicate": duplicate[order]}
    return SimpleNamespace(features=features[order], labels=labels[order], where=where)


def with_bias(features: np.ndarray) -> np.ndarray:
    return np.c_[features, np.ones(len(features))]


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def softmax_regression(train: SimpleNamespace, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (e + 1, d + 1, c) of plain SGD, before the first step and at epoch ends; (e, n) right in passing."""
    rng, weights = np.random.default_rng(seed), np.zeros((3, CLASSES))
    history, online = [weights], np.zeros((EPOCHS, N), bool)
    for epoch in range(EPOCHS):
        for batch in np.array_split(rng.permutation(N), 10):
            inputs = with_bias(train.features[batch])
            online[epoch, batch] = (inputs @ weights).argmax(axis=1) == train.labels[batch]
            error = softmax(inputs @ weights) - np.eye(CLASSES)[train.labels[batch]]
            weights = weights - 0.05 * inputs.T @ error / len(batch)
        history.append(weights)
    return np.array(history), online


def planted() -> dict[str, SimpleNamespace]:
    """Train and test rows with their evidence, by the name that a spec's `on` has."""
    splits = {"train": blobs(0), "test": blobs(1)}
    weights, online = softmax_regression(splits["train"], seed=2)
    for data in splits.values():
        data.weights, data.online = weights, online
        data.logits = with_bias(data.features) @ weights
        data.p = softmax(data.logits)
        data.signals = {name: make(data) for name, make in WORD.items()}
    return splits


def at_label(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label's entry of (t, n, c)."""
    return values[:, np.arange(len(labels)), labels]


def two_largest(values: np.ndarray) -> np.ndarray:
    """Largest minus second largest of (n, c)."""
    ordered = np.sort(values, axis=-1)
    return ordered[:, -1] - ordered[:, -2]


@word("labels")
def labels(data: SimpleNamespace) -> np.ndarray:
    return data.labels


@word("correct")
def correct(data: SimpleNamespace) -> np.ndarray:
    return data.logits[1:].argmax(axis=2) == data.labels


@word("predicted")
def predicted(data: SimpleNamespace) -> np.ndarray:
    """Of weights that still shake at the end, as those of a network do: a linear one has all its classes at once."""
    shaken = data.weights + np.random.default_rng(0).normal(scale=0.2, size=data.weights.shape)
    return (with_bias(data.features) @ shaken).argmax(axis=2).astype(np.int16)


@word("online_correct")
def online_correct(data: SimpleNamespace) -> np.ndarray:
    return data.online


@word("confidence")
def confidence(data: SimpleNamespace) -> np.ndarray:
    return at_label(data.p[1:], data.labels).astype(np.float32)


@word("top_confidence")
def top_confidence(data: SimpleNamespace) -> np.ndarray:
    return data.p[1:].max(axis=2).astype(np.float32)


@word("loss")
def loss(data: SimpleNamespace) -> np.ndarray:
    return -np.log(at_label(data.p[1:], data.labels)).astype(np.float32)


@word("margin")
def margin(data: SimpleNamespace) -> np.ndarray:
    others = np.where(np.eye(CLASSES, dtype=bool)[data.labels], -np.inf, data.logits[1:])
    return (at_label(data.logits[1:], data.labels) - others.max(axis=2)).astype(np.float32)


@word("error_norm")
def error_norm(data: SimpleNamespace) -> np.ndarray:
    return np.linalg.norm(data.p[1:] - np.eye(CLASSES)[data.labels], axis=2).astype(np.float32)


@word("target_confidence_now")
def target_confidence_now(data: SimpleNamespace) -> np.ndarray:
    return confidence(data)[-1]


@word("top_confidence_now")
def top_confidence_now(data: SimpleNamespace) -> np.ndarray:
    return top_confidence(data)[-1]


@word("output_margin_now")
def output_margin_now(data: SimpleNamespace) -> np.ndarray:
    return two_largest(data.logits[-1]).astype(np.float32)


@word("softmax_margin_now")
def softmax_margin_now(data: SimpleNamespace) -> np.ndarray:
    return two_largest(data.p[-1]).astype(np.float32)


@word("input_density")
def input_density(data: SimpleNamespace) -> np.ndarray:
    return kde.class_kernel_sums(data.features, data.labels, CLASSES)[0]


@word("hidden_density")
def hidden_density(data: SimpleNamespace) -> np.ndarray:
    return input_density(data)


def input_slopes(data: SimpleNamespace) -> np.ndarray:
    """(t, n, 2, c): gradients of log p, the logits of a network that ends in a log-softmax, by the input."""
    weights = data.weights[:, None, :-1]
    return weights - (weights * data.p[:, :, None]).sum(axis=-1, keepdims=True)


def loss_gradients(data: SimpleNamespace) -> np.ndarray:
    """(t, n, 3 c): gradients of the loss by the weights, written out."""
    error = data.p - np.eye(CLASSES)[data.labels]
    return np.einsum("na,tnc->tnac", with_bias(data.features), error).reshape(*error.shape[:2], -1)


@word("loss_sensitivity")
def loss_sensitivity(data: SimpleNamespace) -> np.ndarray:
    gradients = np.take_along_axis(input_slopes(data), data.labels[None, :, None, None], axis=3)[1:, ..., 0]
    return np.abs(gradients).sum(axis=2)


@word("critical_steps")
def critical_steps(data: SimpleNamespace) -> np.ndarray:
    """Without noise: so many steps of .05 along the signs until the nearest plane between two classes is crossed."""
    return np.minimum(np.ceil(gaps_over_slopes(data, 1) / 0.05), 21).clip(1).astype(np.float32)


@word("adversarial_margin_now")
def adversarial_margin_now(data: SimpleNamespace) -> np.ndarray:
    return gaps_over_slopes(data, 2)


def gaps_over_slopes(data: SimpleNamespace, norm: int) -> np.ndarray:
    """(n,): the least |z_i - z_j| over the norm of its slope, i the class that is answered."""
    top, weights = data.logits[-1].argmax(axis=1), data.weights[-1][:-1]
    lengths = np.linalg.norm(weights[:, :, None] - weights[:, None], ord=norm, axis=0)[top]
    gaps = data.logits[-1].max(axis=1, keepdims=True) - data.logits[-1]
    return np.divide(gaps, lengths, out=np.full(gaps.shape, np.inf), where=lengths > 0).min(axis=1)


@word("logit_gradient_variance")
def logit_gradient_variance(data: SimpleNamespace) -> np.ndarray:
    gradients = np.take_along_axis(input_slopes(data), data.labels[None, :, None, None], axis=3)[1:, ..., 0]
    return np.stack([gradients[: epoch + 1].var(axis=0).mean(axis=1) for epoch in range(EPOCHS)])


@word("gradient_norm_first")
def gradient_norm_first(data: SimpleNamespace) -> np.ndarray:
    return np.linalg.norm(loss_gradients(data)[0], axis=1).round(12)


@word("gradient_norm")
def gradient_norm(data: SimpleNamespace) -> np.ndarray:
    return np.linalg.norm(loss_gradients(data)[-1], axis=1)


@word("last_layer_gradient_density")
def last_layer_gradient_density(data: SimpleNamespace) -> np.ndarray:
    return kde.class_kernel_sums(loss_gradients(data)[-1], data.labels, CLASSES)[0]


@word("gradient_density")
def gradient_density(data: SimpleNamespace) -> np.ndarray:
    return last_layer_gradient_density(data)


@word("tangent_density_first")
def tangent_density_first(data: SimpleNamespace) -> np.ndarray:
    """Of a linear network: the gradient of every logit is the input and a 1, whatever the weights."""
    return kde.class_kernel_sums(np.tile(with_bias(data.features), CLASSES), data.labels, CLASSES)[0]


@word("tangent_density_last")
def tangent_density_last(data: SimpleNamespace) -> np.ndarray:
    return tangent_density_first(data)


def nearest(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, k) to the nearest others and their rows."""
    distance = np.linalg.norm(features[:, None] - features[None], axis=2) + np.diag(np.full(len(features), np.inf))
    rows = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, rows, axis=1), rows


@word("local_density")
def local_density(data: SimpleNamespace) -> np.ndarray:
    return density.reachability(*nearest(data.features, 10))[0]


@word("neighbor_density")
def neighbor_density(data: SimpleNamespace) -> np.ndarray:
    return density.reachability(*nearest(data.features, 10))[1]


def layers(data: SimpleNamespace) -> list[np.ndarray]:
    """A network that has learned every label by heart, layer by layer: from the features to one point per class."""
    angle = 2 * np.pi * data.labels / CLASSES
    points = 3 * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return [(1 - share) * data.features + share * points for share in np.linspace(0, 1, 6)]


def votes(data: SimpleNamespace) -> np.ndarray:
    """(l, n, c) how many of the 25 nearest, itself included, have each class, five times as many as stray together."""
    one_hot = np.eye(CLASSES)[data.labels]
    return np.array([one_hot + one_hot[nearest(layer, 24)[1]].sum(axis=1) for layer in layers(data)])


@word("probe_class")
def probe_class(data: SimpleNamespace) -> np.ndarray:
    return votes(data).argmax(axis=2)


@word("probe_confidence")
def probe_confidence(data: SimpleNamespace) -> np.ndarray:
    return at_label(votes(data) / 25, data.labels)


@word("linear_probe_class")
def linear_probe_class(data: SimpleNamespace) -> np.ndarray:
    return probe_class(data)


@word("final_class")
def final_class(data: SimpleNamespace) -> np.ndarray:
    return data.labels
