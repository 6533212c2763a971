"""How near an example is to another prediction.  in: gradients in the inputs   out: scores (n,), a Gini coefficient

Gradients are taken with respect to the inputs as the network sees them, after normalization.
"""

import numpy as np
from numpy.typing import ArrayLike

from study.proxies.registry import FloatArray, IntArray, proxy

SENSITIVITY = {"family": "sensitivity", "cost": "gradients"}
MARGIN = {
    "family": "margin",
    "easy": "high",
    "unit": "input units",
    "cost": "gradients",
    "source": "Baldock, Sec. 3.3 (B-margin)",
    "ties": "examples whose gradients are all 0 share the largest margin",
    "blind_to": ("flip",),
    "single_checkpoint": True,
}


def gini(scores: ArrayLike) -> float:
    """Gini coefficient of the distribution of non-negative scores: 0 if all are equal, (n - 1) / n if one holds all.

    Half the mean absolute difference of two scores over their mean; 0 for scores that are all 0.

    Raises:
        ValueError: no scores, or some that are negative or not finite.

    Source: Arpit 2017 (A-sensitivity): higher on real data than on random data.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not len(ordered) or not np.isfinite(ordered).all() or ordered[0] < 0:
        raise ValueError("a Gini coefficient needs scores that are finite and not negative")
    n, total = len(ordered), ordered.sum()
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


@proxy(
    **SENSITIVITY,
    easy="low",
    unit="nats per input unit",
    label="loss sensitivity",
    source="Arpit 2017 (A-sensitivity)",
)
def loss_sensitivity(loss_sensitivity: FloatArray) -> FloatArray:
    """L1 norm of the gradient of an example's loss with respect to its input, averaged over training.

    Args:
        loss_sensitivity: (w, n), at each due epoch, as `study.signals.input_gradients.loss_sensitivity` takes it.

    Returns:
        (n,) 0 and above, low means easy.  The average is over the epochs at which it was taken
        (`single.signals_every`), not over every step.
    """
    return loss_sensitivity.mean(axis=0, dtype=np.float64)


@proxy(
    **SENSITIVITY,
    easy="high",
    unit="steps",
    label="steps to another class",
    source="Arpit 2017, critical samples (A-csr)",
    ties="whole numbers; all that are not critical share the highest",
    blind_to=("flip",),
)
def critical_sample_steps(critical_steps: FloatArray) -> FloatArray:
    """Steps of an adversarial search within a small box until the class changes, after the last epoch.

    Args:
        critical_steps: (n,), as `study.signals.input_gradients.critical_samples` counts them.

    Returns:
        (n,) 1 to the most steps allowed, and one more where no other class was found, high means easy.  The paper asks
        only whether one was found; the number of steps says how far away.  Labels play no part.
    """
    return critical_steps.astype(np.float64)


@proxy(**MARGIN, label="adversarial input margin")
def adversarial_margin(adversarial_margin_now: FloatArray) -> FloatArray:
    """Linear estimate of the smallest change of a training input that changes the class, at one checkpoint.

    Args:
        adversarial_margin_now: (n,) min over j of |z_i - z_j| / |grad_x (z_i - z_j)|, i the predicted class.

    Returns:
        (n,) 0 and above, high means easy.  The label plays no part.
    """
    return adversarial_margin_now.astype(np.float64)


@proxy(**MARGIN, on="test", label="adversarial input margin, test")
def adversarial_margin_test(adversarial_margin_now: FloatArray) -> FloatArray:
    """Linear estimate of the smallest change of a test input that changes the class; see `adversarial_margin`.

    The paper takes it on test examples (Fig. 6).
    """
    return adversarial_margin_now.astype(np.float64)


@proxy(
    **SENSITIVITY,
    easy="low",
    unit="standard deviations",
    label="variance of gradients",
    source="Agarwal et al. 2022, Eq. 1 to 3 (not in the inventory)",
)
def variance_of_gradients(
    logit_gradient_variance: FloatArray, labels: IntArray, *, within_class: bool = True
) -> FloatArray:
    """How much the gradient of the label's logit with respect to the input varies from epoch to epoch, VoG.

    Args:
        logit_gradient_variance: (w, n), mean over the input of the variance so far, at each due epoch.
        labels: (n,).
        within_class: less the mean of its class, over the standard deviation of its class, as the paper normalizes; a
            class whose scores are all equal gets 0.  Without it the unit is squared logits per input unit.

    Returns:
        (n,) low means easy.

    The paper's formula is typeset as the root of 1/K times the sum of K squares: a constant times the variance, which
    is taken here.  Read as the root of the whole it would be the standard deviation, whose mean over the input ranks
    otherwise.

    Raises:
        ValueError: fewer than two due epochs; there is nothing that varies.
    """
    if len(logit_gradient_variance) < 2:
        raise ValueError(
            "gradients vary from epoch to epoch, and only one epoch is due; "
            "lower single.signals_every or raise train.epochs"
        )
    scores = logit_gradient_variance[-1].astype(np.float64)
    if not within_class:
        return scores
    count = np.bincount(labels).clip(min=1)
    off = scores - (np.bincount(labels, scores) / count)[labels]
    deviation = np.sqrt(np.bincount(labels, off**2) / count)[labels]
    flat = deviation <= 1e-12 * np.abs(scores).max(initial=0)
    return np.divide(off, deviation, out=np.zeros_like(off), where=~flat)
