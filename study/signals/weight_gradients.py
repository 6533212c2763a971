"""Per-example gradients with respect to the weights.  in: a snapshot of the network   out: norms, kernel sums by class

Of the cross-entropy of the label for GraNd and the gradient densities, of every logit for the tangent features (the
empirical NTK).  Weights that are not trained do not count; BatchNorm uses its running statistics.
"""

import numpy as np
import torch
from torch import Tensor, nn

from study.errors import RecipeError
from study.kernels.gradient_kde import Factor, gradient_class_sums
from study.models.classifier import classifier_of
from study.signals.derivatives import (
    Frozen,
    LogitGradients,
    loss_gradient,
    mlp_factors,
    per_example_gradients,
    weight_bytes,
)
from study.signals.gradient_sketches import sketches
from study.signals.registry import Checkpoint, source

LINEAR = 1e-3  # relative error up to which logits count as those of the classifier


@source("gradient_norm_first", when="first")
def gradient_norms_first(checkpoint: Checkpoint) -> np.ndarray:
    """(n_train,) norms of the loss's gradients before the first step (GraNd at initialization)."""
    return gradient_norms(checkpoint)


@source("gradient_norm", when="due")
def gradient_norms(checkpoint: Checkpoint) -> np.ndarray:
    """Norm of the gradient of each training example's cross-entropy with respect to all trained weights (GraNd).

    Args:
        checkpoint: of a network of any kind.  The gradient of an MLP's layer is an outer product, whose norm is the
            product
            of two norms: one backward pass for a whole block.  Any other network's are written out, block by block.

    Returns:
        (n_train,) exact.

    Source: Paul et al. 2021, Def. 2.1; the loss is the cross-entropy, whatever loss trains the network.
    """
    frozen, n = Frozen(checkpoint), checkpoint.dataset.n_train
    labels, layers = checkpoint.snapshot.examples.labels[:n], frozen.layers()
    norms = torch.empty(n, dtype=frozen.dtype, device=frozen.device)
    bytes_each = frozen.image_bytes() * (4 if layers else 2) + (0 if layers else 2 * weight_bytes(frozen))
    for rows, images in frozen.blocks(n, bytes_each):
        block = labels[rows]
        if layers:
            factors = mlp_factors(layers, images, lambda logits, block=block: loss_gradient(logits, block))
            squares = sum(factor.squares(slice(None)) for factor in factors)
        else:
            gradients = per_example_gradients(frozen, images, block, _loss)
            squares = sum(gradient.flatten(1).square().sum(dim=1) for gradient in gradients.values())
        norms[rows] = squares.sqrt()
    return norms.cpu().numpy()


@source("last_layer_gradient_density", when="due")
def last_layer_gradient_density(checkpoint: Checkpoint) -> np.ndarray:
    """(n_train, c) kernel sums by class on the gradients of the loss with respect to the classifier (J-kde-gradient).

    Exact.  With d the gradient in the logits and h the penultimate layer, <g, g'> = (d . d') (h . h' + 1), so no
    gradient is written out.  `memory["metrics"]` gets the bandwidth as `density/bandwidth_gradient_last_layer`, by
    epoch.

    Raises:
        RecipeError: logits that are not what the classifier makes of its input.
    """
    frozen, n = Frozen(checkpoint), checkpoint.dataset.n_train
    labels = checkpoint.snapshot.examples.labels[:n]
    classifier = classifier_of(frozen.network)
    if not isinstance(classifier, nn.Linear):
        raise RecipeError(
            "proxies.gradient_density_last_layer: this network's last layer is no linear one; leave it out"
        )
    bytes_each, hidden, kept, gradients = 2 * frozen.image_bytes(), [], [], []
    handle = classifier.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0].detach()))
    try:
        for rows, images in frozen.blocks(n, bytes_each, share=0.2):
            with torch.no_grad():
                logits = frozen(images)
                rebuilt = classifier(hidden[-1]) if len(hidden) == 1 else None
            if rebuilt is None or not torch.allclose(
                rebuilt, logits, rtol=LINEAR, atol=LINEAR * float(logits.abs().max())
            ):
                raise RecipeError(
                    "proxies.gradient_density_last_layer: this network's logits are not what its classifier gives; "
                    "leave it out"
                )
            kept.append(hidden[0])
            gradients.append(loss_gradient(logits, labels[rows]))
            hidden.clear()
    finally:
        handle.remove()
    factor = Factor(torch.cat(kept), torch.cat(gradients), bias=classifier.bias is not None)
    return _sums(checkpoint, [factor], 0.2, "gradient_last_layer")


