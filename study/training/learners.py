"""From a job to a network that can take steps.  in: Jobs, a Dataset, a Placement   out: a learner"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from study.data import Dataset
from study.models.build import create, stackable
from study.models.mlp import MLP
from study.training.cuda_graphs import RECORDING
from study.training.device_data import Examples
from study.training.engines import mlp_native
from study.training.evaluation import Learner
from study.training.mlp import MLPLearner
from study.training.modules import ModuleLearner
from study.training.placement import Placement
from study.training.types import Job

PREPARE_ROWS = 5000


class SpareLearner:
    """A learner whose steps were captured, for the next job of its kind; a thread has one of its own."""

    def __init__(self) -> None:
        self.kind: tuple | None = None
        self.learner: ModuleLearner | None = None

    def take(self, job: Job) -> ModuleLearner | None:
        """The learner, if it is of this job's kind; else it is dropped."""
        learner = self.learner if self.kind == _kind(job) else None
        self.kind = self.learner = None
        return learner

    def put(self, job: Job, learner: Learner) -> None:
        """Keep the learner of a job that has ended."""
        if isinstance(learner, ModuleLearner):
            self.kind, self.learner = _kind(job), learner


def _kind(job: Job) -> tuple:
    """What a captured step holds fast; the rate is filled in."""
    return job.network, replace(job.optimizer, lr=0.0), job.training


def build_network(job: Job, dataset: Dataset) -> torch.nn.Module:
    """The job's network with initial weights from its own stream."""
    seed = int(job.stream("init").integers(2**63))
    return create(job.network, dataset.shape, dataset.n_classes, seed=seed)


def stack_learner(networks: Sequence[torch.nn.Module], jobs: Sequence[Job], placement: Placement) -> MLPLearner:
    """One learner of all these MLPs, each with its job's optimizer."""
    optimizers = [job.optimizer for job in jobs]
    where = (placement.device, placement.master, placement.compute)
    return MLPLearner(networks, optimizers, *where, loss=jobs[0].training.loss)


def new_learner(
    job: Job, examples: Examples, dataset: Dataset, placement: Placement, spare: SpareLearner | None = None
) -> Learner:
    """The learner of a job that trains alone; with `spare` its steps are captured, or its network takes the place of
    one whose steps were.
    """
    network = build_network(job, dataset)
    where = (placement.device, placement.master, placement.compute)
    loss = job.training.loss
    if stackable(job.network):
        native = placement.kernel == "native" and network.blocks  # the kernel has no linear classifier
        if native and mlp_native.trains(job.optimizer, placement.compute):
            batch = int(max(np.diff(job.training.edges(len(job.rows)))))
            return mlp_native.NativeLearner(network, job.optimizer, *where[1:], batch, loss=loss)
        return MLPLearner([network], job.optimizer, *where, loss=loss)
    network = network.to(placement.device, placement.master)
    if hasattr(network, "prepare"):
        with RECORDING if placement.device != "cpu" else nullcontext():  # solvers may wait for the whole device
            _prepare(network, job, examples)
    learner = spare.take(job) if spare else None
    if learner:
        learner.load(network)
        return learner
    way = {"loss": loss, "layout": placement.layout, "captured": spare is not None}
    return ModuleLearner(network, job.optimizer, *where, **way)


def trained_learner(network: torch.nn.Module, job: Job, placement: Placement) -> Learner:
    """The learner of a network that has its weights, to put examples through it."""
    where = (placement.device, placement.master, placement.compute)
    if stackable(job.network):
        return MLPLearner([cast(MLP, network)], job.optimizer, *where, loss=job.training.loss)
    network = network.to(placement.device, placement.master)
    return ModuleLearner(network, job.optimizer, *where, loss=job.training.loss, layout=placement.layout)


@torch.no_grad()
def _prepare(network: torch.nn.Module, job: Job, examples: Examples) -> None:
    """Let a network whose initial weights depend on the data see 5,000 of its own training examples, or all.

    Evenly spread, since some data sets lie sorted by class.
    """
    spread = np.linspace(0, len(job.rows) - 1, min(PREPARE_ROWS, len(job.rows))).astype(int)
    rows = torch.from_numpy(job.rows[spread]).to(examples.labels.device)
    network.prepare(examples.batch(rows))


@contextmanager
def seeded(job: Job) -> Iterator[None]:
    """Torch's global generators, seeded for one job (dropout draws from them) and put back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(job.stream("dropout").integers(2**63)))
        yield
