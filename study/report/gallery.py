"""The pictures at the top of a report.  in: the table of suspects, a Dataset   out: entries with their images inside"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.image import imsave

from study.data import Dataset
from study.figures.images import rgb_image

PICTURES = 60  # on the page; suspects.csv lists more


@dataclass(frozen=True)
class Suspect:
    """An example to check: its id (of a file, the path below the root), its classes, its score, its picture.

    link: of the file, `file:` and its absolute path; "" where there is none.
    picture: a data URI.
    """

    example: str
    label: str
    predicted: str
    score: float
    link: str
    picture: str


def suspect_entries(table: pd.DataFrame, dataset: Dataset, ranked_by: str) -> list[Suspect]:
    """The first 60 rows of `analysis.suspects`, each with its picture."""
    rows = {example: row for row, example in enumerate(dataset.ids.tolist())}
    return [
        Suspect(
            example=str(entry["example"]),
            label=str(entry["label"]),
            predicted=str(entry.get("predicted", "")),
            score=float(entry.get(ranked_by, entry.get("published", float("nan")))),
            link=Path(entry["path"]).as_uri() if entry.get("path") else "",
            picture=_picture(dataset, rows[entry["example"]]),
        )
        for entry in table.head(PICTURES).to_dict("records")
    ]


def _picture(dataset: Dataset, row: int) -> str:
    with io.BytesIO() as file:
        imsave(file, rgb_image(dataset.images[row], dataset.maximum), format="png", metadata={"Software": None})
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
