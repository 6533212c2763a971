"""Signals of a trace that was recorded elsewhere.  in: a Trace   out: arrays as proxies read them"""

from collections.abc import Sequence

import numpy as np

from study.errors import DataError
from study.proxies import PROXIES, Spec, get
from study.recorder.examples import Examples
from study.recorder.statistics import LATEST, PREDICTED, missing, present
from study.recorder.trace import Trace
from study.signals.collector import LAST
from study.signals.logit_statistics import SERIES

TRACED = ("confidence", "top_confidence", *SERIES)


class Signals:
    """What proxies can read of a trace, on the train examples that were seen at least once.

    source: "end" where epoch ends were evaluated, else "online".
    epochs_seen: (n,) number of epochs of `source` in which an example was seen.
    rows: (n,) bool, the examples that have scores.
    """

    def __init__(self, trace: Trace, examples: Examples) -> None:
        self.trace, self.examples = trace, examples
        self.source = "end" if any(trace.epochs("end")) else "online"
        self.epochs = [epoch for epoch in trace.epochs(self.source) if epoch]
        if not self.epochs:
            raise DataError("no epoch was recorded; call update in the training loop, or evaluate at epoch ends")
        self.epochs_seen = sum(trace.seen(self.source, epoch).astype(np.int64) for epoch in self.epochs)
        self.rows = (self.epochs_seen > 0) & (examples.split == "train")
        if not self.rows.any():
            raise DataError("no train example was recorded; the ids of the batches are those of test examples")
        self.names = self._names()

    def readable(self, wanted: Sequence[str] | None) -> list[Spec]:
        """The proxies that can be computed, or those wanted.

        Raises:
            RecipeError: an unknown proxy.
            DataError: a wanted one needs other signals.
        """
        if wanted is None:
            specs = [spec for spec in PROXIES.values() if spec.on == "train" and set(spec.signals) <= self.names]
            return [spec for spec in specs if set(spec.signals) != {"labels"}]
        for spec in map(get, wanted):
            lacking = sorted(set(spec.signals) - self.names)
            if lacking or spec.on != "train":
                needed = ", ".join(lacking) or "test examples"
                raise DataError(f"proxy {spec.name!r} reads {needed}, which was not recorded; leave it out")
        return [get(name) for name in wanted]

    def kind(self, spec: Spec) -> str:
        """The trace that a proxy reads."""
        return "online" if "online_correct" in spec.signals else self.source

    def array(self, name: str) -> np.ndarray:
        """One signal, restricted to `rows`; shapes as in `study.proxies.SIGNALS`."""
        labels = self.examples.labels
        if name == "labels":
            assert labels is not None
            return labels[self.rows]
        if name in ("correct", "online_correct"):
            source = "online" if name == "online_correct" else self.source
            return self._series(source, PREDICTED) == self.array("labels")
        if name == PREDICTED:
            return self._series(self.source, name, [0, *self.epochs])
        if name in LAST:
            return self._series(self.source, LAST[name])[-1]
        if name in LATEST:
            return self.trace.array(self.source, self.epochs[-1], name)[self.rows]
        return self._series(self.source, name)

    def _series(self, source: str, name: str, epochs: Sequence[int] | None = None) -> np.ndarray:
        """(e, r) of the rows, gaps filled from the epoch before, or from the first one."""
        epochs = [each for each in self.trace.epochs(source) if each] if epochs is None else epochs
        kept = (self.trace.array(source, epoch, name)[self.rows] for epoch in epochs)
        first = next(kept)
        series = np.empty((len(epochs), *first.shape), first.dtype)  # one copy: at 90 epochs of ImageNet 460 MB
        series[0] = first
        for place, values in enumerate(kept, 1):
            series[place] = values
        return filled(series, missing(name))

    def _names(self) -> set[str]:
        """The signals that every epoch has."""
        trace, source = self.trace, self.source
        recorded = set.intersection(*(trace.names(source, epoch) for epoch in self.epochs))
        names = {name for name in TRACED if name in recorded} | {name for name, of in LAST.items() if of in recorded}
        names |= {"labels"} if self.examples.labels is not None else set()
        if PREDICTED in recorded:
            names |= {"correct"} | ({PREDICTED} if 0 in trace.epochs(source) else set())
            last = self.epochs[-1]
            complete = trace.seen(source, last)[self.rows].all()
            names |= trace.names(source, last) & set(LATEST) if complete else set()
        online = [epoch for epoch in trace.epochs("online") if PREDICTED in trace.names("online", epoch)]
        if online and np.any([trace.seen("online", epoch) for epoch in online], axis=0)[self.rows].all():
            names.add("online_correct")
        return names


def filled(series: np.ndarray, gap: float) -> np.ndarray:
    """Fill gaps along the first axis with the value before, or where there is none with the first value.

    Args:
        series: (e, n); every column has a value.
        gap: what marks a gap, NaN or a number.
    """
    there = present(series, gap)
    if there.all():
        return series
    numbers = np.arange(len(series))[:, None]
    before = np.maximum.accumulate(np.where(there, numbers, -1), axis=0)
    index = np.where(before < 0, there.argmax(axis=0), before)
    return np.take_along_axis(series, index, axis=0)
