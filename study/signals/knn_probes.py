"""k-NN probes after every layer of a trained network.  in: a moment   out: their answers (l, n)"""

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
def probes(moment: Checkpoint, *, k: int = NEIGHBORS, own_neighbor: bool = True) -> dict[str, np.ndarray]:
    """Ask k-NN probes, made of the training rows, after the input, each placement and the softmax (B-depth, A.5).

    Args:
        moment: after the last pass.
        k: neighbours; the paper's 30, to which it finds its results insensitive down to 3 (B-k).
        own_neighbor: whether a training example is its own nearest neighbour.  The paper makes its probes "from the
            embeddings of the training set" and excludes nothing, so it is; without it the probes of training rows
            leave the example out.  Test rows are not among the neighbours either way.

    Returns:
        probe_class (l, n) int16, the majority of the neighbours' labels, ties to the lowest class; probe_confidence
        (l, n) float32, the share of neighbours with the labelled class ("fraction of votes", Fig. 8); final_class (n,)
        int16, the network's own answer.  Neighbours vote with the labels as trained on.  All n examples, train rows
        then test rows.

    The run's probes.npz keeps these, the layers' names, and votes (l, n, c) up to 128 million, from which the
    confidence in any other class follows (consensus class, original label).  `depth/undefined_train` and
    `depth/undefined_test` count the examples without a depth.

    Memory: 1.5 GiB of features of one layer, and `nearest`'s own; a wider layer is computed again tile by tile.
    """
    layers, dataset = Layers(moment), moment.dataset
    counts = list(polls(moment, layers, np.arange(dataset.n_train), k, own_neighbor))
    answers = np.stack([majority(each) for each in counts]).astype(np.int16)
    confidence = np.stack([each[np.arange(dataset.n), dataset.labels] for each in counts]) / np.float32(k)
    final = layers.answers()
    _record(moment, layers.names, answers, confidence, final, counts)
    return {"probe_class": answers, "probe_confidence": confidence, "final_class": final}


def polls(
    moment: Checkpoint, layers: Layers, subset: np.ndarray, k: int, own_neighbor: bool = True
) -> Iterator[np.ndarray]:
    """Votes of the k nearest neighbours of every example among a subset, (n, c) counts, layer by layer.

    Args:
        moment: whose labels vote, and whose progress is told.
        layers: of the network at this moment.
        subset: row numbers, rising.
        k: number of neighbours.
        own_neighbor: whether an example of the subset is its own neighbour.
    """
    dataset = moment.dataset
    rest = np.delete(np.arange(dataset.n), subset)
    for number, name in enumerate(layers.names):
        counts = np.empty((dataset.n, dataset.n_classes), dtype=np.min_scalar_type(k))
        searched, done = layers.chosen(name, subset), 0
        for asked in (subset, rest):
            if len(asked):
                own = asked is subset
                queries = None if own else layers.chosen(name, asked)
                begin, done = number + done / dataset.n, done + len(asked)
                heard = _part(moment, begin, number + done / dataset.n, len(layers.names))
                _, rows = nearest(searched, k, queries=queries, exclude_self=own and not own_neighbor, progress=heard)
                counts[asked] = votes(rows, dataset.labels[subset], dataset.n_classes)
        del searched, queries
        yield counts


def _part(moment: Checkpoint, begin: float, end: float, whole: int) -> Progress | None:
    if moment.progress is None:
        return None
    return lambda share: moment.progress((begin + share * (end - begin)) / whole)


def _record(
    moment: Checkpoint,
    names: tuple[str, ...],
    answers: np.ndarray,
    confidence: np.ndarray,
    final: np.ndarray,
    counts: list[np.ndarray],
) -> None:
    lost = undefined(answers, final)
    for split in ("train", "test"):
        moment.log(f"depth/undefined_{split}", np.count_nonzero(lost[moment.dataset.rows(split)]))
    moment.keep("layers", np.array(names))
    moment.keep("probe_class", answers)
    moment.keep("probe_confidence", confidence.astype(np.float16))
    moment.keep("final_class", final)
    if sum(each.size for each in counts) <= KEPT:
        moment.keep("votes", np.stack(counts))
