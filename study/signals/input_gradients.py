"""Gradients with respect to the inputs.  in: a snapshot of the network   out: sensitivity, margins, critical samples

Inputs are the images as the network sees them, normalized and without augmentation, in its master precision.
"""

import numpy as np
import torch
from torch import Tensor

from study.errors import AnalysisError, RecipeError
from study.proxies.sensitivity import gini
from study.signals.derivatives import Frozen, input_gradient, input_jacobian, loss_gradient
from study.signals.registry import Checkpoint, source

CHUNK = 64  # examples that share a stream of noise, so that the search does not depend on the size of a block


@source("loss_sensitivity", when="due", keep="all")
def loss_sensitivity(checkpoint: Checkpoint, *, by_class: bool = True) -> np.ndarray:
    """L1 norm of the gradient of each training example's cross-entropy with respect to its input (A-sensitivity).

    Args:
        checkpoint: `memory["metrics"]` gets `sensitivity/gini`, of the mean over the checkpoints so far, by epoch, and
            `memory["arrays"]` what the run keeps: `class_sensitivity` (w, c, c) and its `epochs` (w,).
        by_class: also take the matrix (A-class): entry i, j is the mean over the training examples of class j of the
            L1 norm of the gradient of -log p_i; NaN for a class without examples.  Costs c backward passes more.

    Returns:
        (n_train,) of this checkpoint.

    Arpit et al. take the loss after t updates, average over t and state the L1 norm; our t are the ends of the due
    epochs.  Whatever loss trains the network, this is the gradient of the cross-entropy of the label.
    """
    frozen, n = Frozen(checkpoint), checkpoint.dataset.n_train
    labels, classes = checkpoint.snapshot.examples.labels[:n], checkpoint.dataset.n_classes
    norms = torch.empty(n, dtype=frozen.dtype, device=frozen.device)
    sums = torch.zeros(classes, classes, dtype=torch.float64, device=frozen.device)
    row = _input_bytes(frozen)
    for rows, images in frozen.blocks(n, frozen.image_bytes() + (2 * classes * row if by_class else row)):
        block = labels[rows]
        gradient = input_gradient(frozen, images, lambda logits, block=block: loss_gradient(logits, block))[1]
        norms[rows] = gradient.flatten(1).norm(p=1, dim=1)
        if by_class:
            sums.index_add_(1, block, _sensitivity_towards(frozen, images).T.double())
    _average(checkpoint, norms)
    if by_class:
        counts = torch.bincount(labels, minlength=classes)
        _keep(checkpoint, (sums / counts).cpu().numpy())
    return norms.cpu().numpy()


def _sensitivity_towards(frozen: Frozen, images: Tensor) -> Tensor:
    """(b, c): the L1 norm of the gradient of -log p_i with respect to the input, for every class i."""
    logits, jacobian = input_jacobian(frozen, images)
    mean = torch.einsum("bc,bcd->bd", torch.softmax(logits, dim=1), jacobian)
    return torch.stack([(mean - jacobian[:, index]).abs_().sum(dim=1) for index in range(jacobian.shape[1])], dim=1)


def _keep(checkpoint: Checkpoint, matrix: np.ndarray) -> None:
    arrays = checkpoint.memory.setdefault("arrays", {})
    for name, array in (("class_sensitivity", matrix), ("epochs", np.int64(checkpoint.epoch))):
        arrays[name] = np.concatenate([arrays[name], array[None]]) if name in arrays else array[None]


def _average(checkpoint: Checkpoint, norms: Tensor) -> None:
    memory = checkpoint.memory
    memory["checkpoints"] = memory.get("checkpoints", 0) + 1
    memory["total"] = memory.get("total", 0) + norms.double()
    if not bool(torch.isfinite(norms).all()):
        raise AnalysisError(f"loss sensitivity is not finite after epoch {checkpoint.epoch}; lower optimizer.lr")
    value = gini((memory["total"] / memory["checkpoints"]).cpu().numpy())
    memory.setdefault("metrics", {}).setdefault(checkpoint.epoch, {})["sensitivity/gini"] = value


