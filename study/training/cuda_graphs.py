"""A step that is recorded once and replayed.  in: a function on tensors that stay where they are   out: its outputs

On a GPU a step of a small network is some forty operations of microseconds each, and starting them from Python takes
longer than running them.  A CUDA graph starts all of them at once.  It freezes whatever Python saw while it was
recorded, so the function may read nothing that changes but tensors, and must write its results into the same ones.
"""

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from study.progress import say

WARM = 3  # runs before the recording: libraries choose their kernels and take their workspaces
RECORDING = threading.Lock()  # held while a step is recorded: meanwhile nobody may wait for the whole device


class Captured:
    """A function with inputs of its own; a CUDA graph on a GPU, the function itself elsewhere.

    A driver's refusal to record is logged, and the function then runs as it does elsewhere.

    Args:
        function: takes nothing, reads `inputs` and tensors that stay where they are, gives tensors.
        inputs: what each call fills in.
        state: every tensor that the function changes; the runs before the recording leave no trace in them.
    """

    def __init__(
        self, function: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor], state: Sequence[Tensor]
    ) -> None:
        self.function = function
        self.inputs = tuple(inputs)
        self.replay: Callable[[], Sequence[Tensor]] = function
        if state[0].is_cuda:
            with RECORDING:  # a recording begins by waiting for the whole device, which one beside it forbids
                self.replay = self._recorded(state)

    def __call__(self, *values: Tensor | float) -> Sequence[Tensor]:
        """Fill the inputs in and run; the outputs are overwritten by the next call."""
        for place, value in zip(self.inputs, values, strict=True):
            place.copy_(value, non_blocking=True) if isinstance(value, Tensor) else place.fill_(value)
        return self.replay()

    def _recorded(self, state: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
        with torch.cuda.device(state[0].device):
            aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                before = [tensor.detach().clone() for tensor in state]
                for _ in range(WARM):
                    self.function()
                for tensor, was in zip(state, before, strict=True):
                    tensor.detach().copy_(was)
                del before
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            try:
                # other threads pin memory and read results meanwhile, which is no part of the step
                with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                    outputs = self.function()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                say(f"steps start one operation at a time: {str(error).splitlines()[0]}")
                return self.function

        def replay() -> Sequence[Tensor]:
            graph.replay()
            return outputs

        return replay
