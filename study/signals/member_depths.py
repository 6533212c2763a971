"""Prediction depths of an ensemble's members.  in: snapshots of trained members   out: depths, probes by shard"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from study.data import Dataset
from study.errors import Stopped
from study.proxies.depth import majority, prediction_depth, undefined
from study.signals.activations import Layers
from study.signals.knn_probes import KEPT, NEIGHBORS, polls
from study.signals.registry import Checkpoint
from study.training.evaluation import Snapshot
from study.training.results import AnyOf
from study.training.types import Job, JobTemplate


class MemberDepth(NamedTuple):
    """Prediction depths in one member, and what its probes say of examples that it was not trained on.

    depth: (n,) int8, 0 the input to l - 1 the softmax, -1 where undefined (int16 for more than 128 layers).
    final: (n,) int16, the network's prediction in the master precision, which the depth goes by.
    votes: (l, r, c) votes of the k neighbours of each other example, layer by layer; None where that is much.
    """

    depth: np.ndarray
    final: np.ndarray
    votes: np.ndarray | None


def member_depth(checkpoint: Checkpoint, subset: np.ndarray) -> MemberDepth:
    """Prediction depth of all examples in a network that was trained on some of them (B-fig7, B-fig8).

    Args:
        checkpoint: after the last epoch of a network that trains alone.
        subset: row numbers that it was trained on, rising: what its probes are made of.  Another example is no
            neighbour; one of these is its own nearest, as in the source `probes`.

    Returns:
        A network that has left the finite numbers has no depths and no votes.

    Raises:
        DataError: fewer than 30 examples in the subset.
    """
    layers, dataset = Layers(checkpoint), checkpoint.dataset
    small = np.min_scalar_type(-len(layers.names))
    final = layers.predictions()
    if checkpoint.snapshot.outcome().diverged:
        return MemberDepth(np.full(dataset.n, -1, dtype=small), final, None)
    rest = np.delete(np.arange(dataset.n), subset)
    kept = len(layers.names) * dataset.n * dataset.n_classes <= KEPT
    classes, votes = [], []
    for each in polls(checkpoint, layers, subset, NEIGHBORS):
        classes.append(majority(each))
        votes += [each[rest]] if kept else []
    depth = np.where(undefined(np.stack(classes), final), -1, prediction_depth(np.stack(classes), final))
    return MemberDepth(depth.astype(small), final, np.stack(votes) if kept else None)


class MemberDepths:
    """Takes the depths of members after their last epoch, and gives them back in any order.

    It may be called from several threads, each of which trains a member.
    """

    def __init__(self, template: JobTemplate, dataset: Dataset, device: str, stop: threading.Event | AnyOf) -> None:
        self.template, self.dataset, self.device, self.stop = template, dataset, device, stop
        self.depths: dict[object, MemberDepth] = {}
        self.rows: dict[object, np.ndarray] = {}

    def take(self, job: Job, epoch: int, snapshot: Snapshot) -> None:
        """Search the k nearest neighbours in the layers of a member, if this is the end of its last epoch; for
        `Hooks.after_epoch`.

        Raises:
            Stopped: `stop` was set.
        """
        if epoch == job.training.length(len(job.rows))[0]:
            where = (self.device, self.template.stream, self._progress)
            checkpoint = Checkpoint(self.dataset, epoch, snapshot, *where, spec=job.network)
            self.rows[job.key] = job.rows
            self.depths[job.key] = member_depth(checkpoint, job.rows)

    def _progress(self, share: float) -> None:
        if self.stop.is_set():
            raise Stopped

    def pop(self, members: Sequence[object]) -> dict[str, np.ndarray]:
        """Give the arrays of these members, by their jobs' keys, as members.npz keeps them, and forget them.

        Returns:
            depth (m, n) int8, see `MemberDepth`; final (m, n) classes in the smallest type; over the members' other
            examples probe_votes (l, n, c), the sum of their neighbours' votes, and probe_class (l, n, c), how many
            probes predict a class.  Nothing where no depths were taken.
        """
        if not self.depths:
            return {}
        taken = [self.depths.pop(key) for key in members]
        rows = [self.rows.pop(key) for key in members]
        small = np.min_scalar_type(self.dataset.n_classes - 1)
        arrays = {
            "depth": np.stack([each.depth for each in taken]),
            "final": np.stack([each.final for each in taken]).astype(small),
        }
        sums = [(each.votes, subset) for each, subset in zip(taken, rows, strict=True) if each.votes is not None]
        return arrays | (self._sums(sums) if sums else {})

    def _sums(self, members: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
        """Votes (l, r, c) of members with the rows that each was trained on, as sums over all examples."""
        layers, _, classes = members[0][0].shape
        total = np.zeros((2, layers, self.dataset.n, classes), dtype=np.uint16)
        for votes, subset in members:
            rest = np.delete(np.arange(self.dataset.n), subset)
            total[0][:, rest] += votes
            for layer, predicted in enumerate(map(majority, votes)):
                total[1][layer, rest, predicted] += 1
        return {"probe_votes": total[0], "probe_class": total[1]}
