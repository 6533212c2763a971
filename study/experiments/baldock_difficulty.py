"""Forms of example difficulty over ensembles (Baldock et al.).  in: groups of ensembles   out: figures, tables"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from study.data import Dataset
from study.errors import AnalysisError
from study.experiments.baldock import layers_of, members_of, name_of, with_depths
from study.experiments.findings import Finding, FinishedRuns, recipe_of
from study.experiments.select import Group
from study.figures.consensus import difficulty_plane
from study.figures.corner_images import corner_images
from study.figures.depth_members import probes_of_members
from study.figures.style import png_bytes
from study.runs.shards import probe_sums
from study.scores.consensus import consensus
from study.scores.depth_statistics import MemberPredictions
from study.scores.difficulty_types import TYPES, corner_distances, nearest_to_corners

NEAREST = 100  # of each corner, as B-fig8 takes them
SHOWN = 8  # images of each corner
UNLESS = "ambiguous unless the label is given"
MIDDLE = 0.4  # of the way through the layers: layer 4 of 0 to 10 in the paper's ResNet-18


def difficulty_plane_with_images(runs: FinishedRuns) -> Iterator[Finding]:
    """Depth in the validation split against depth in the training split, and images of the corners (B-fig7)."""
    for name, (folded, dataset) in members_of(runs).items():
        train = slice(0, dataset.n_train)
        classes = consensus(folded.predicted, dataset.labels)
        agrees = (classes == dataset.labels)[train]
        figure = difficulty_plane(folded.train_depth[train], folded.validation_depth[train], agrees)
        title = f"Prediction depth in both splits: {name} (B-fig7)"
        yield Finding(f"B-fig7-{_file(name)}", title, "", png_bytes(figure))
        chosen = nearest_images(folded, dataset)
        images = corner_images(dataset.images, chosen, dataset.classes, maximum=dataset.maximum)
        title = f"Examples nearest to the corners: {name} (B-fig7)"
        table = chosen.assign(example=dataset.ids[np.asarray(chosen["row"], dtype=int)])
        yield Finding(f"B-fig7-images-{_file(name)}", title, "", png_bytes(images), table)


def nearest_images(folded: MemberPredictions, dataset: Dataset, count: int = SHOWN) -> pd.DataFrame:
    """The training examples nearest to each corner: type | row | label | consensus (class, -1 where unknown)."""
    classes = consensus(folded.predicted, dataset.labels)
    parts = [
        pd.DataFrame({"type": name, "row": rows, "label": dataset.labels[rows], "consensus": classes[rows]})
        for name, rows in _corners(folded, dataset.n_train, count).items()
    ]
    return pd.concat(parts, ignore_index=True)


def probes_by_difficulty(runs: FinishedRuns) -> Iterator[Finding]:
    """The members' probes layer by layer for examples nearest to the corners, in the validation split (B-fig8).

    The headline: how often the network is right about those that are ambiguous unless the label is given, and how often
    the probe of a middle layer (the paper: 25 % and 98 %).
    """
    folded_by_name, curves, layers, rows = members_of(runs), {}, {}, []
    for group in with_depths(runs):
        name, dataset = name_of(group), runs.dataset(group)
        votes, predicted = _probes_of(group, runs, dataset)
        layers[name] = layers_of(group.runs[0], dataset)
        curves[name] = probe_curves(votes, predicted, folded_by_name[name][0], dataset)
        rows += [
            {"group": name} | row for row in middle_against_network(curves[name], folded_by_name[name][0], dataset)
        ]
    table = pd.DataFrame(rows)
    numbers = {}
    for row in rows if len(curves) == 1 else []:
        if row["type"] == UNLESS:
            numbers = {"B-fig8/network": row["network"], "B-fig8/middle_layer": row["middle layer"]}
    note = (
        "The 100 training examples nearest to each corner of the plane of both depths, in the members that hold them "
        f"out. Middle layer: {MIDDLE:.0%} of the way through the layers, the paper's layer 4 of ResNet-18. Best layer: "
        "the one that is right most often, chosen on the same examples. The paper: 25 % and 98 %."
    )
    title = "k-NN probes in the validation split, by form of difficulty (B-fig8)"
    yield Finding("B-fig8", title, note, png_bytes(probes_of_members(curves, layers)), table, numbers)


def probe_curves(
    votes: np.ndarray, predicted: np.ndarray, folded: MemberPredictions, dataset: Dataset, count: int = NEAREST
) -> pd.DataFrame:
    """Confidence and accuracy of the members' probes, layer by layer, for examples nearest to the corners (B-fig8).

    Args:
        votes: (l, n, c) of neighbours, summed over the members that hold an example out.
        predicted: (l, n, c) such members whose probe predicts a class.
        folded: what the members say of the examples.
        dataset: n examples.
        count: examples of each corner; at most a quarter of all.

    Returns:
        type | target ("ground truth", "consensus") | layer | confidence, accuracy: means over the examples | examples.
    """
    classes, rows = consensus(folded.predicted, dataset.labels), []
    count = min(count, dataset.n_train // 4)
    for kind, chosen in _corners(folded, dataset.n_train, count).items():
        for target, wanted in (("ground truth", dataset.labels), ("consensus", classes)):
            at = chosen, wanted[chosen]
            for layer in range(len(votes)):
                confidence = votes[layer][at] / votes[layer][chosen].sum(axis=1)
                accuracy = predicted[layer][at] / predicted[layer][chosen].sum(axis=1)
                rows.append((kind, target, layer, confidence.mean(), accuracy.mean(), len(chosen)))
    return pd.DataFrame(rows, columns=["type", "target", "layer", "confidence", "accuracy", "examples"])


def middle_against_network(
    curves: pd.DataFrame, folded: MemberPredictions, dataset: Dataset
) -> Iterator[dict[str, Any]]:
    """Whether a middle layer's probe is right more often than the network, by form of difficulty (Sec. 4).

    Yields:
        type | examples | network: its accuracy | middle layer: its probe's | best layer: the number | its accuracy.
    """
    right = np.asarray(curves["target"]) == "ground truth"
    kinds = np.asarray(curves["type"])
    for kind in dict.fromkeys(curves["type"]):
        part = right & (kinds == kind)
        accuracy = np.asarray(curves["accuracy"], dtype=float)[part]
        rows = _corners(folded, dataset.n_train, int(np.asarray(curves["examples"])[part][0]))[str(kind)]
        votes = folded.predicted[rows]
        network = votes[np.arange(len(rows)), dataset.labels[rows]] / votes.sum(axis=1)
        yield {
            "type": kind,
            "examples": len(rows),
            "network": float(network.mean()),
            "middle layer": float(accuracy[round(MIDDLE * (len(accuracy) - 1))]),
            "best layer": int(accuracy.argmax()),
            "its accuracy": float(accuracy.max()),
        }


def _corners(folded: MemberPredictions, n_train: int, count: int) -> dict[str, np.ndarray]:
    """{type: rows} of the training examples nearest to each corner, in the order of `TYPES`."""
    distances = corner_distances(folded.train_depth[:n_train], folded.validation_depth[:n_train])
    nearest = nearest_to_corners(distances, count)
    return {name: nearest[name] for name in TYPES if len(nearest[name])}


def _probes_of(group: Group, runs: FinishedRuns, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    sums = [probe_sums(runs.store, recipe_of(run), dataset) for run in group.runs]
    kept = [each for each in sums if each is not None]
    if not kept:
        raise AnalysisError(
            f"needs members that keep their probes; those of {name_of(group)} are older, train them anew"
        )
    return np.sum([votes for votes, _ in kept], axis=0), np.sum([predicted for _, predicted in kept], axis=0)


def _file(name: str) -> str:
    """A group's name as a part of a file's."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)
