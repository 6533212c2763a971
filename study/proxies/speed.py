"""Learning speed.  in: correct (e, n) at epoch ends   out: counts and epochs (n,)

Jiang, Sec. 4.3, and Zhang, Eq. 1 and 2; on test rows the same functions are Zhang's CBGL and mal-generalizing events.
"""

import numpy as np

from study.proxies.registry import BoolArray, FloatArray, proxy

TIES = "many: counts of epochs; midranks, never broken"


@proxy(
    family="learning speed",
    easy="high",
    unit="epochs",
    label="cumulative binary training loss",
    source="Jiang, Sec. 4.3 (J-cbtl); Zhang, Eq. 2 (Z-cbtl)",
    ties=TIES,
    never_learned="0, the hardest score",
)
def cbtl(correct: BoolArray) -> FloatArray:
    """Count the epochs at whose end a training example is classified correctly: cumulative binary training loss.

    Args:
        correct: (e, n) on training rows.

    Returns:
        (n,) 0 to e, high means easy; a count of successes in spite of the papers' name.  Never learned: 0.

    Jiang counts "training epochs in which the instance is classified correctly", which may mean in passing, as its
    batch comes by; Zhang and we look at epoch ends (Z-online: the two agree to Pearson .9896).
    """
    return correct.sum(axis=0).astype(np.float64)


@proxy(
    family="learning speed",
    easy="high",
    unit="epochs",
    label="cumulative binary generalizing loss",
    source="Zhang, Sec. 2.2 and Eq. 2 (Z-cbgl)",
    on="test",
    ties=TIES,
    never_learned="0, the hardest score",
)
def cbgl(correct: BoolArray) -> FloatArray:
    """Count the epochs at whose end a test example is classified correctly: cumulative binary generalizing loss.

    Args:
        correct: (e, n) on test rows.

    Returns:
        (n,) 0 to e, high means easy.  Never generalized: 0.
    """
    return cbtl(correct)


@proxy(
    family="learning speed",
    easy="low",
    unit="events",
    label="forgetting events",
    source="Zhang, Eq. 1 (Z-forget), after Toneva et al. 2019, Sec. 2",
    ties=TIES,
    never_learned="e, above every count",
)
def forgetting_events(correct: BoolArray) -> FloatArray:
    """Count how often a training example goes from right to wrong between consecutive epoch ends.

    Args:
        correct: (e, n) on training rows.

    Returns:
        (n,) 0 to e // 2, low means easy; an example that was never right gets e, above every count: hardest.

    Raises:
        ValueError: fewer than two epochs; there is no transition to count.

    Zhang's sum starts at the untrained network, ours after the first epoch.  Zhang's formula gives the never learned 0
    events, the easiest score; e is the choice of Toneva et al.'s code.  They look when a batch comes by, Zhang and we
    at epoch ends.

    >>> forgetting_events(np.array([[0, 1, 0], [1, 1, 0], [0, 1, 0]], bool))
    array([1., 0., 3.])
    """
    if len(correct) < 2:
        raise ValueError("events are transitions between epochs; train for two epochs or more (train.epochs)")
    correct = correct.astype(bool)
    events = np.count_nonzero(correct[:-1] & ~correct[1:], axis=0)
    return np.where(correct.any(axis=0), events, len(correct)).astype(np.float64)


@proxy(
    family="learning speed",
    easy="low",
    unit="events",
    label="mal-generalizing events",
    source="Zhang, Sec. 2.2 and Eq. 1 (Z-malgen)",
    on="test",
    ties=TIES,
    never_learned="e, above every count",
)
def malgeneralizing_events(correct: BoolArray) -> FloatArray:
    """Count how often a test example goes from right to wrong between consecutive epoch ends.

    Args:
        correct: (e, n) on test rows.

    Returns:
        (n,) 0 to e // 2, low means easy; never right gets e, by Zhang's formula 0; see `forgetting_events`.

    Raises:
        ValueError: fewer than two epochs.
    """
    return forgetting_events(correct)


@proxy(
    family="learning speed",
    easy="low",
    unit="epoch",
    label="first epoch learned",
    source="Jiang, Sec. 4.3 (named there, and set aside for J-cbtl)",
    ties=TIES,
    never_learned="e + 1",
)
def first_epoch_learned(correct: BoolArray) -> FloatArray:
    """Find the first epoch at whose end a training example is classified correctly.

    Args:
        correct: (e, n) on training rows.

    Returns:
        (n,) 1 to e, low means easy; never learned gets e + 1.  Later forgetting does not count, which is why Jiang
        prefers the cumulative count.
    """
    correct = correct.astype(bool)
    return np.where(correct.any(axis=0), correct.argmax(axis=0) + 1, len(correct) + 1).astype(np.float64)
