"""A Recorder in Lightning's Trainer.  in: batches and logits of the training   out: epochs in the recorder"""

from collections.abc import Callable, Iterable
from typing import Any

from study.errors import DataError, PluginError
from study.recorder.recorder import Recorder

try:
    from lightning.pytorch.callbacks import Callback  # pyright: ignore[reportMissingImports]  optional
except ImportError:
    Callback = object


class RecorderCallback(Callback):  # pyright: ignore[reportGeneralTypeIssues]  optional
    """Records what a LightningModule predicts for its training batches.

    `training_step` gives {"loss": loss, "logits": logits}; the last item of a batch is the ids, as `Recorder.evaluate`
    expects it too.  Checkpoints of the Trainer hold the recorder's epoch: a training that goes on from one of them
    records from there.

    Args:
        recorder: of the training examples.
        loader: over the examples, (inputs, ..., ids); evaluated at the end of each epoch.  None: the trace of the
            training alone.
        ids_of: takes a batch, gives its ids, where they are not its last item.

    Raises:
        PluginError: Lightning is not installed.
        DataError: a step without logits, or what `Recorder.update` refuses.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        loader: Iterable[Any] | None = None,
        ids_of: Callable[[Any], Any] | None = None,
    ) -> None:
        if Callback is object:
            raise PluginError("the callback needs Lightning; pip install lightning")
        self.recorder, self.loader = recorder, loader
        self.ids_of = ids_of or (lambda batch: batch[-1])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record a batch; its logits were made before the step."""
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        if logits is None:
            raise DataError("training_step gives no logits; return {'loss': loss, 'logits': logits}")
        self.recorder.update(self.ids_of(batch), logits)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End the recorder's epoch, and evaluate where there is a loader."""
        self.recorder.end_epoch()
        if self.loader is not None:
            unpack = lambda batch: (batch[0], self.ids_of(batch))  # noqa: E731
            self.recorder.evaluate(pl_module, self.loader, unpack=unpack)

    def state_dict(self) -> dict[str, Any]:
        """The epochs recorded, for the Trainer's checkpoint."""
        return {"epoch": self.recorder.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forget what was recorded after the checkpoint."""
        self.recorder.resume_from(int(state_dict["epoch"]))
