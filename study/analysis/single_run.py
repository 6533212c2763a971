"""Further results of a single run.  in: its files   out: tables and arrays for the figures"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from study.analysis.by_epoch import trajectory
from study.analysis.difficulty import NEAREST, Difficulty
from study.analysis.load import StudyRuns
from study.data import Dataset
from study.proxies.depth import inference_curves, prediction_depth
from study.scores.regularity_plane import representation, sample_density, sample_radius
from study.tracking import Run

SPLITS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
SENSITIVITY = "sensitivity/"  # metrics that the signal sources of loss sensitivity and critical samples log by epoch
MARGINS = {  # columns of scores.parquet: prediction depth, margins, and what to call them (B-fig6)
    "train": ("prediction_depth", {"output_margin": "output margin", "adversarial_margin": "input margin"}),
    "test": (
        "prediction_depth_test",
        {"output_margin_test": "output margin", "adversarial_margin_test": "input margin"},
    ),
}


@dataclass(frozen=True)
class PredictionDepths:
    """Prediction depths of a single run.

    layers: names of the l layers with probes, "input" first, "softmax" last.
    table: a row per example: `split`, `depth` (0 to l, l is undefined), `cscore`, `correct`.
    curves: {split: (l,) accuracies of the probes}, see `study.proxies.depth.inference_curves`.
    """

    layers: tuple[str, ...]
    table: pd.DataFrame
    curves: Mapping[str, np.ndarray]


def single_run_depths(runs: StudyRuns, dataset: Dataset) -> PredictionDepths | None:
    """Prediction depths of the first single run (B-fig1, B-fig3, B-fig5); None where it has no probes."""
    if not runs.singles or "probes.npz" not in runs.singles[0].files:
        return None
    run = runs.singles[0]
    probes = run.read_arrays("probes.npz")
    predictions, final, split = probes["probe_class"], probes["final_class"], dataset.split()
    table = pd.DataFrame(
        {
            "split": split,
            "depth": prediction_depth(predictions, final),
            "cscore": runs.cscores["cscore"].to_numpy(dtype=float),
            "correct": final == dataset.labels,
        }
    )
    original = None if dataset.labels_before_noise is None else dataset.clean_labels
    curves = inference_curves(predictions, dataset.labels, np.asarray(split) == "train", original=original)
    return PredictionDepths(tuple(probes["layers"].tolist()), table, curves)


def probe_curves(runs: StudyRuns, dataset: Dataset, difficulty: Difficulty | None) -> pd.DataFrame:
    """Confidence and accuracy of the probes after each layer, for examples that are hard in different ways (B-fig8).

    Args:
        runs: the k-NN probes are those of the first single run.
        dataset: that they were trained on.
        difficulty: whose 100 training examples nearest to each corner are the groups, as in the paper.  Without it they
            are the 100 lowest, middle and highest C-scores of the test split, or of the training split where there is
            none; a third of all where there are fewer than 300.

    Returns:
        group | target ("ground truth", the label; "consensus", where the ensemble and the run's votes are there) |
        layer 0 to l - 1 | confidence, the mean share of the neighbours with the target class | accuracy, the share of
        examples whose probe predicts it | n.  Empty without probes.

    Source: Baldock et al. 2021, Fig. 8, who average 250 networks over the examples of their validation splits.  This
    is one network, which was trained on the examples that lie nearest to the corners.
    """
    columns = ["group", "target", "layer", "confidence", "accuracy", "n"]
    if not runs.singles or "probes.npz" not in runs.singles[0].files:
        return pd.DataFrame(columns=columns)
    probes, rows = runs.singles[0].read_arrays("probes.npz"), []
    targets = {"ground truth": dataset.labels}
    if "votes" in probes and runs.ensemble:
        targets["consensus"] = runs.cscores["consensus"].to_numpy()
    groups = _corner_groups(difficulty, dataset) if difficulty else _score_groups(runs, dataset)
    for group, members in groups.items():
        for target, classes in targets.items():
            voted = members[classes[members] >= 0]
            if not len(voted):
                continue
            accuracy = (probes["probe_class"][:, voted] == classes[voted]).mean(axis=1)
            for layer, confidence in enumerate(_confidence(probes, voted, classes[voted], target)):
                rows.append((group, target, layer, confidence, accuracy[layer], len(voted)))
    return pd.DataFrame(rows, columns=columns)


def _confidence(probes: Mapping[str, np.ndarray], rows: np.ndarray, classes: np.ndarray, target: str) -> np.ndarray:
    """(l,) mean share of the votes for the classes of these rows."""
    if target == "ground truth":
        return probes["probe_confidence"][:, rows].mean(axis=1, dtype=np.float64)
    votes = probes["votes"][:, rows]
    return (votes[:, np.arange(len(rows)), classes] / votes.sum(axis=2)).mean(axis=1)


def _corner_groups(difficulty: Difficulty, dataset: Dataset) -> dict[str, np.ndarray]:
    """{type: row numbers} of the examples nearest to each corner."""
    places = pd.Series(np.arange(dataset.n), index=dataset.ids)
    corners = difficulty.corners
    return {name: places[part["example"]].to_numpy() for name, part in corners.groupby("type", sort=False)}


def _score_groups(runs: StudyRuns, dataset: Dataset) -> dict[str, np.ndarray]:
    """{group: row numbers} by C-score; nothing where fewer than three examples have one."""
    scores = runs.cscores["cscore"].to_numpy(dtype=float)
    for split in ("test", "train"):
        scored = np.flatnonzero(np.isfinite(scores) & (dataset.split() == split))
        count = min(NEAREST, len(scored) // 3)
        if count:
            order = scored[np.argsort(scores[scored], kind="stable")]
            middle = (len(order) - count) // 2
            parts = {"lowest": order[:count], "middle": order[middle : middle + count], "highest": order[-count:]}
            return {f"{name} C-scores, {split}": rows for name, rows in parts.items()}
    return {}


def depth_and_margins(runs: StudyRuns, dataset: Dataset) -> dict[str, str]:
    """Pearson correlation of the prediction depth with the logarithms of the margins (B-fig6), as one fact in words.

    Depths and margins are averaged over the repeats first, as in the paper, which has 25; examples without a defined
    depth, or with a margin of 0, are left out.  Empty where the runs lack one of them.
    """
    if not runs.singles or "probes.npz" not in runs.singles[0].files:
        return {}
    layers = len(runs.singles[0].read_arrays("probes.npz")["layers"])
    coefficients = []
    for split in SPLITS:
        name, margins = MARGINS[split]
        rows = dataset.rows(split)
        depth = _mean(runs, name, rows, undefined=layers)
        for margin, label in margins.items():
            values = _mean(runs, margin, rows)
            if depth is None or values is None:
                continue
            defined = np.isfinite(depth) & (values > 0)
            if defined.sum() > 2 and np.ptp(depth[defined]) > 0 and np.ptp(values[defined]) > 0:
                pearson = np.corrcoef(depth[defined], np.log(values[defined]))[0, 1]
                coefficients.append(f"{label} {pearson:.3f} ({split})".replace("-", "−"))
    if not coefficients:
        return {}
    return {"depth and margins": f"Pearson of prediction depth with log margins: {', '.join(coefficients)}"}


def _mean(runs: StudyRuns, name: str, rows: slice, *, undefined: float = np.inf) -> np.ndarray | None:
    """Mean of a column of scores over the repeats, NaN where one is undefined; None where a repeat lacks the column."""
    if any(name not in table for table in runs.scores):
        return None
    columns = [table[name].to_numpy(dtype=float)[rows] for table in runs.scores]
    return np.mean([np.where(column < undefined, column, np.nan) for column in columns], axis=0)


def mean_class_sensitivity(run: Run) -> np.ndarray | None:
    """(c, c) loss sensitivity from class to class, averaged over the epochs evaluated (A-class); None without."""
    if "loss_sensitivity.npz" not in run.files:
        return None
    arrays = run.read_arrays("loss_sensitivity.npz")
    return arrays["class_sensitivity"].mean(axis=0) if "class_sensitivity" in arrays else None


def sensitivity_series(run: Run) -> pd.DataFrame:
    """Gini coefficient and critical sample ratios, a row per epoch, a column per metric that the run has logged."""
    names = [name for name in run.metrics if name.startswith(SENSITIVITY)]
    return pd.DataFrame({name: pd.Series(dict(run.read_series(name)), dtype=float) for name in names})


def planes(run: Run, dataset: Dataset, radius: float | None = None) -> dict[str, pd.DataFrame]:
    """Zhang's two-dimensional picture of a single run (Z-fig2): by split, `right` `events` `density` per example.

    Args:
        run: a single run.
        dataset: its examples.
        radius: of the circles that examples are counted in; None: the paper's, see `sample_radius`.

    Returns:
        Also the column `radius`, the same in every row.  Below 1 only examples at one point are counted together.  A
        split whose examples all lie at one point is left out: there is no radius.
    """
    correct = trajectory(run)["correct"]
    tables = {}
    for split in SPLITS:
        right, events = representation(correct[:, dataset.rows(split)])
        if len(right) and sample_radius(right, events) > 0:
            within = sample_radius(right, events) if radius is None else radius
            density = sample_density(right, events, radius=within)
            tables[split] = pd.DataFrame({"right": right, "events": events, "density": density, "radius": within})
    return tables
