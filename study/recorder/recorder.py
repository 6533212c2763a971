"""Keeps what a training loop knows of each example.  in: logits by id, batch by batch   out: proxies by id"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from study.errors import AnalysisError, DataError, did_you_mean
from study.proxies import compute
from study.recorder.examples import Examples
from study.recorder.signals import Signals
from study.recorder.statistics import LOGITS, STATISTICS, EpochBuffers, missing, of_logits, present
from study.recorder.trace import EXAMPLES, KINDS, Trace, read_arrays, read_header

Unpack = Callable[[Any], tuple[Any, Any]]


class Recorder:
    """Records a training loop that is not the project's, and computes the proxies that its trace allows.

        recorder = study.Recorder(ids, labels, n_classes=10)
        for epoch in range(epochs):
            for images, targets, batch_ids in loader:
                logits = model(images)
                recorder.update(batch_ids, logits)
                ...
            recorder.evaluate(model, evaluation_loader)  # optional: all examples at the end of the epoch
        scores = recorder.scores()

    Two traces are kept apart: "online", the predictions that the loop makes before the step on a batch, and "end",
    those of an evaluation at an epoch's end.  Proxies read the trace of epoch ends where there is one, else the online
    one; `scores().attrs["trace"]` says which.

    Args:
        ids: (n,) integers or text, each once.  An int n stands for 0..n-1.
        labels: (n,) classes 0..c-1, as trained on; None where only losses are recorded.
        n_classes: c; None: one more than the largest label.
        split: (n,) "train" or "test"; None: all are train examples.  Proxies are scores of train examples.
        folder: where each epoch is written at its end, so that a crash loses one epoch at most and memory holds one
            epoch alone; a folder that has epochs of the same examples is continued.  None: in memory, 26 bytes per
            example and epoch.
        keep_logits: also keep the logits of every epoch, (n, c) float16.
        auto_end: end the epoch when an id comes again.  Set it to False for a sampler that draws an example several
            times, and call `end_epoch`; the last update then counts.  Ids on a GPU cannot be compared without waiting
            for it: there an epoch ends by itself once n examples were passed.

    Raises:
        DataError: ids, labels or split that cannot be used, or a folder of other examples.

    >>> recorder = Recorder(3, [0, 1, 1])
    >>> recorder.update([2, 0, 1], np.array([[0.0, 2.0], [1.0, 0.0], [1.0, 0.0]]))
    >>> recorder.scores(["cbtl"])["cbtl"].tolist()
    [1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        ids: Any,
        labels: Any = None,
        *,
        n_classes: int | None = None,
        split: Any = None,
        folder: str | os.PathLike[str] | None = None,
        keep_logits: bool = False,
        auto_end: bool = True,
    ) -> None:
        self.examples = Examples(ids, labels, n_classes, split)
        self.keep_logits, self.auto_end = keep_logits, auto_end
        self.trace = Trace(self.examples.arrays(), Path(folder) if folder is not None else None)
        self.epoch = max((epoch for kind in KINDS for epoch in self.trace.epochs(kind)), default=0)
        self._begin()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Recorder":
        """Open what `save`, or a recorder with a folder, has written; it can go on.

        Raises:
            StoreError: the folder holds no trace, or a damaged one.
        """
        read_header(Path(folder))
        with read_arrays(Path(folder) / EXAMPLES) as arrays:
            labels = arrays["labels"] if len(arrays["labels"]) else None
            n_classes = int(arrays["n_classes"][0]) or None
            return cls(arrays["ids"], labels, n_classes=n_classes, split=arrays["split"], folder=folder)

    def update(self, ids: Any, logits: Any = None, *, loss: Any = None) -> None:
        """Record the predictions of one training batch, made before its step.

        Nothing waits for the device: statistics go to buffers beside the logits and are read at the epoch's end.

        Args:
            ids: (b,) of the batch.
            logits: (b, c), torch on any device or numpy; their gradients are not touched.
            loss: (b,) losses of the examples, in place of logits; then only proxies of the loss can be computed.

        Raises:
            DataError: an unknown id, or shapes that do not fit.
        """
        rows = self.examples.rows(ids)
        if self.auto_end and self._comes_again(rows):
            self.end_epoch()
        self._passed += len(rows)
        if isinstance(rows, np.ndarray):
            self._seen[rows] = True
        self._online.write(*self._statistics(rows, logits, loss))

    def end_epoch(self) -> None:
        """End the epoch under way; without updates since the last end nothing happens.

        Raises:
            DataError: unknown ids that came on a device.
        """
        if not self._passed:
            return
        self.examples.check()
        self._add("online", self._online)
        self._begin()

    def resume_from(self, epoch: int) -> None:
        """Forget the epochs after this one; for a loop that goes on from a checkpoint of its own."""
        self.trace.drop_after(epoch)
        self.epoch = min(self.epoch, epoch)
        self._begin()

    def evaluate(
        self,
        model: nn.Module | Callable[[Any], Any],
        loader: Iterable[Any],
        *,
        unpack: Unpack | None = None,
        untrained: bool = False,
    ) -> None:
        """Pass examples through a model in evaluation mode, and record them as the end of the epoch.

        An epoch under way is ended first.

        Args:
            model: gives logits (b, c).  A module is put into evaluation mode and back, and gets inputs on its device;
                any other function gets them as they are.
            loader: batches, whose first item is the input and whose last is the ids.
            unpack: takes a batch, gives inputs and ids, where batches are otherwise.
            untrained: this is the model before its first step, which the proxy `iteration_learned` reads.

        Raises:
            DataError: no batch, an unknown id, or shapes that do not fit.
        """
        self.end_epoch()
        buffers = EpochBuffers(self.examples.n)
        with evaluation_mode(model) as predict:
            for batch in loader:
                inputs, ids = unpack(batch) if unpack else (batch[0], batch[-1])
                buffers.write(*self._statistics(self.examples.rows(ids), predict(inputs), None))
        self.examples.check()
        if buffers.empty:
            raise DataError("the loader gave no batch; pass one over the examples to be evaluated")
        if untrained:
            self.trace.add("end", 0, buffers.arrays())
        else:
            self._add("end", buffers)

    def add_epoch(self, ids: Any, logits: Any = None, *, kind: str = "end", **statistics: Any) -> None:
        """Record a whole epoch at once, of predictions made elsewhere.

        Args:
            ids: (m,) of the examples.
            logits: (m, c).
            kind: "end" of predictions at the epoch's end, "online" of those made in training.
            statistics: (m,) `loss`, `margin`, `confidence`, `top_confidence`, `error_norm`, `entropy` or `predicted`
                classes in place of logits.

        Raises:
            DataError: an unknown id, a kind or a statistic that there is not, or shapes that do not fit.
        """
        unknown = sorted(set(statistics) - set(STATISTICS))
        if kind not in KINDS or unknown:
            name, names = (unknown[0], STATISTICS) if unknown else (kind, KINDS)
            raise DataError(f"{name!r} is not recorded{did_you_mean(name, names)}")
        self.end_epoch()
        rows, buffers = self.examples.rows(ids), EpochBuffers(self.examples.n)
        if logits is not None:
            buffers.write(*self._statistics(rows, logits, None))
        for name, values in statistics.items():
            array = _tensor(values)
            if array.shape != (len(rows),):
                raise DataError(f"{name} is {tuple(array.shape)}, not {(len(rows),)} for as many ids")
            buffers.write(torch.as_tensor(rows), {name: array})
        self._add(kind, buffers)

    def scores(self, proxies: Sequence[str] | None = None) -> pd.DataFrame:
        """Compute every proxy that the trace allows, or those named.

        Returns:
            One row per example, indexed by id: label, split, `epochs_seen`, and a column per proxy, float64.  An
            example that was not seen in an epoch keeps its statistics of the epoch before, or takes those of its first
            one.  One that was never seen, and test examples, have NaN.  `attrs["trace"]` names the trace of each proxy,
            `attrs["left_out"]` proxies that refuse this trace, such as those that need two epochs, and why.

        Raises:
            RecipeError: an unknown proxy.
            DataError: nothing recorded, or a named proxy that needs what was not recorded.
            AnalysisError: a named proxy that refuses this trace.
        """
        self.end_epoch()
        return self._table(Signals(self.trace, self.examples), proxies)

    def _table(self, signals: Signals, proxies: Sequence[str] | None) -> pd.DataFrame:
        specs = signals.readable(proxies)
        table = pd.DataFrame(index=pd.Index(self.examples.ids, name="id"))
        if self.examples.labels is not None:
            table["label"] = self.examples.labels
        table["split"], table["epochs_seen"] = self.examples.split, signals.epochs_seen
        table.attrs |= {"trace": {}, "left_out": {}}
        for spec in specs:
            try:
                scores = compute(spec, {name: signals.array(name) for name in spec.signals})
            except AnalysisError as error:  # such as too few epochs
                if proxies is not None:
                    raise
                table.attrs["left_out"][spec.name] = str(error)
                continue
            table[spec.name] = np.nan
            table.loc[signals.rows, spec.name] = scores
            table.attrs["trace"][spec.name] = signals.kind(spec)
        return table

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the examples and all epochs to a folder, for `load`.

        Raises:
            StoreError: the folder cannot be written.
        """
        self.end_epoch()
        copy_trace(self.trace, Trace(self.examples.arrays(), Path(folder)))

    def log(
        self, store: Any, experiment: str, *, name: str = "recorded", params: Mapping[str, object] | None = None
    ) -> str:
        """Make a finished run in MLflow of what was recorded: accuracy and loss by epoch, scores, trajectory.

        Args:
            store: a folder such as "mlruns", or an MLflow tracking URI.
            experiment: its name in MLflow, such as "my-images/recorded".
            name: of the run.
            params: hyper-parameters of the loop, for the comparison in the MLflow UI.

        Returns:
            The id of the run; `study.open(store)` and `study show` read it.

        Raises:
            StoreError: a store that cannot be opened or written.
            DataError: nothing recorded.
        """
        from study.recorder.mlflow_run import log_run  # MLflow takes a second to import

        self.end_epoch()
        signals = Signals(self.trace, self.examples)
        return log_run(signals, self._table(signals, None), store, experiment, name, params or {}).id

    def _add(self, kind: str, buffers: EpochBuffers) -> None:
        """Keep an epoch; one that has the other kind alone gets this one beside it."""
        if not self.epoch or self.epoch in self.trace.epochs(kind):
            self.epoch += 1
        self.trace.add(kind, self.epoch, buffers.arrays())

    def _begin(self) -> None:
        self._online, self._passed = EpochBuffers(self.examples.n), 0
        self._seen = np.zeros(self.examples.n, dtype=bool)

    def _comes_again(self, rows: np.ndarray | Tensor) -> bool:
        if isinstance(rows, np.ndarray):
            return bool(self._seen[rows].any())
        return self._passed >= self.examples.n

    def _statistics(self, rows: np.ndarray | Tensor, logits: Any, loss: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows on the device of the predictions, and what is kept of these."""
        if (logits is None) == (loss is None):
            raise DataError("pass logits, or losses as loss=..., not both")
        values = _tensor(logits if loss is None else loss)
        rows = torch.as_tensor(rows).to(values.device, non_blocking=True)
        shape = (len(rows),) if loss is not None else (len(rows), self.examples.n_classes)
        if tuple(values.shape) != shape:
            what = "loss" if loss is not None else "logits"
            raise DataError(f"{what} are {tuple(values.shape)}, not {shape} for {len(rows)} ids")
        if loss is not None:
            return rows, {"loss": values.float()}
        kept = {LOGITS: values} if self.keep_logits else {}
        return rows, of_logits(values, self.examples.labels_of(rows)) | kept


