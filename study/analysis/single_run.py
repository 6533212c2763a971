"""What a single run keeps beside its scores.  in: its files   out: tables and arrays as the figures take them"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.by_epoch import trajectory
from study.analysis.difficulty import NEAREST, Difficulty
from study.analysis.load import Gathered
from study.data import Dataset
from study.proxies.depth import inference_curves, prediction_depth
from study.scores.regularity_plane import representation, sample_density, sample_radius
from study.tracking import Run

SENSITIVITY = "sensitivity/"  # metrics that the sources of loss sensitivity and of critical samples log by epoch
MARGINS = {  # columns of scores.parquet: prediction depth, margins, and what to call them (B-fig6)
    "train": ("prediction_depth", {"output_margin": "output margin", "adversarial_margin": "input margin"}),
    "test": ("prediction_depth_test", {"adversarial_margin_test": "input margin"}),
}


@dataclass(frozen=True)
class Depths:
    """Prediction depths of a single run.

    layers: names of the l layers with probes, "input" first, "softmax" last.
    table: a row per example: `split`, `depth` (0 to l, l is undefined), `cscore`, `correct`.
    curves: {split: (l,) accuracies of the probes}, see `study.proxies.depth.inference_curves`.
    """

    layers: tuple[str, ...]
    table: pd.DataFrame
    curves: Mapping[str, np.ndarray]


def depths(gathered: Gathered, dataset: Dataset) -> Depths | None:
    """Prediction depths of the first single run (B-fig1, B-fig3, B-fig5); None where it has no probes."""
    run = gathered.singles[0]
    if "probes.npz" not in run.files:
        return None
    kept = run.read_arrays("probes.npz")
    answers, final, split = kept["probe_class"], kept["final_class"], dataset.split()
    table = pd.DataFrame(
        {
            "split": split,
            "depth": prediction_depth(answers, final),
            "cscore": gathered.cscores["cscore"].to_numpy(dtype=float),
            "correct": final == dataset.labels,
        }
    )
    original = None if dataset.labels_before_noise is None else dataset.clean_labels
    curves = inference_curves(answers, dataset.labels, np.asarray(split) == "train", original=original)
    return Depths(tuple(kept["layers"].tolist()), table, curves)


def probe_curves(gathered: Gathered, dataset: Dataset, difficulty: Difficulty | None) -> pd.DataFrame:
    """Confidence and accuracy of the probes after each layer, for examples that are hard in different ways (B-fig8).

    Args:
        gathered: the runs; probes are those of the first single run.
        dataset: that they have seen.
        difficulty: whose 100 training examples nearest to each corner are the groups, as in the paper.  Without it they
            are the 100 lowest, middle and highest C-scores of the test split, or of the training split where there is
            none; a third of all where there are fewer than 300.

    Returns:
        group | target ("ground truth", the label; "consensus", where the ensemble and the run's votes are there) |
        layer 0 to l - 1 | confidence, the mean share of the neighbours with the target class | accuracy, the share of
        examples whose probe answers it | n.  Empty without probes.

    Source: Baldock et al. 2021, Fig. 8, who average 250 networks over the examples of their validation splits.  This
    is one network, which has trained on the examples that lie nearest to the corners.
    """
    columns = ["group", "target", "layer", "confidence", "accuracy", "n"]
    run = gathered.singles[0]
    if "probes.npz" not in run.files:
        return pd.DataFrame(columns=columns)
    kept, rows = run.read_arrays("probes.npz"), []
    targets = {"ground truth": dataset.labels}
    if "votes" in kept and gathered.ensemble:
        targets["consensus"] = gathered.cscores["consensus"].to_numpy()
    groups = _corner_groups(difficulty, dataset) if difficulty else _score_groups(gathered, dataset)
    for group, members in groups.items():
        for target, classes in targets.items():
            known = members[classes[members] >= 0]
            if not len(known):
                continue
            right = (kept["probe_class"][:, known] == classes[known]).mean(axis=1)
            for layer, sure in enumerate(_confidence(kept, known, classes[known], target)):
                rows.append((group, target, layer, sure, right[layer], len(known)))
    return pd.DataFrame(rows, columns=columns)


def _confidence(kept: Mapping[str, np.ndarray], rows: np.ndarray, classes: np.ndarray, target: str) -> np.ndarray:
    """(l,) mean share of the votes for the classes of these rows."""
    if target == "ground truth":
        return kept["probe_confidence"][:, rows].mean(axis=1, dtype=np.float64)
    votes = kept["votes"][:, rows]
    return (votes[:, np.arange(len(rows)), classes] / votes.sum(axis=2)).mean(axis=1)


def _corner_groups(difficulty: Difficulty, dataset: Dataset) -> dict[str, np.ndarray]:
    """{type: row numbers} of the examples nearest to each corner."""
    places = pd.Series(np.arange(dataset.n), index=dataset.ids)
    corners = difficulty.corners
    return {name: places[part["example"]].to_numpy() for name, part in corners.groupby("type", sort=False)}


def _score_groups(gathered: Gathered, dataset: Dataset) -> dict[str, np.ndarray]:
    """{group: row numbers} by C-score; nothing where fewer than three examples have one."""
    scores = gathered.cscores["cscore"].to_numpy(dtype=float)
    for split in ("test", "train"):
        known = np.flatnonzero(np.isfinite(scores) & (dataset.split() == split))
        count = min(NEAREST, len(known) // 3)
        if count:
            order = known[np.argsort(scores[known], kind="stable")]
            middle = (len(order) - count) // 2
            parts = {"lowest": order[:count], "middle": order[middle : middle + count], "highest": order[-count:]}
            return {f"{name} C-scores, {split}": rows for name, rows in parts.items()}
    return {}


def depth_and_margins(gathered: Gathered, dataset: Dataset) -> dict[str, str]:
    """One line: Pearson of the prediction depth with the logarithms of the margins (B-fig6), where runs hold both.

    Depths and margins are averaged over the repeats first, as in the paper, which has 25; examples without a defined
    depth, or with a margin of 0, are left out.
    """
    if "probes.npz" not in gathered.singles[0].files:
        return {}
    layers = len(gathered.singles[0].read_arrays("probes.npz")["layers"])
    told = []
    for split, (name, margins) in MARGINS.items():
        rows = dataset.rows(split)
        depth = _mean(gathered, name, rows, undefined=layers)
        for margin, words in margins.items():
            values = _mean(gathered, margin, rows)
            if depth is None or values is None:
                continue
            known = np.isfinite(depth) & (values > 0)
            if known.sum() > 2 and np.ptp(depth[known]) > 0 and np.ptp(values[known]) > 0:
                pearson = np.corrcoef(depth[known], np.log(values[known]))[0, 1]
                told.append(f"{words} {pearson:.3f} ({split})".replace("-", "−"))
    return {"depth and margins": f"Pearson of prediction depth with log margins: {', '.join(told)}"} if told else {}


def _mean(gathered: Gathered, name: str, rows: slice, *, undefined: float = np.inf) -> np.ndarray | None:
    """Mean of a column of scores over the repeats, NaN where one is undefined; None where a repeat lacks the column."""
    if any(name not in table for table in gathered.scores):
        return None
    columns = [table[name].to_numpy(dtype=float)[rows] for table in gathered.scores]
    return np.mean([np.where(column < undefined, column, np.nan) for column in columns], axis=0)


def class_sensitivity(run: Run) -> np.ndarray | None:
    """(c, c) loss sensitivity from class to class, averaged over the moments of training (A-class); None without."""
    if "loss_sensitivity.npz" not in run.files:
        return None
    kept = run.read_arrays("loss_sensitivity.npz")
    return kept["class_sensitivity"].mean(axis=0) if "class_sensitivity" in kept else None


def sensitivity_series(run: Run) -> pd.DataFrame:
    """Gini coefficient and critical sample ratios, a row per epoch, a column per metric that the run has logged."""
    names = [name for name in run.metrics if name.startswith(SENSITIVITY)]
    return pd.DataFrame({name: pd.Series(dict(run.read_series(name)), dtype=float) for name in names})


def planes(run: Run, dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Zhang's two-dimensional picture of a single run (Z-fig2): by split, `right` `events` `density` per example.

    A split whose examples all lie at one point is left out: there is no radius.
    """
    correct = trajectory(run, dataset)["correct"]
    found = {}
    for split in ("train", "test"):
        right, events = representation(correct[:, dataset.rows(split)])
        if len(right) and sample_radius(right, events) > 0:
            density = sample_density(right, events)
            found[split] = pd.DataFrame({"right": right, "events": events, "density": density})
    return found
