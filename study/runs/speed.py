"""How fast networks train here, by trying.  in: a JobTemplate, a Dataset, a Placement   out: seconds per example"""

import time
from dataclasses import replace

import numpy as np

from study.data import Dataset
from study.training.autotune import measured_rate
from study.training.fit import fit
from study.training.placement import Placement
from study.training.types import JobTemplate

PROBE_S = 0.5  # a trial of this length is long enough to extrapolate from


def seconds_per_example(template: JobTemplate, dataset: Dataset, placement: Placement) -> tuple[float, float]:
    """Measure (training, evaluating) seconds per example with as many networks as train side by side.

    Where a probe has chosen the placement, its rates are taken.  Else from two batches on, four times as many, until a
    trial takes PROBE_S or has seen all training examples; the first trial is not counted, since the first convolutions
    of a process take seconds.  An evaluation is then taken as a third of a step, by its FLOPs.  Of several devices one
    is measured.
    """
    measured = measured_rate(template, dataset, placement)
    placement, *others = placement.split()
    devices = 1 + len(others)
    if measured:
        return measured.train / devices, measured.evaluate / devices
    one_epoch = replace(template, training=replace(template.training, epochs=1, steps=None))
    size, warm = 2 * template.training.batch_size or dataset.n_train, False
    while True:
        rows = np.arange(min(size, dataset.n_train))
        small = replace(
            dataset, images=dataset.images[rows], labels=dataset.labels[rows], ids=dataset.ids[rows], n_train=len(rows)
        )
        jobs = [one_epoch.job(("plan", index), rows) for index in range(placement.threads * placement.stack)]
        start = time.perf_counter()
        list(fit(jobs, small, placement))
        seconds = time.perf_counter() - start
        if warm and (seconds > PROBE_S or len(rows) == dataset.n_train):
            break
        size, warm = size * 4 if seconds <= PROBE_S else size, True
    per_example = seconds / (len(jobs) * len(rows) * 4 / 3) / devices
    return per_example, per_example / 3
