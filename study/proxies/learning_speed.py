"""Learning speed.  in: correct (e, n) at epoch ends or online, classes (e + 1, n)   out: counts and epochs (n,)

Jiang, Sec. 4.3, and Zhang, Eq. 1 and 2; on test rows the same functions are Zhang's CBGL and mal-generalizing events.
"""

import numpy as np

from study.proxies.registry import BoolArray, FloatArray, IntArray, proxy

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
        correct: (e, n) on training rows, at the ends of the evaluated epochs (`single.evaluate_every`).

    Returns:
        (n,) 0 to e, high means easy; a count of successes in spite of the papers' name.  Never learned: 0.

    Jiang counts "training epochs in which the instance is classified correctly", which may mean online, as its
    batch comes by; Zhang and we evaluate at epoch ends (Z-online: the two agree to Pearson .9896).
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
    events, the easiest score; e is the choice of Toneva et al.'s code.  They evaluate online, when a batch comes by,
    Zhang and we at epoch ends.

    >>> forgetting_events(np.array([[0, 1, 0], [1, 1, 0], [0, 1, 0]], bool))
    array([1., 0., 3.])
    """
    if len(correct) < 2:
        raise ValueError(
            "events are transitions between epochs; train for two epochs or more (train.epochs) "
            "and evaluate two (single.evaluate_every)"
        )
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


@proxy(
    family="learning speed",
    easy="high",
    unit="epochs",
    label="cumulative binary training loss, online",
    source="Jiang, Sec. 4.3 (J-cbtl), as Zhang, Sec. 3.1 compares (Z-online)",
    ties=TIES,
    never_learned="0, the hardest score",
)
def cbtl_online(online_correct: BoolArray) -> FloatArray:
    """Count the epochs in which a training example is classified correctly as its batch comes by: online CBTL.

    Args:
        online_correct: (e, n) on training rows, before the step on the batch, of the images as they are augmented; a
            pass that `train.steps` cuts short is left out, since it has not seen everyone.

    Returns:
        (n,) 0 to e, high means easy.  It needs no evaluation of all examples; `cbtl` takes one at each epoch end.
    """
    return cbtl(_seen(online_correct))


@proxy(
    family="learning speed",
    easy="low",
    unit="events",
    label="forgetting events, online",
    source="Toneva et al. 2019, Sec. 2, as Zhang, Sec. 3.1 compares (Z-online)",
    ties=TIES,
    never_learned="e, above every count",
)
def forgetting_events_online(online_correct: BoolArray) -> FloatArray:
    """Count how often a training example goes from right to wrong between the times that its batch comes by.

    Args:
        online_correct: (e, n) as in `cbtl_online`.

    Returns:
        (n,) 0 to e // 2, low means easy; never right gets e: see `forgetting_events`, which evaluates at epoch ends.

    Raises:
        ValueError: fewer than two whole passes.
    """
    return forgetting_events(_seen(online_correct))


def _seen(online_correct: BoolArray) -> BoolArray:
    if not len(online_correct):
        raise ValueError("no pass over the training examples was whole; train longer (train.steps)")
    return online_correct


def online_agreement(at_epoch_ends: FloatArray, in_passing: FloatArray) -> tuple[float, float]:
    """How well the counts at epoch ends agree with those taken online (Z-online).

    Returns:
        Pearson correlation, NaN where one of them does not vary, and mean absolute error.  Zhang has .9896 and 1.2614
        for CBTL, .9835 and .6762 for forgetting events (ResNet-110, CIFAR-10, 200 epochs).
    """
    error = float(np.abs(at_epoch_ends - in_passing).mean())
    if not (np.ptp(at_epoch_ends) and np.ptp(in_passing)):
        return float("nan"), error
    return float(np.corrcoef(at_epoch_ends, in_passing)[0, 1]), error


@proxy(
    family="learning speed",
    easy="low",
    unit="95th percentiles",
    label="iteration learned",
    source="Baldock, Sec. 3.2 (B-learned)",
    ties=TIES,
    never_learned="no special case: the network's final class counts, right or wrong",
    blind_to=("flip",),
)
def iteration_learned(predicted: IntArray) -> FloatArray:
    """Find when the class of a training example becomes that of the converged network, and stays.

    Args:
        predicted: (t, n) on training rows, t = e + 1: before the first step and at the end of each epoch.

    Returns:
        (n,) 0 and up, low means easy: the first checkpoint from which on all classes are the last one's, 0 for those
        that have it from initialization on, scaled so that the 95th percentile of the rows is 1.  Where that percentile
        is 0 the numbers stay epochs.

    The paper evaluates after every step, we at epoch ends or, with `single.evaluate_steps`, after every so many steps;
    the converged network is ours after the last epoch.  It gives one percentile per model; ours is over the rows of one
    split, which changes no rank.  The label is not used.
    """
    changed = predicted != predicted[-1]
    learned = np.where(changed.any(axis=0), len(predicted) - changed[::-1].argmax(axis=0), 0)
    return learned / (np.percentile(learned, 95) or 1.0)


@proxy(
    family="learning speed",
    easy="low",
    unit="95th percentiles",
    label="iteration learned, test",
    source="Baldock, Sec. 3.2 (B-learned)",
    on="test",
    ties=TIES,
    never_learned="no special case: the network's final class counts, right or wrong",
    blind_to=("flip",),
)
def iteration_learned_test(predicted: IntArray) -> FloatArray:
    """Find when the class of a test example becomes that of the converged network, and stays.

    Args:
        predicted: (t, n) on test rows.

    Returns:
        (n,) 0 and up, low means easy; see `iteration_learned`.
    """
    return iteration_learned(predicted)
