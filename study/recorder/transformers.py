"""A Recorder in Hugging Face's Trainer.  in: batches and logits of the training   out: epochs in the recorder"""

from collections.abc import Mapping
from typing import Any

import torch

from study.errors import DataError, PluginError
from study.recorder.recorder import Recorder, evaluation_mode

try:
    from transformers import TrainerCallback
except ImportError:
    TrainerCallback = object

IDS = "ids"


class RecorderCallback(TrainerCallback):  # pyright: ignore[reportGeneralTypeIssues]  optional
    """Records what a model predicts for its training batches.

    A callback of this Trainer does not get the logits, so hooks on the forward pass take them.  The data set has
    a column of ids, which is taken from the batch before the model gets it; `TrainingArguments` need
    `remove_unused_columns=False`, so that the Trainer leaves it in.

    Args:
        recorder: of the training examples.
        column: the ids in a batch.
        evaluate: also pass the training data in evaluation mode at the end of each epoch.

    Raises:
        PluginError: transformers is not installed.
        DataError: a batch without ids, or what `Recorder.update` refuses.
    """

    def __init__(self, recorder: Recorder, *, column: str = IDS, evaluate: bool = False) -> None:
        if TrainerCallback is object:
            raise PluginError("the callback needs transformers; pip install transformers accelerate")
        self.recorder, self.column, self.evaluate = recorder, column, evaluate
        self._ids: Any = None
        self._hooks: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Hang the hooks in; of a training that goes on, forget what was recorded after its checkpoint."""
        if state.global_step:
            self.recorder.resume_from(int(state.epoch or 0))
        self._hooks = [
            model.register_forward_pre_hook(self._take_ids, with_kwargs=True),
            model.register_forward_hook(self._take_logits),
        ]

    def on_epoch_end(
        self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **others: Any
    ) -> None:
        """End the recorder's epoch, and evaluate if that was asked for."""
        self.recorder.end_epoch()
        if self.evaluate:
            with torch.no_grad(), evaluation_mode(model):
                unpack = lambda batch: (batch, batch[self.column])  # noqa: E731
                self.recorder.evaluate(lambda batch: self._predict(model, batch), train_dataloader, unpack=unpack)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()

    def _predict(self, model: Any, batch: Mapping[str, Any]) -> Any:
        return _logits(model(**{name: value.to(model.device) for name, value in batch.items()}))

    def _take_ids(self, model: Any, args: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._ids = batch.get(self.column)
        return args, {name: value for name, value in batch.items() if name != self.column}

    def _take_logits(self, model: Any, args: Any, output: Any) -> None:
        if not model.training:
            return
        if self._ids is None:
            raise DataError(
                f"the batches have no {self.column!r}; give the data set such a column and the arguments "
                "remove_unused_columns=False"
            )
        self.recorder.update(self._ids, _logits(output))


def _logits(output: Any) -> Any:
    return output["logits"] if isinstance(output, Mapping) else output.logits
