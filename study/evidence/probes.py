"""k-NN probes after every layer of a trained network.  in: a moment   out: their answers (l, n)"""

import numpy as np

from study.evidence.layers import Layers
from study.evidence.sources import Moment, source
from study.proxies.depth import majority, undefined
from study.proxies.nearest import nearest, votes
from study.proxies.neighbors import Progress

KEPT = 2**27  # votes up to this number are kept with the run


@source("probe_class", "probe_confidence", "final_class", when="last")
def probes(moment: Moment, *, k: int = 30, own_neighbor: bool = True) -> dict[str, np.ndarray]:
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
    layers = Layers(moment)
    dataset, n_classes = moment.dataset, moment.dataset.n_classes
    counts = []
    for number, name in enumerate(layers.names):
        found = []
        train = layers.features(name, 0, dataset.n_train)
        test = layers.features(name, dataset.n_train, dataset.n) if dataset.n_test else None
        for queries, begin, end in ((None, 0, dataset.n_train), (test, dataset.n_train, dataset.n)):
            if begin < end:
                heard = _part(moment, number + begin / dataset.n, number + end / dataset.n, len(layers.names))
                exclude = queries is None and not own_neighbor
                _, rows = nearest(train, k, queries=queries, exclude_self=exclude, progress=heard)
                found.append(votes(rows, dataset.labels[: dataset.n_train], n_classes).astype(np.min_scalar_type(k)))
        counts.append(np.concatenate(found))
        del train, test
    answers = np.stack([majority(each) for each in counts]).astype(np.int16)
    confidence = np.stack([each[np.arange(dataset.n), dataset.labels] for each in counts]) / np.float32(k)
    final = layers.answers()
    _record(moment, layers.names, answers, confidence, final, counts)
    return {"probe_class": answers, "probe_confidence": confidence, "final_class": final}


def _part(moment: Moment, begin: float, end: float, whole: int) -> Progress | None:
    if moment.progress is None:
        return None
    return lambda share: moment.progress((begin + share * (end - begin)) / whole)


def _record(
    moment: Moment,
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
