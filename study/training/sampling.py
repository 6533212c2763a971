"""Which examples an epoch takes.  in: a Job with a Sampling   out: rows in the order in which they are trained on

An epoch always takes as many examples as the job has rows, so lengths and schedules stay what they are.
"""

import numpy as np

from study.training.types import Job, Sampling


def paced_share(sampling: Sampling, progress: float) -> float:
    """The share of the ranked examples that may be taken (pacing function of Wu, Dyer and Neyshabur 2021).

    Args:
        sampling: start b, end a, and the shape: linear b + (1 - b) t / a, root its square root in t / a, quadratic
            its square, step b until a.
        progress: t, 0 to 1.

    >>> paced_share(Sampling(order="easy-first", start=0.5, end=0.5), 0.25)
    0.75
    """
    grown = min(1.0, progress / sampling.end)
    power = {"linear": 1.0, "root": 0.5, "quadratic": 2.0}.get(sampling.pacing)
    grown = float(grown >= 1) if power is None else grown**power
    return sampling.start + (1 - sampling.start) * grown


def sampled_rows(job: Job, sampling: Sampling, epoch: int) -> np.ndarray:
    """The rows of an epoch (0-based), (n_subset,): a part of them several times over, or drawn by weight.

    From the streams that the job alone draws from, so it is the same wherever the job trains.
    """
    rng, rows, weights = job.stream("order", epoch), job.rows, sampling.weights
    n = len(rows)
    if sampling.order != "shuffled":
        epochs = job.training.length(n)[0]
        first = max(1, round(paced_share(sampling, epoch / epochs) * n))
        taken = np.sort(_ranking(job, sampling)[:first])
        rows, weights = rows[taken], None if weights is None else weights[taken]
    if weights is not None and weights.any():
        return rng.choice(rows, n, p=weights / weights.sum())
    return np.concatenate([rng.permutation(rows) for _ in range(-(-n // len(rows)))])[:n]


def _ranking(job: Job, sampling: Sampling) -> np.ndarray:
    """Places of the job's rows, the first to be taken first; equal scores in an order of the job's own."""
    shuffled = job.stream("order", "ranking").random(len(job.rows))
    if sampling.order == "random" or sampling.scores is None:
        return np.argsort(shuffled)
    return np.lexsort([shuffled, sampling.scores if sampling.order == "hard-first" else -sampling.scores])
