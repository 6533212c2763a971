"""Prediction depths of an ensemble's members.  in: looks at members as they end   out: depths (m, n), shard by shard"""

import threading
from collections.abc import Sequence

import numpy as np

from study.data import Dataset
from study.errors import Stopped
from study.proxies.depth import majority, prediction_depth, undefined
from study.recipe import Recipe
from study.signals.activations import Layers
from study.signals.knn_probes import NEIGHBORS, polls
from study.signals.registry import Checkpoint
from study.training.evaluation import Snapshot
from study.training.job import Member


def member_depth(moment: Checkpoint, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction depth of all examples in a network that was trained on some of them (B-fig7).

    Args:
        moment: after the last pass of a network that trains alone.
        subset: row numbers that it was trained on, rising: what its probes are made of.  Another example is no
            neighbour; one of these is its own nearest, as in the source `probes`.

    Returns:
        (n,) int8, 0 the input to l - 1 the softmax, -1 where undefined (int16 for more than 128 layers); (n,) int16,
        the network's answer in the master precision, which the depth goes by.  A network that has left the finite
        numbers has no depths.

    Raises:
        DataError: fewer than 30 examples in the subset.
    """
    layers = Layers(moment)
    small = np.min_scalar_type(-len(layers.names))
    final = layers.answers()
    if moment.look.outcome().diverged:
        return np.full(moment.dataset.n, -1, dtype=small), final
    answers = np.stack([majority(each) for each in polls(moment, layers, subset, NEIGHBORS)])
    return np.where(undefined(answers, final), -1, prediction_depth(answers, final)).astype(small), final


class MemberDepths:
    """Takes the depths of members after their last pass, and gives them back in the order that is asked for.

    It may be called from several threads, each of which trains a member.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: str, stop: threading.Event) -> None:
        self.recipe, self.dataset, self.device, self.stop = recipe, dataset, device, stop
        self.found: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}

    def take(self, member: Member, epoch: int, look: Snapshot) -> None:
        """Ask the probes of a member, if this is the end of its last pass; `Hooks.after_epoch` of a training.

        Raises:
            Stopped: `stop` was set.
        """
        if epoch == self.recipe.train.length(len(member.subset))[0]:
            heard = (self.device, self.recipe.stream, self._progress)
            moment = Checkpoint(self.dataset, epoch, look, *heard, spec=self.recipe.model.spec())
            self.found[member.words] = member_depth(moment, member.subset)

    def _progress(self, share: float) -> None:
        if self.stop.is_set():
            raise Stopped

    def pop(self, members: Sequence[tuple[object, ...]]) -> dict[str, np.ndarray]:
        """Give the arrays of these members, by their words, as members.npz keeps them, and forget them.

        Returns:
            depth (m, n) int8, see `member_depth`; final (m, n) classes in the smallest type; nothing where none were
            taken.
        """
        if not self.found:
            return {}
        depth, final = map(np.stack, zip(*(self.found.pop(words) for words in members), strict=True))
        return {"depth": depth, "final": final.astype(np.min_scalar_type(self.dataset.n_classes - 1))}