@source("critical_steps", when="due")
def critical_samples(
    checkpoint: Checkpoint,
    *,
    radius: float = 0.1,
    step: float = 0.01,
    noise: float = 0.008,
    steps: int = 20,
    sample: int = 1000,
) -> dict[str, np.ndarray]:
    """Search for another class in a small box around each example: Langevin adversarial sample search (A-csr).

    Each step moves every pixel by `step` along the sign of the gradient of the predicted class's cross-entropy and by
    `noise` times a standard normal number, and back into the box; it ends when the class changes.

    Args:
        checkpoint: gets the critical sample ratio, the share of examples with another class in the box, as the metrics
            `sensitivity/critical_ratio_train` and, where there is a test split, `_test`.
        radius: half the side of the box, as a share of the pixel range.
        step, noise: in the same unit.
        steps: at most.
        sample: examples of each split that are searched at due epochs before the last, the same at all of them; the
            ratio then has a standard error of .016 at most for 1000.  0: none, nor a ratio before the last epoch.

    Returns:
        critical_steps (n,) at the last due epoch, steps until the class changed, float32; steps + 1 where it did not.
        Nothing before: the search is dear, and only the ratio is drawn over the epochs.

    Raises:
        RecipeError: a radius, step or number of steps that is not above 0, noise or a sample below 0.

    Source: Arpit 2017, Algorithm 1, as the notes tell it.  Their released search has step : noise = .25 : .2, no bounds
    other than the box, and the gradient at the present point; so has this.  Radius and number of steps are ours.
    """
    if not (radius > 0 and step > 0 and noise >= 0 and steps > 0 and sample >= 0):
        raise RecipeError(
            "signals.critical_samples: radius, step and steps are above 0, noise and sample are not below, "
            f"not {radius}, {step}, {steps}, {noise} and {sample}"
        )
    dataset, frozen = checkpoint.dataset, Frozen(checkpoint)
    chosen = np.arange(dataset.n) if checkpoint.last else _sampled(checkpoint, sample)
    unit = (checkpoint.snapshot.examples.scale * dataset.maximum).to(frozen.dtype)  # the pixel range, in input units
    steps_taken = torch.empty(len(chosen), dtype=torch.float32, device=frozen.device)
    bytes_each = frozen.image_bytes() + 6 * _input_bytes(frozen)
    for rows, images in frozen.blocks(len(chosen), bytes_each, CHUNK, chosen=chosen):
        draws = _Noise(checkpoint, rows.start, images)
        steps_taken[rows] = _search(frozen, images, draws, radius * unit, step * unit, noise * unit, steps)
    counts = steps_taken.cpu().numpy()
    for split in ("train", "test"):
        inside = dataset.split()[chosen] == split
        if inside.any():
            checkpoint.log(f"sensitivity/critical_ratio_{split}", (counts[inside] <= steps).mean())
    return {"critical_steps": counts} if checkpoint.last else {}


def _sampled(checkpoint: Checkpoint, sample: int) -> np.ndarray:
    """Row numbers of so many random examples of each split, or of all there are, rising."""
    rng, (n, n_train) = (
        checkpoint.stream("critical samples", "rows"),
        (checkpoint.dataset.n, checkpoint.dataset.n_train),
    )
    parts = (rng.permutation(n_train)[:sample], n_train + rng.permutation(n - n_train)[:sample])
    return np.sort(np.concatenate(parts))


