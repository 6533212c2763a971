"""C-scores as a data set folder for the Hugging Face hub.  in: finished runs   out: names and bytes of files

cscores.parquet, a row per example; recipe.toml; README.md, the card.  `study reference` reads the folder.
"""

import json
from collections.abc import Iterator
from io import BytesIO

import pandas as pd

from study import analysis
from study.analysis import StudyRuns
from study.data import Dataset
from study.errors import AnalysisError
from study.progress import command
from study.proxies import PROXIES
from study.recipe import Recipe, dump
from study.runs.reference import PUBLISHED
from study.runs.rounds import members_of
from study.tracking import Store

CARD = """---
license: {license}
pretty_name: {title}
tags:
- c-scores
- data-quality
configs:
- config_name: default
  data_files: {table}
---

# {heading}

How consistent each example is: the share of networks that were trained **without** it and predict its label (C-score,
Jiang et al. 2021). Low: mislabeled, ambiguous or atypical. High: regular.

| | |
|---|---|
| examples | {n_train} train, {n_test} test, of {n_classes} classes |
| digest of the data | `{data}` |
| networks | {networks} `{model}` at subset ratios {ratios} |
| digest of the recipe | `{digest}` |
| reliability of the C-scores | {reliability} |
| licence of these scores | {license} |

Reliability: rank correlation of the C-scores with those that a second ensemble of this size would give.

## Columns of `{table}`

{columns}

The table's metadata (`PANDAS_ATTRS` in the Parquet schema) says the same for programs.

## Use

`study reference FOLDER RECIPE` compares other scores of the same data with these; `recipe.toml` says how they were
made. The images are not part of this folder.
"""
COLUMNS = {
    "example": "id of the example; of files the path below the root",
    "label": "label that the networks were trained with, a number",
    "clean_label": "label before label noise",
    "split": "train or test",
    "cscore": "C-score, 0 to 1, high means consistent",
    "cscore_soft": "mean probability of the label, 0 to 1, high means consistent",
    "stderr": "standard error of cscore",
    "held_out": "networks that had not seen the example",
    "consensus": "class that most of these predict, a number",
    "memorization": "how much more often networks that have seen the example predict its label",
}


def published_files(recipe: Recipe, dataset: Dataset, store: Store, *, license: str) -> Iterator[tuple[str, bytes]]:
    """The files of the folder.

    Args:
        recipe: of a finished ensemble; single runs add a column per proxy, the mean over the repeats.
        dataset: that it was trained on.
        store: where it is.
        license: an identifier of the hub's, such as "cc-by-4.0"; of the scores.

    Raises:
        AnalysisError: no finished ensemble.
    """
    runs = analysis.load_runs(recipe, dataset, store)
    if runs.ensemble is None:
        raise AnalysisError(
            f"C-scores are published, and there is no finished ensemble; run `{command('ensemble')}` first"
        )
    table, columns = _table(runs)
    table.attrs = {"study": {"data": dataset.digest, "recipe": recipe.part("ensemble").digest(), "columns": columns}}
    with BytesIO() as content:
        table.to_parquet(content, index=False, compression="zstd")
        yield PUBLISHED, content.getvalue()
    yield "recipe.toml", dump(recipe).encode()
    yield "README.md", _card(recipe, dataset, runs, columns, license).encode()


def _table(runs: StudyRuns) -> tuple[pd.DataFrame, dict[str, str]]:
    """Scores and proxies of all examples, and what each column is."""
    table = pd.DataFrame(runs.cscores[[name for name in COLUMNS if name in runs.cscores]])
    columns = {name: COLUMNS[name] for name in table}
    for name in runs.scores[0] if runs.scores else ():
        if name in PROXIES and all(name in scores for scores in runs.scores):
            spec = PROXIES[name]
            table[name] = sum(scores[name] for scores in runs.scores) / len(runs.scores)
            columns[name] = (
                f"{spec.label}, {spec.unit}; {spec.direction} means easy; on {spec.on} examples; {spec.source}"
            )
    return table, columns


def _card(recipe: Recipe, dataset: Dataset, runs: StudyRuns, columns: dict[str, str], license: str) -> str:
    reliability = runs.ensemble.metrics.get("reliability/full") if runs.ensemble else None
    return CARD.format(
        license=license,
        title=json.dumps(f"C-scores of {dataset.name}"),
        heading=f"C-scores of {dataset.name}",
        table=PUBLISHED,
        n_train=dataset.n_train,
        n_test=dataset.n_test,
        n_classes=dataset.n_classes,
        data=dataset.digest,
        networks=sum(members_of(runs.ensemble)) if runs.ensemble else 0,
        model=recipe.part("ensemble").model.name,
        ratios=", ".join(f"{ratio:.0%}" for ratio in recipe.subset.ratios),
        digest=recipe.part("ensemble").digest(),
        reliability="not known" if reliability is None else f"{reliability:.3f}",
        columns="\n".join(f"- `{name}`: {text}" for name, text in columns.items()),
    )
