"""What signals cost beyond the steps of the training.  in: a piece of work   out: seconds, FLOPs"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from study.models.flops import FlopCounter


@dataclass
class Cost:
    """Seconds and FLOPs spent so far, and in how many goes.

    seconds: on the clock, of this machine with all else that it does.
    flops: of matrix products, convolutions and attention, 2 per multiplication and addition, as torch's flop counter
        has them, but for the backward passes of convolutions; elementwise work, matrix times vector and numpy's work
        are not counted.  Of the calling thread and its backward passes alone.
    """

    seconds: float = 0.0
    flops: int = 0
    times: int = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add what the work inside takes; work that fails does not count."""
        counter, begun = FlopCounter(), time.perf_counter()
        with counter:
            yield
        self.seconds += time.perf_counter() - begun
        self.flops += counter.flops
        self.times += 1

    def once(self) -> "Cost":
        """The mean of one go."""
        return Cost(self.seconds / self.times, self.flops // self.times, 1) if self.times else Cost()

    def __add__(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(self.seconds + other.seconds, self.flops + other.flops, self.times + other.times)
