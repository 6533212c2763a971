"""Scores as files that other programs read.  in: finished runs   out: names and bytes of files

csv          examples.csv, a row per example, the most suspect first
cleanlab     labels.npy, pred_probs.npy, ids.txt, classes.txt: `cleanlab.filter.find_label_issues(labels, pred_probs)`
fiftyone     labels.json, data.json: `fo.types.FiftyOneImageClassificationDataset`
labelstudio  tasks.json, label_config.xml: tasks with pre-annotations, the most suspect first
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd

from study import analysis
from study.analysis import StudyRuns
from study.data import Dataset
from study.errors import AnalysisError, DataError
from study.progress import command
from study.recipe import Recipe
from study.runs.shards import finished_shards
from study.tracking import Store

Files = Iterator[tuple[str, bytes]]
FORMATS = ("csv", "cleanlab", "fiftyone", "labelstudio")
LOCAL_FILES = "/data/local-files/?d="  # Label Studio's address of a file below its document root


@dataclass(frozen=True, eq=False)
class Scored:
    """What is exported: the examples, the table of suspects and the column that orders it."""

    recipe: Recipe
    dataset: Dataset
    store: Store
    runs: StudyRuns
    suspects: pd.DataFrame
    ranked_by: str


def export_files(recipe: Recipe, dataset: Dataset, store: Store, to: str) -> Files:
    """The files of one format, from the finished runs of a recipe.

    Args:
        recipe: of the runs.
        dataset: that they were trained on.
        store: where they are.
        to: one of FORMATS.

    Raises:
        AnalysisError: another format, no finished runs, or runs without what the format needs.
        DataError: examples that have no files of their own, where the format names files.
    """
    if to not in FORMATS:
        raise AnalysisError(f"--to is {to!r}; there are {', '.join(FORMATS)}")
    runs = analysis.load_runs(recipe, dataset, store)
    suspects = analysis.suspects(runs, dataset)
    if suspects.empty:
        raise AnalysisError(
            f"no scores to export; run `{command('run')}` or `{command('single')}` with the recipe first"
        )
    writers: dict[str, Callable[[Scored], Files]] = {
        "csv": _csv,
        "cleanlab": _cleanlab,
        "fiftyone": _fiftyone,
        "labelstudio": _labelstudio,
    }
    return writers[to](Scored(recipe, dataset, store, runs, suspects, analysis.ranked_by(runs)))


def held_out_probabilities(scored: Scored) -> np.ndarray:
    """(n, c) what networks that have not seen an example predict for it.

    The label has the soft C-score; the other classes share the rest as the held-out networks' votes for them, evenly
    where there are none.  An example that no network held out has 1 / c everywhere.

    Raises:
        AnalysisError: there is no ensemble, or its shards are gone.
    """
    dataset = scored.dataset
    profile = None
    if scored.runs.ensemble is not None:
        profile = finished_shards(scored.store, scored.recipe.part("ensemble"), dataset)[0]
    if profile is None:
        raise AnalysisError(
            f"cleanlab reads held-out predictions, which an ensemble has; run `{command('ensemble')}` first"
        )
    rows = np.arange(dataset.n)
    votes = profile.predicted.astype(np.float64)
    votes[rows, dataset.labels] = 0
    total = votes.sum(axis=1, keepdims=True)
    others = np.divide(votes, total, out=np.full(votes.shape, 1 / (dataset.n_classes - 1)), where=total > 0)
    others[rows, dataset.labels] = 0
    others /= others.sum(axis=1, keepdims=True)
    soft = scored.runs.cscores["cscore_soft"].to_numpy(dtype=np.float64)
    probabilities = others * (1 - soft[:, None])
    probabilities[rows, dataset.labels] = soft
    return np.where(np.isnan(soft)[:, None], 1 / dataset.n_classes, probabilities)


def _csv(scored: Scored) -> Files:
    split = dict(zip(scored.dataset.ids.tolist(), scored.dataset.split().tolist(), strict=True))
    table = scored.suspects.assign(split=[split[example] for example in scored.suspects["example"]])
    yield "examples.csv", table.to_csv(index=False).encode()


def _cleanlab(scored: Scored) -> Files:
    probabilities = held_out_probabilities(scored)
    train = scored.dataset.rows("train")
    for name, array in (("labels", scored.dataset.labels[train]), ("pred_probs", probabilities[train])):
        with BytesIO() as content:
            np.save(content, array, allow_pickle=False)
            yield f"{name}.npy", content.getvalue()
    yield "ids.txt", _lines(scored.dataset.ids[train].tolist())
    yield "classes.txt", _lines(list(scored.dataset.classes))


def _fiftyone(scored: Scored) -> Files:
    ranked = _with_files(scored)
    entries = {f"{rank:0{len(str(len(ranked)))}d}": entry for rank, entry in enumerate(ranked)}  # sorted by these names
    labels = {
        uuid: {
            "label": entry["label"],
            "confidence": _finite(entry[scored.ranked_by]),
            "attributes": {name: _finite(value) for name, value in entry.items() if name not in ("path", "label")},
        }
        for uuid, entry in entries.items()
    }
    yield "labels.json", _json({"classes": list(scored.dataset.classes), "labels": labels})
    yield "data.json", _json({uuid: entry["path"] for uuid, entry in entries.items()})


def _labelstudio(scored: Scored) -> Files:
    tasks = [
        {
            "data": {
                "image": LOCAL_FILES + Path(entry["path"]).as_posix().lstrip("/"),
                "example": entry["example"],
                "label": entry["label"],
                scored.ranked_by: _finite(entry[scored.ranked_by]),
            },
            "predictions": [
                {
                    "model_version": "study",
                    "score": _finite(entry[scored.ranked_by]),
                    "result": [
                        {
                            "from_name": "label",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [entry.get("predicted") or entry["label"]]},
                        }
                    ],
                }
            ],
        }
        for entry in _with_files(scored)
    ]
    yield "tasks.json", _json(tasks)
    choices = "".join(f"\n    <Choice value={quoteattr(name)}/>" for name in scored.dataset.classes)
    yield (
        "label_config.xml",
        (
            '<View>\n  <Image name="image" value="$image"/>\n  <Text name="given" value="$label"/>\n'
            f'  <Choices name="label" toName="image" choice="single">{choices}\n  </Choices>\n</View>\n'
        ).encode(),
    )


def _with_files(scored: Scored) -> list[dict]:
    """The rows of the table of suspects, most suspect first; every one has a file.

    Raises:
        DataError: examples without files.
    """
    table = scored.suspects
    if "path" not in table or "" in table["path"].tolist():
        raise DataError(
            f"{scored.dataset.name}: examples have no image files, which this format names; export --to csv or cleanlab"
        )
    return table.to_dict("records")


def _finite(value: object) -> object:
    """A number, text, or None for a missing number: JSON has no NaN."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogateescape")


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
