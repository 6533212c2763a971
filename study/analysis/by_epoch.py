"""Proxies epoch by epoch.  in: trajectories and curves of single runs   out: rank correlations by epoch"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from study.analysis.correlations import references
from study.analysis.load import StudyRuns
from study.data import Dataset
from study.proxies import PROXIES, Spec, compute, oriented
from study.scores.rank_statistics import spearman
from study.signals import select_signals
from study.tracking import Run


def curves(runs: StudyRuns, dataset: Dataset) -> pd.DataFrame:
    """Correlate proxies of a single epoch with the references, epoch by epoch (J-fig8, J-fig9b), on the training rows.

    Returns:
        proxy | reference | repeat | epoch | spearman low high.  Kendall is left out, as in the paper's figures.
    """
    rows = []
    train = dataset.rows("train")
    targets = {name: values[train] for name, values in references(runs).items()}
    for repeat, run in enumerate(runs.singles):
        for spec, epoch, scores in _scores_by_epoch(run, dataset):
            for name, values in targets.items():
                rho = spearman(values, oriented(spec, scores))
                rows.append(
                    {
                        "proxy": spec.name,
                        "reference": name,
                        "repeat": repeat,
                        "epoch": epoch,
                        "spearman": rho.value,
                        "low": rho.low,
                        "high": rho.high,
                    }
                )
    columns = ["proxy", "reference", "repeat", "epoch", "spearman", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def trajectory(run: Run) -> dict[str, np.ndarray]:
    """Read the trajectory of a single run.

    Returns:
        epochs (e,) that were evaluated, correct (e, n) bool, confidence and top_confidence (e, n).
    """
    arrays = run.read_arrays("trajectory.npz")
    correct = np.unpackbits(arrays["correct"], axis=1, count=int(arrays["n"])).astype(bool)
    return {"correct": correct} | {name: arrays[name] for name in ("epochs", "confidence", "top_confidence")}


def _scores_by_epoch(run: Run, dataset: Dataset) -> Iterator[tuple[Spec, int, np.ndarray]]:
    """(proxy, epoch, scores of the training rows), for every proxy of a single epoch and every epoch that has it."""
    stored, series_by_key = run.read_arrays("curves.npz"), trajectory(run)
    for spec in PROXIES.values():
        if not spec.single_checkpoint or spec.on != "train":
            continue
        if spec.name in stored:
            yield from (
                (spec, int(epoch), scores) for epoch, scores in zip(stored["epochs"], stored[spec.name], strict=True)
            )
        elif set(spec.signals) <= {"labels", "target_confidence_now", "top_confidence_now"}:
            for count, epoch in enumerate(series_by_key["epochs"].tolist(), 1):
                so_far = {key: series[:count] for key, series in series_by_key.items()}
                yield spec, epoch, compute(spec, select_signals(spec, dataset, so_far, {}))
