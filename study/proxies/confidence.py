"""Softmax confidence and loss.  in: probabilities, losses, (n,) or by epoch (e, n)   out: scores (n,)"""

import numpy as np

from study.proxies.registry import FloatArray, proxy


@proxy(
    family="confidence",
    easy="high",
    unit="probability",
    label="confidence of the label",
    source="Jiang, Sec. 4.3 and Fig. 9b, p_L (J-fig9b)",
    ties="many at 1 late in training, where float32 saturates",
    single_checkpoint=True,
    cost="pass",
)
def target_confidence(target_confidence_now: FloatArray) -> FloatArray:
    """Softmax probability of the labelled class at one checkpoint of training, p_L.

    Args:
        target_confidence_now: (n,) on training rows; after the last epoch for a final score.

    Returns:
        (n,) 0 to 1, high means easy.
    """
    return target_confidence_now.astype(np.float64)


@proxy(
    family="confidence",
    easy="high",
    unit="probability",
    label="confidence of the prediction",
    source="Jiang, Sec. 4.3 and Fig. 9b, p_max (J-fig9b)",
    ties="many at 1 late in training, where float32 saturates",
    blind_to=("flip",),
    single_checkpoint=True,
    cost="pass",
)
def top_confidence(top_confidence_now: FloatArray) -> FloatArray:
    """Softmax probability of the predicted class at one checkpoint of training, p_max.

    Args:
        top_confidence_now: (n,) on training rows; after the last epoch for a final score.

    Returns:
        (n,) 1 / c to 1, high means easy.  It does not use the label, so a confidently mistaken one ranks as easy;
        far from all data a network may be confident too.
    """
    return top_confidence_now.astype(np.float64)


@proxy(
    family="confidence",
    easy="high",
    unit="probability",
    label="cumulative confidence",
    source="p_L of Jiang, Fig. 9b, averaged over epochs as J-cbtl averages correctness; Swayamdipta et al. 2020",
)
def cumulative_confidence(confidence: FloatArray) -> FloatArray:
    """Mean over the epochs of the softmax probability of the labelled class, at epoch ends.

    Args:
        confidence: (e, n) on training rows.

    Returns:
        (n,) 0 to 1, high means easy: CBTL without its ties.  Jiang reports p_L per epoch only, not this mean; it is
        the `confidence` of data maps (Swayamdipta et al. 2020), whose other axis is `variability`.
    """
    return confidence.mean(axis=0, dtype=np.float64)


@proxy(
    family="confidence",
    easy="low",
    unit="probability",
    label="variability of the confidence",
    source="Swayamdipta et al. 2020, variability (data maps)",
    ties="rare; 0 for whoever is certain from the first epoch on",
    never_learned="no special case: near 0 where the label never gets a probability",
    blind_to=("flip", "stray"),
    stage_dependent=True,
)
def variability(confidence: FloatArray) -> FloatArray:
    """Standard deviation over the epochs of the softmax probability of the labelled class, at epoch ends.

    Args:
        confidence: (e, n) on training rows.

    Returns:
        (n,) 0 to .5, over e, not e - 1, as in the source.  High means ambiguous, so low is declared easy.  That holds
        once the network has learned every example by heart; before, it never comes to believe the hardest, such as
        flipped labels, and they have low variability and low confidence.  Read it beside `cumulative_confidence`.
    """
    return confidence.std(axis=0, dtype=np.float64)


@proxy(
    family="confidence",
    easy="low",
    unit="nats",
    label="cumulative loss",
    source="the loss of J-cbtl before binarization, averaged over epochs",
)
def cumulative_loss(loss: FloatArray) -> FloatArray:
    """Mean over the epochs of the cross-entropy of the label, at epoch ends.

    Args:
        loss: (e, n) nats, on training rows; of log-softmax, whatever loss the network is trained with.

    Returns:
        (n,) 0 and up, low means easy.  Unlike `cumulative_confidence` it has no ceiling: one epoch of certain error
        outweighs many of doubt.
    """
    return loss.mean(axis=0, dtype=np.float64)


@proxy(
    family="confidence",
    easy="low",
    unit="1",
    label="error norm (EL2N)",
    source="Paul et al. 2021, EL2N",
    single_checkpoint=True,
)
def el2n(error_norm: FloatArray, *, epoch: int = 0) -> FloatArray:
    """Euclidean norm of the error, softmax minus one-hot label, early in training: EL2N.

    Args:
        error_norm: (e, n) on training rows.
        epoch: the epoch looked at, 1 to e, at whose end it is taken; 0 for a tenth of the training, at least the
            first, as the source takes epoch 20 of 200.

    Returns:
        (n,) 0 to sqrt(2), low means easy.  The source means it over some ten networks; a run is one of them, so
        average over repeats.

    Raises:
        ValueError: no such epoch.
    """
    if not 0 <= epoch <= len(error_norm):
        raise ValueError(f"epoch = {epoch}, and the training has 1 to {len(error_norm)}; 0 takes a tenth of them")
    return error_norm[(epoch or max(1, round(len(error_norm) / 10))) - 1].astype(np.float64)
