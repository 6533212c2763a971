"""Prediction depths of an ensemble's members.  in: snapshots of trained members   out: depths (m, n) by shard"""

import threading
from collections.abc import Sequence

import numpy as np

from study.data import Dataset
from study.errors import Stopped
from study.proxies.depth import majority, prediction_depth, undefined
from study.signals.activations import Layers
from study.signals.knn_probes import NEIGHBORS, polls
from study.signals.registry import Checkpoint
from study.training.evaluation import Snapshot
from study.training.results import AnyOf
from study.training.types import Job, JobTemplate


def member_depth(checkpoint: Checkpoint, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction depth of all examples in a network that was trained on some of them (B-fig7).

    Args:
        checkpoint: after the last epoch of a network that trains alone.
        subset: row numbers that it was trained on, rising: what its probes are made of.  Another example is no
            neighbour; one of these is its own nearest, as in the source `probes`.

    Returns:
        (n,) int8, 0 the input to l - 1 the softmax, -1 where undefined (int16 for more than 128 layers); (n,) int16,
        the network's prediction in the master precision, which the depth goes by.  A network that has left the finite
        numbers has no depths.

    Raises:
        DataError: fewer than 30 examples in the subset.
    """
    layers = Layers(checkpoint)
    small = np.min_scalar_type(-len(layers.names))
    final = layers.predictions()
    if checkpoint.snapshot.outcome().diverged:
        return np.full(checkpoint.dataset.n, -1, dtype=small), final
    classes = np.stack([majority(each) for each in polls(checkpoint, layers, subset, NEIGHBORS)])
    return np.where(undefined(classes, final), -1, prediction_depth(classes, final)).astype(small), final


class MemberDepths:
    """Takes the depths of members after their last epoch, and gives them back in any order.

    It may be called from several threads, each of which trains a member.
    """

    def __init__(self, template: JobTemplate, dataset: Dataset, device: str, stop: threading.Event | AnyOf) -> None:
        self.template, self.dataset, self.device, self.stop = template, dataset, device, stop
        self.depths: dict[object, tuple[np.ndarray, np.ndarray]] = {}

    def take(self, job: Job, epoch: int, snapshot: Snapshot) -> None:
        """Search the k nearest neighbours in the layers of a member, if this is the end of its last epoch; for
        `Hooks.after_epoch`.

        Raises:
            Stopped: `stop` was set.
        """
        if epoch == job.training.length(len(job.rows))[0]:
            where = (self.device, self.template.stream, self._progress)
            checkpoint = Checkpoint(self.dataset, epoch, snapshot, *where, spec=job.network)
            self.depths[job.key] = member_depth(checkpoint, job.rows)

    def _progress(self, share: float) -> None:
        if self.stop.is_set():
            raise Stopped

    def pop(self, members: Sequence[object]) -> dict[str, np.ndarray]:
        """Give the arrays of these members, by their jobs' keys, as members.npz keeps them, and forget them.

        Returns:
            depth (m, n) int8, see `member_depth`; final (m, n) classes in the smallest type; nothing where none were
            taken.
        """
        if not self.depths:
            return {}
        depth, final = map(np.stack, zip(*(self.depths.pop(key) for key in members), strict=True))
        return {"depth": depth, "final": final.astype(np.min_scalar_type(self.dataset.n_classes - 1))}
