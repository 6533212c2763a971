"""What the ways of training jobs side by side have in common.  in: a Dataset, a Placement, hooks   out: a Context

An engine asks for the next job whenever it has room and gives results as they come, both in the caller's thread:

    for job, result in engine.results(next_job):
        match result:
            case Evaluation(): ...  # at the end of an epoch; `result.end()` ends the job
            case Outcome(): ...  # the job is over
            case Failure(): ...  # it cannot be trained here
"""

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.models import build
from study.models.spec import NetworkSpec
from study.training.device_data import Examples
from study.training.placement import Placement
from study.training.results import Hooks, Result, Validation
from study.training.types import Job

NextJob = Callable[[], Job | None]
"""The next job, or None where there is none at present; asked again after each result."""


class Engine(Protocol):
    """A way of training jobs side by side."""

    context: "Context"

    def results(self, next_job: NextJob, idle: Callable[[], None] = lambda: None) -> Generator[tuple[Job, Result]]:
        """Train until there is no job any more; `idle` is called about once a second.

        Raises:
            Stopped: `hooks.stop` was set.
        """
        ...


@dataclass
class Context:
    """What all jobs of an engine share; the examples are on the device once for each way of scaling them.

    ahead: jobs that are taken before there is room for them; 0 where what comes next depends on the results.
    """

    dataset: Dataset
    placement: Placement
    hooks: Hooks = field(default_factory=Hooks)
    validation: Validation | None = None
    ahead: int = 0
    _examples: dict[tuple, Examples] = field(default_factory=dict, init=False, repr=False)
    _random: list[tuple[NetworkSpec, bool]] = field(default_factory=list, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def examples(self, job: Job) -> Examples:
        """The examples as this job's network sees them."""
        training = job.training
        dtype = self.placement.compute if build.stackable(job.network) else self.placement.master
        way = (training.normalize, training.pad, training.flip, dtype)
        with self._lock:
            if way not in self._examples:
                self._examples[way] = Examples(self.dataset, training, self.placement.device, dtype)
                if self.placement.device != "cpu":  # it is there before other streams read it
                    torch.cuda.synchronize(self.placement.device)
            return self._examples[way]

    def draws_random_numbers(self, network: NetworkSpec) -> bool:
        """Whether a training pass of this network draws from torch's global generator."""
        with self._lock:
            for before, random in self._random:
                if before == network:
                    return random
            random = build.draws_random_numbers(network, self.dataset.shape, self.dataset.n_classes)
            self._random.append((network, random))
            return random

    @cached_property
    def validation_rows(self) -> Tensor:
        """(v,) on the device."""
        return torch.from_numpy(self.validation.rows).to(self.placement.device)

    @cached_property
    def final_rows(self) -> Tensor | None:
        """The rows of the Outcomes, on the device; None for all examples."""
        rows = self.validation and self.validation.final
        return None if rows is None else torch.from_numpy(rows).to(self.placement.device)

    def is_due(self, epoch: int, last: bool, loss: float) -> bool:
        """Whether an Evaluation follows this epoch; a network that leaves the finite numbers says so at once."""
        if self.validation is None:
            return False
        return last or epoch % self.validation.every == 0 or not np.isfinite(loss)
