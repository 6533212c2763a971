"""The examples to check first.  in: joined tables of a study's runs   out: a row per example, the most suspect first"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.analysis.load import StudyRuns
from study.data import Dataset
from study.proxies import PROXIES, oriented

# proxies of the training itself that rank planted label flips highest (docs/tutorials/own_images.md has the numbers),
# the best first
RANKING = ("target_confidence", "cumulative_confidence", "cumulative_loss", "aum", "cbtl")
CONFIDENCE = "target_confidence"
ENSEMBLE_WEIGHT = 0.2  # of the soft C-score in `label_confidence`; in two draws .1 to .2 ranked best, beside one run


def ranking_proxies(runs: StudyRuns) -> list[str]:
    """The proxies that rank suspects, the best first: those of `RANKING` that every single run has; else any that
    sees label errors.

    Empty without single runs.
    """
    fit = [name for name, spec in PROXIES.items() if spec.on == "train" and "flip" not in spec.blind_to]
    held = [name for name in fit if all(name in table for table in runs.scores)]
    preferred = [name for name in RANKING if name in held]
    return (preferred or held[:1]) if runs.scores else []


def ranked_by(runs: StudyRuns) -> str:
    """The column of `suspects` that orders it; "" without any score.

    `label_confidence` where an ensemble and single runs are there, else the soft C-score, the C-score, the best proxy.
    """
    if runs.ensemble and "cscore_soft" in runs.cscores and CONFIDENCE in ranking_proxies(runs):
        return "label_confidence"
    if runs.ensemble or runs.reference:
        return "cscore_soft" if "cscore_soft" in runs.cscores else "cscore"
    return next(iter(ranking_proxies(runs)), "")


def suspects(runs: StudyRuns, dataset: Dataset) -> pd.DataFrame:
    """Every example that has a score, the most suspect first, with names of classes.

    Returns:
        example, the id; for files the path below the root | path, absolute, of files that are there | label |
        predicted, the class that most networks predict which were trained without it | label_confidence, a fifth of
        the soft C-score and four fifths of the single runs' confidence in the label, for test examples the soft C-score
        alone | cscore_soft cscore stderr held_out published, as far as there are any | a column per proxy of
        `ranking_proxies`: the mean over the repeats, low means suspect; NaN for test examples, which are no part of the
        training.
    """
    names = dict(enumerate(dataset.classes))
    columns: dict[str, Any] = {"example": runs.cscores["example"]}
    if dataset.files is not None:
        columns["path"] = [path if Path(path).is_file() else "" for path in dataset.files.tolist()]
    columns["label"] = runs.cscores["label"].map(names.get)
    if runs.ensemble:
        columns["predicted"] = runs.cscores["consensus"].map(names.get).fillna("")
        computed = ("cscore_soft", "cscore", "stderr", "held_out")
        columns |= {name: runs.cscores[name] for name in computed if name in runs.cscores}
    if "published" in runs.cscores:
        columns["published"] = runs.cscores["published"]
    for name in ranking_proxies(runs):
        repeats = [oriented(PROXIES[name], table[name].to_numpy(dtype=float)) for table in runs.scores]
        columns[name] = np.where(dataset.split() == "train", np.mean(repeats, axis=0), np.nan)
    table, order = pd.DataFrame(columns), ranked_by(runs)
    if not order:
        return table.iloc[:0]
    if order == "label_confidence":
        weighted = ENSEMBLE_WEIGHT * table["cscore_soft"] + (1 - ENSEMBLE_WEIGHT) * table[CONFIDENCE]
        test = dataset.split() == "test"
        table.insert(list(table).index("cscore_soft"), order, weighted.mask(test, table["cscore_soft"]))
    order = order if order in table else "published"
    ties = [name for name in ("cscore", *ranking_proxies(runs)) if name in table and name != order]
    return table.dropna(subset=[order]).sort_values([order, *ties], kind="stable")