@contextmanager
def evaluation_mode(model: nn.Module | Callable[[Any], Any]) -> Iterator[Callable[[Any], Any]]:
    """A function from inputs to logits without gradients, in evaluation mode; the mode is put back at the end."""
    if not isinstance(model, nn.Module):
        yield model
        return
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield lambda inputs: model(torch.as_tensor(inputs).to(device))
    finally:
        model.train(training)


def _tensor(values: Any) -> Tensor:
    """Without gradients; numpy arrays that cannot be written are copied."""
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.require(values, requirements="W"))


def copy_trace(origin: Trace, target: Trace) -> None:
    """Write all epochs of a trace to another one."""
    for kind in KINDS:
        for epoch in origin.epochs(kind):
            target.add(kind, epoch, origin.arrays(kind, epoch))


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of one epoch; of an example that several parts have the first one counts."""
    shared = set.intersection(*map(set, parts))
    joined = {name: array.copy() for name, array in parts[0].items() if name in shared}
    for part in parts[1:]:
        for name, array in joined.items():
            gaps = ~present(array, missing(name))
            array[gaps] = part[name][gaps]
    return joined


def merge(parts: Sequence[Recorder | str | os.PathLike[str]]) -> Recorder:
    """Join what the ranks of a distributed training recorded, each a part of every epoch.

    Args:
        parts: recorders made with the same ids and labels, or their folders.  Of an example that several saw in one
            epoch the first part counts.

    Raises:
        DataError: no parts, or other examples.
    """
    recorders = [each if isinstance(each, Recorder) else Recorder.load(each) for each in parts]
    if not recorders:
        raise DataError("nothing to merge; pass recorders or their folders")
    first = recorders[0].examples
    for each in recorders:
        each.end_epoch()
        if not first.same_as(each.examples):
            raise DataError("the parts were recorded with other ids, labels or splits; make all with the same ones")
    whole = Recorder(first.ids, first.labels, n_classes=first.n_classes or None, split=first.split)
    for kind in KINDS:
        for epoch in sorted({epoch for each in recorders for epoch in each.trace.epochs(kind)}):
            held = [each.trace.arrays(kind, epoch) for each in recorders if epoch in each.trace.epochs(kind)]
            whole.trace.add(kind, epoch, _joined(held))
            whole.epoch = max(whole.epoch, epoch)
    return whole
