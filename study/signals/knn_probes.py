"""k-NN probes after every layer of a trained network.  in: a checkpoint   out: their classes (l, n)"""

from collections.abc import Iterator

import numpy as np

from study.kernels.kde import Progress
from study.kernels.knn import nearest, votes
from study.proxies.depth import majority, undefined
from study.signals.activations import Layers
from study.signals.registry import Checkpoint, source

KEPT = 2**27  # votes up to this number are kept with the run
NEIGHBORS = 30  # the paper's k


@source("probe_class", "probe_confidence", "final_class", when="last")
def probes(checkpoint: Checkpoint, *, k: int = NEIGHBORS, own_neighbor: bool = True) -> dict[str, np.ndarray]:
    """Evaluate k-NN probes, made of the training rows, after the input, each placement and the softmax (B-depth, A.5).

    Args:
        checkpoint: after the last pass.
        k: neighbours; the paper's 30, to which it finds its results insensitive down to 3 (B-k).
        own_neighbor: whether a training example is its own nearest neighbour.  The paper makes its probes "from the
            embeddings of the training set" and excludes nothing, so it is; without it the probes of training rows
            leave the example out.  Test rows are not among the neighbours either way.

    Returns:
        probe_class (l, n) int16, the majority of the neighbours' labels, ties to the lowest class; probe_confidence
        (l, n) float32, the share of neighbours with the labelled class ("fraction of votes", Fig. 8); final_class (n,)
        int16, the class that the network predicts.  Neighbours vote with the labels as trained on.  All n examples,
        train rows then test rows.

    The run's probes.npz keeps these, the layers' names, and votes (l, n, c) up to 128 million, from which the
    confidence in any other class follows (consensus class, original label).  `depth/undefined_train` and
    `depth/undefined_test` count the examples without a depth.

    Memory: 1.5 GiB of features of one layer, and `that of `nearest`; a wider layer is computed again tile by tile.
    """
    layers, dataset = Layers(checkpoint), checkpoint.dataset
    counts = list(polls(checkpoint, layers, np.arange(dataset.n_train), k, own_neighbor))
    classes = np.stack([majority(each) for each in counts]).astype(np.int16)
    confidence = np.stack([each[np.arange(dataset.n), dataset.labels] for each in counts]) / np.float32(k)
    final = layers.predictions()
    _record(checkpoint, layers.names, classes, confidence, final, counts)
    return {"probe_class": classes, "probe_confidence": confidence, "final_class": final}


def polls(
    checkpoint: Checkpoint, layers: Layers, subset: np.ndarray, k: int, own_neighbor: bool = True
) -> Iterator[np.ndarray]:
    """Votes of the k nearest neighbours of every example among a subset, (n, c) counts, layer by layer.

    Args:
        checkpoint: whose labels vote, and whose progress is told.
        layers: of the network at this checkpoint.
        subset: row numbers, rising.
        k: number of neighbours.
        own_neighbor: whether an example of the subset is its own neighbour.
    """
    dataset = checkpoint.dataset
    rest = np.delete(np.arange(dataset.n), subset)
    for number, name in enumerate(layers.names):
        counts = np.empty((dataset.n, dataset.n_classes), dtype=np.min_scalar_type(k))
        searched, done = layers.chosen(name, subset), 0
        for queried in (subset, rest):
            if len(queried):
                inside = queried is subset
                queries = None if inside else layers.chosen(name, queried)
                begin, done = number + done / dataset.n, done + len(queried)
                progress = _part(checkpoint, begin, number + done / dataset.n, len(layers.names))
                _, rows = nearest(
                    searched, k, queries=queries, exclude_self=inside and not own_neighbor, progress=progress
                )
                counts[queried] = votes(rows, dataset.labels[subset], dataset.n_classes)
        del searched, queries
        yield counts


def _part(checkpoint: Checkpoint, begin: float, end: float, whole: int) -> Progress | None:
    if checkpoint.progress is None:
        return None
    return lambda share: checkpoint.progress((begin + share * (end - begin)) / whole)


def _record(
    checkpoint: Checkpoint,
    names: tuple[str, ...],
    classes: np.ndarray,
    confidence: np.ndarray,
    final: np.ndarray,
    counts: list[np.ndarray],
) -> None:
    lost = undefined(classes, final)
    for split in ("train", "test"):
        checkpoint.log(f"depth/undefined_{split}", np.count_nonzero(lost[checkpoint.dataset.rows(split)]))
    checkpoint.keep("layers", np.array(names))
    checkpoint.keep("probe_class", classes)
    checkpoint.keep("probe_confidence", confidence.astype(np.float16))
    checkpoint.keep("final_class", final)
    if sum(each.size for each in counts) <= KEPT:
        checkpoint.keep("votes", np.stack(counts))