@source("gradient_density", when="last")
def gradient_density(checkpoint: Checkpoint, *, dimension: int = 512) -> np.ndarray:
    """(n_train, c) kernel sums by class on the gradients of the loss with respect to all trained weights, at the end.

    Args:
        checkpoint: `memory["metrics"]` gets the bandwidth as `density/bandwidth_gradient`, by epoch.
        dimension: of the sketch (see `gradient_sketches`) that stands for a gradient; 0 takes the gradients as they
            are, for MLPs only, in the memory of all layers' inputs and output gradients.
            On 8,000 MNIST images, MLP 512-256, densities rank as the exact ones to Spearman .992 at 512, .997 at 2048.

    Raises:
        RecipeError: a negative dimension, or 0 for a network that is no MLP.
    """
    frozen, n = Frozen(checkpoint), checkpoint.dataset.n_train
    labels, layers = checkpoint.snapshot.examples.labels[:n], frozen.layers()
    if dimension < 0 or not (dimension or layers):
        raise RecipeError(
            f"signals.gradient_density.dimension is {dimension}; it must be above 0, such as 512 (0 is for MLPs)"
        )

    if dimension:
        return _sums(
            checkpoint, [Factor(sketches(frozen, n, _loss, dimension, checkpoint.stream, share=0.5))], 0.5, "gradient"
        )
    blocks = [
        mlp_factors(layers, images, lambda logits, rows=rows: loss_gradient(logits, labels[rows]))
        for rows, images in frozen.blocks(n, 4 * frozen.image_bytes(), share=0.1)
    ]
    factors = [
        Factor(*(torch.cat(parts) for parts in zip(*((f.inputs, f.gradients) for f in layer), strict=True)))
        for layer in zip(*blocks, strict=True)
    ]
    return _sums(checkpoint, factors, 0.1, "gradient")


@source("tangent_density_first", when="first")
def tangent_density_first(checkpoint: Checkpoint, *, dimension: int = 512, probes: int = 5) -> np.ndarray:
    """(n_train, c) kernel sums by class on the tangent features before the first step; see `tangent_density_last`."""
    return _tangent(checkpoint, dimension, probes)


@source("tangent_density_last", when="last")
def tangent_density_last(checkpoint: Checkpoint, *, dimension: int = 512, probes: int = 5) -> np.ndarray:
    """(n_train, c) kernel sums by class on the tangent features: the gradients of the logits, after the last epoch.

    Two examples' inner product is the empirical NTK summed over the classes, sum over k of <grad z_k(x), grad z_k(x')>
    (its trace).  The RBF kernel is over the distances that follow from it, as for every other density here.

    Args:
        checkpoint: `memory["metrics"]` gets the bandwidth as `density/bandwidth_tangent`, by epoch.
        dimension: of the sketch that stands for the gradients of all logits together.
        probes: backward passes in place of one for every class.  Classes are dealt into so many groups at random, and
            the sum of a group's logits, each with a random sign, is differentiated; the same for all examples.  With K
            the c x c block of the NTK of two examples, the expectation is the trace of K, and the variance twice the
            sum of squares of what lies off the diagonal of its symmetric part and within a group.  0, or as many as
            there are classes: every logit, without this error.  On 60 images of CIFAR-10, ResNet-8 late in training,
            densities rank as the exact ones to Spearman .994 with 5 probes, .971 with 4, .952 with 1; means of 4 draws.

    The paper names the kernel and leaves a density on it open.
    """
    return _tangent(checkpoint, dimension, probes)


def _tangent(checkpoint: Checkpoint, dimension: int, probes: int) -> np.ndarray:
    if dimension < 1 or probes < 0:
        raise RecipeError(
            "tangent densities: dimension is above 0, such as 512, and probes is 0 or above, such as 5, "
            f"not {dimension} and {probes}"
        )
    frozen, n = Frozen(checkpoint), checkpoint.dataset.n_train
    logit_gradients = signed_logits(checkpoint, probes) if probes else _each_logit
    return _sums(
        checkpoint,
        [Factor(sketches(frozen, n, logit_gradients, dimension, checkpoint.stream, share=0.5))],
        0.5,
        "tangent",
    )


def signed_logits(checkpoint: Checkpoint, probes: int) -> LogitGradients:
    """Gradients of sums of a few logits each, with random signs; see `tangent_density_last`."""
    rng, classes = checkpoint.stream("tangent probes"), checkpoint.dataset.n_classes
    probes = min(probes, classes)
    signs = np.zeros((probes, classes))
    signs[np.arange(classes) % probes, rng.permutation(classes)] = rng.choice([-1.0, 1.0], classes)

    def logit_gradients(logits: Tensor, labels: Tensor) -> Tensor:
        del labels
        return torch.from_numpy(signs).to(logits).unsqueeze(1).expand(probes, *logits.shape)

    return logit_gradients


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return loss_gradient(logits, labels).unsqueeze(0)


def _each_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """(c, b, c), the gradients of the logits themselves."""
    del labels
    classes = logits.shape[1]
    return torch.eye(classes, dtype=logits.dtype, device=logits.device).unsqueeze(1).expand(classes, *logits.shape)


def _sums(checkpoint: Checkpoint, factors: list[Factor], share: float, what: str) -> np.ndarray:
    labels = checkpoint.snapshot.examples.labels[: checkpoint.dataset.n_train]
    tell = checkpoint.progress and (lambda done: checkpoint.progress(share + (1 - share) * done))
    sums, bandwidth = gradient_class_sums(factors, labels, checkpoint.dataset.n_classes, progress=tell)
    checkpoint.memory.setdefault("metrics", {}).setdefault(checkpoint.epoch, {})[f"density/bandwidth_{what}"] = (
        bandwidth
    )
    return sums
