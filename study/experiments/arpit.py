"""Memorization of noise (Arpit et al.).  in: groups of single runs   out: curves by kind of label, time to fit"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.by_epoch import trajectory
from study.experiments.select import Group
from study.tracking import Run

NOISE = ("noise.labels", "noise.share", "noise.inputs", "noise.input_share")
SIZES = ("model.settings.widths", "data.limit")  # of the network and of the training set


@dataclass(frozen=True)
class FittingCurves:
    """How fast one group of single runs fits unchanged and changed labels; means over the repeats.

    epochs: (e,) after which examples were evaluated.
    unchanged, changed: (e,) accuracy on training examples by whether noise has changed their label; NaN where none.
    test: (e,) accuracy on the clean test examples; NaN where there are none.
    """

    label: str
    epochs: np.ndarray
    unchanged: np.ndarray
    changed: np.ndarray
    test: np.ndarray


def fitting_curves(group: Group) -> FittingCurves:
    """Accuracy on unchanged labels, changed labels and test examples by epoch (A-noise)."""
    of_runs = [_accuracies(run) for run in group.runs]
    epochs = trajectory(group.runs[0])["epochs"]
    unchanged, changed, test = np.mean(of_runs, axis=0)
    return FittingCurves(group.label, epochs, unchanged, changed, test)


def _accuracies(run: Run) -> np.ndarray:
    """(3, e): unchanged, changed, test."""
    table, correct = run.read_table("scores.parquet"), trajectory(run)["correct"]
    train = (table["split"] == "train").to_numpy()
    clean = table.get("clean_label", table["label"])
    changed = (table["label"] != clean).to_numpy() & train
    parts = (train & ~changed, changed, ~train)
    return np.stack([_mean(correct[:, rows]) for rows in parts])


def _mean(correct: np.ndarray) -> np.ndarray:
    return correct.mean(axis=1) if correct.shape[1] else np.full(len(correct), np.nan)


def epochs_to_fit(run: Run) -> float:
    """The first evaluated epoch after which every training label is predicted (A-time); NaN where there is none."""
    correct = trajectory(run)
    train = (run.read_table("scores.parquet")["split"] == "train").to_numpy()
    fitted = correct["correct"][:, train].all(axis=1)
    return float(correct["epochs"][fitted.argmax()]) if fitted.any() else np.nan


def capacity_and_time(groups: Sequence[Group], curves: Sequence[FittingCurves]) -> pd.DataFrame:
    """Clean validation accuracy and time to fit over sizes and shares of noise (A-capacity, A-time).

    Args:
        groups: of single runs.
        curves: `fitting_curves` of each.

    Returns:
        One row per group of single runs: the parameters of noise and size that differ | runs | test/accuracy at the
        end | best test/accuracy over the epochs | unchanged, changed: training accuracy at the end by kind of label |
        epochs to fit, NaN where a repeat does not fit all labels.  Means over the repeats.
    """
    varied = [name for name in (*NOISE, *SIZES) if any(name in group.differing for group in groups)]
    rows = []
    for group, curve in zip(groups, curves, strict=True):
        rows.append(
            {name: group.runs[0].params.get(name, "") for name in varied}
            | {
                "runs": len(group.runs),
                "test/accuracy": curve.test[-1],
                "best test/accuracy": curve.test.max(),
                "unchanged": curve.unchanged[-1],
                "changed": curve.changed[-1],
                "epochs to fit": float(np.mean([epochs_to_fit(run) for run in group.runs])),
            }
        )
    return pd.DataFrame(rows)


def noise_name(params: Mapping[str, str]) -> str:
    """What the noise of a run is called, by its parameters: "real", "labels symmetric 0.2", "inputs gaussian 1.0"."""
    parts = []
    for what, size in (("labels", "share"), ("inputs", "input_share")):
        kind, share = params.get(f"noise.{what}", "none"), params.get(f"noise.{size}", "0.0")
        if kind != "none":
            parts.append(f"{what} {kind}" + (f" {share}" if share not in ("", "0.0") else ""))
    return ", ".join(parts) or "real"


def has_noise(groups: Sequence[Group]) -> bool:
    """Whether noise is among what differs between the groups."""
    return any(name in group.differing for group in groups for name in NOISE)
