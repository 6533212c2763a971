"""Margins of the output.  in: margins of all epochs (e, n) or of one checkpoint (n,)   out: scores (n,)"""

import numpy as np

from study.proxies.registry import FloatArray, proxy

OUTPUT_MARGIN = {
    "family": "margin",
    "easy": "high",
    "unit": "logits",
    "source": "Baldock, Sec. 3.3 (B-margin)",
    "blind_to": ("flip",),
    "single_checkpoint": True,
    "cost": "pass",
}


@proxy(
    family="margin",
    easy="high",
    unit="logits",
    label="area under the margin (AUM)",
    source="Pleiss et al. 2020, AUM",
)
def aum(margin: FloatArray) -> FloatArray:
    """Mean over the epochs of the label's logit minus the largest other logit, at epoch ends: area under the margin.

    Args:
        margin: (e, n) on training rows.

    Returns:
        (n,) high means easy, below 0 for an example that is mostly taken for another class.  The source evaluates when
        an example's batch comes by, we at epoch ends.
    """
    return margin.mean(axis=0, dtype=np.float64)


@proxy(**OUTPUT_MARGIN, label="output margin")
def output_margin(output_margin_now: FloatArray) -> FloatArray:
    """Difference between the largest and the second largest logit at one checkpoint of training.

    Args:
        output_margin_now: (n,) on training rows; after the last epoch for a final score.

    Returns:
        (n,) 0 and up, high means easy.  It does not use the label, so a confidently mistaken example ranks as easy.
        The paper takes its logarithm, which ranks the same.
    """
    return output_margin_now.astype(np.float64)


@proxy(**OUTPUT_MARGIN, on="test", label="output margin, test")
def output_margin_test(output_margin_now: FloatArray) -> FloatArray:
    """Difference between the largest and the second largest logit of a test example; see `output_margin`.

    Args:
        output_margin_now: (n,) on test rows.

    Returns:
        (n,) 0 and up, high means easy.
    """
    return output_margin_now.astype(np.float64)


@proxy(
    family="margin",
    easy="high",
    unit="probability",
    label="softmax margin",
    source="B-margin, of probabilities instead of logits",
    ties="many at 1 late in training, where float32 saturates",
    blind_to=("flip",),
    single_checkpoint=True,
    cost="pass",
)
def softmax_margin(softmax_margin_now: FloatArray) -> FloatArray:
    """Difference between the largest and the second largest softmax probability at one checkpoint of training.

    Args:
        softmax_margin_now: (n,) on training rows; after the last epoch for a final score.

    Returns:
        (n,) 0 to 1, high means easy.  With two classes it ranks as the output margin does; with more, the other
        logits count too.  It does not use the label.
    """
    return softmax_margin_now.astype(np.float64)