class _Noise:
    """Standard normal numbers for the examples of one block; every CHUNK of them has its stream."""

    def __init__(self, checkpoint: Checkpoint, low: int, images: Tensor) -> None:
        chunks = range(low // CHUNK, -(-(low + len(images)) // CHUNK))
        self.streams = [checkpoint.stream("critical samples", chunk) for chunk in chunks]
        self.like = images

    def draw(self, rows: Tensor) -> Tensor:
        """(rows, channels, h, w) for rows of the block, in rising order; whatever other rows are drawn for."""
        rows = rows.cpu()
        of, parts = rows // CHUNK, []
        for chunk in torch.unique(of).tolist():
            block = self.streams[chunk].standard_normal((CHUNK, *self.like.shape[1:]), dtype=np.float32)
            parts.append(torch.from_numpy(block)[rows[of == chunk] % CHUNK])
        return torch.cat(parts).to(self.like)


def _search(
    frozen: Frozen,
    images: Tensor,
    draws: _Noise,
    radius: Tensor,
    step: Tensor,
    noise: Tensor,
    steps: int,
) -> Tensor:
    """(b,) steps until the class changed; steps + 1 where it did not.  Examples that are done drop out."""
    counts = torch.full((len(images),), steps + 1.0, device=images.device)
    rows = torch.arange(len(images), device=images.device)
    low, high, here = images - radius, images + radius, images
    start: Tensor | None = None
    for number in range(steps + 1):
        here = here.detach().requires_grad_()
        with torch.enable_grad():
            logits = frozen(here)
            classes = logits.detach().argmax(dim=1)
            start = classes if start is None else start
            (gradient,) = torch.autograd.grad(logits, here, loss_gradient(logits, start))
        stays = classes == start
        counts[rows[~stays]] = number
        if number == steps or not bool(stays.any()):
            break
        rows, start = rows[stays], start[stays]
        moved = here.detach()[stays] + step * gradient[stays].sign() + noise * draws.draw(rows)
        here = torch.minimum(torch.maximum(moved, low[rows]), high[rows])
    return counts


@source("adversarial_margin_now", when="due")
def adversarial_margins(checkpoint: Checkpoint) -> np.ndarray:
    """Adversarial input margin of every example: min over j of |z_i - z_j| / |grad_x (z_i - z_j)|_2 (B-margin).

    Args:
        checkpoint: i is the class that the network predicts, z its logits.

    Returns:
        (n,) 0 and above, in input units.  A class whose logit difference has gradient 0 at this input cannot be reached
        on a straight line and does not count; an example for which that holds of every class gets the largest margin of
        any other example.

    Raises:
        AnalysisError: all these gradients are 0; the network has collapsed.

    Takes c backward passes.
    """
    frozen, n = Frozen(checkpoint), checkpoint.dataset.n
    margins = torch.empty(n, dtype=frozen.dtype, device=frozen.device)
    bytes_each = frozen.image_bytes() + 3 * checkpoint.dataset.n_classes * _input_bytes(frozen)
    for rows, images in frozen.blocks(n, bytes_each):
        logits, jacobian = input_jacobian(frozen, images)
        top = logits.argmax(dim=1, keepdim=True)
        gaps = logits.gather(1, top) - logits
        predicted = jacobian.gather(1, top.unsqueeze(2).expand(-1, 1, jacobian.shape[2]))
        lengths = jacobian.sub_(predicted).norm(dim=2)
        reachable = (lengths > 0).scatter_(1, top, False)
        ratios = torch.where(reachable, gaps / lengths, torch.inf)
        margins[rows] = ratios.amin(dim=1)
    finite = torch.isfinite(margins)
    if not bool(finite.any()):
        raise AnalysisError(
            f"all input gradients are 0 after epoch {checkpoint.epoch}, so there are no margins; lower optimizer.lr"
        )
    return torch.where(finite, margins, margins[finite].max()).cpu().numpy()


@source("logit_gradient_variance", when="due", keep="all")
def logit_gradients_over_time(checkpoint: Checkpoint) -> np.ndarray:
    """Variance over the due epochs so far of the gradient of the label's logit with respect to the input, VoG.

    Args:
        checkpoint: `memory` holds the running mean and sum of squares of every input of every training example: 8 bytes
            each, 376 MB for MNIST and 1.2 GB for CIFAR-10.

    Returns:
        (n_train,) the mean over the inputs of the population variance; 0 at the first due epoch.

    Source: Agarwal et al. 2022, Eq. 1 and 2, for the true label, as they take it on training examples.
    """
    frozen, n, memory = Frozen(checkpoint), checkpoint.dataset.n_train, checkpoint.memory
    labels, width = checkpoint.snapshot.examples.labels[:n], frozen.examples.block(0, 1).numel()
    if not memory:
        memory["mean"], memory["squares"] = (
            torch.zeros(n, width, dtype=frozen.dtype, device=frozen.device) for _ in range(2)
        )
    memory["checkpoints"] = memory.get("checkpoints", 0) + 1
    variances = torch.empty(n, dtype=torch.float64, device=frozen.device)
    for rows, images in frozen.blocks(n, frozen.image_bytes() + 4 * _input_bytes(frozen)):
        block = labels[rows]
        gradient = input_gradient(frozen, images, lambda logits, block=block: _one_hot(logits, block))[1].flatten(1)
        mean, squares = memory["mean"][rows], memory["squares"][rows]
        before = gradient - mean
        mean += before / memory["checkpoints"]
        squares += before.mul_(gradient.sub_(mean))
        variances[rows] = squares.mean(dim=1, dtype=torch.float64) / memory["checkpoints"]
    return variances.cpu().numpy()


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1)


def _input_bytes(frozen: Frozen) -> int:
    return frozen.examples.block(0, 1).numel() * torch.empty(0, dtype=frozen.dtype).element_size()
