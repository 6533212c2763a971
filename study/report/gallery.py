"""The pictures at the top of a report.  in: the table of suspects, a Dataset   out: entries with their images inside"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave

from study.analysis import Review
from study.data import Dataset
from study.data.resize import fit, thumbnail
from study.figures.images import rgb_image

PICTURES = 60  # on the page; suspects.csv lists more
THUMBNAIL = 48  # pixels, the most of a neighbour's picture
SIDE = 192  # pixels of a picture of a file, at most


@dataclass(frozen=True)
class Neighbour:
    """A training example near a suspect: its id, its class, its picture as a data URI."""

    example: str
    label: str
    picture: str


@dataclass(frozen=True)
class Suspect:
    """An example to check: its id (of a file, the path below the root), its classes, its score, its picture.

    link: of the file, `file:` and its absolute path; "" where there is none.
    picture: a data URI; "" of features without a file that could be shown.
    suggested: a class other than the label, or "".
    neighbours: the nearest training examples.
    duplicates: ids of the examples with the same pixels, each with its class.
    """

    example: str
    label: str
    predicted: str
    score: float
    link: str
    picture: str
    suggested: str = ""
    neighbours: tuple[Neighbour, ...] = ()
    duplicates: tuple[str, ...] = ()


def suspect_entries(table: pd.DataFrame, dataset: Dataset, ranked_by: str, reviewed: Review) -> list[Suspect]:
    """The first 60 rows of `analysis.suspects`, each with its picture and what helps to decide about it.

    Args:
        table: of suspects.
        dataset: n examples.
        ranked_by: the column of their score.
        reviewed: of at least the first 60 rows.
    """
    return [
        Suspect(
            example=str(entry["example"]),
            label=str(entry["label"]),
            predicted=str(entry.get("predicted", "")),
            score=float(entry.get(ranked_by, entry.get("published", float("nan")))),
            link=Path(entry["path"]).as_uri() if entry.get("path") else "",
            picture=_picture(dataset, int(row)),
            suggested=suggested,
            neighbours=tuple(_neighbour(dataset, int(other)) for other in nearby),
            duplicates=tuple(f"{dataset.ids[other]} ({_label(dataset, other)})" for other in copies),
        )
        for entry, row, suggested, nearby, copies in zip(
            table.head(PICTURES).to_dict("records"),
            reviewed.rows,
            reviewed.suggested,
            reviewed.neighbours,
            reviewed.duplicates,
            strict=False,
        )
    ]


def review_data(suspects: Sequence[Suspect], classes: Sequence[str], data_digest: str) -> dict[str, Any]:
    """What the script of the page needs to show suspects one by one and to write decisions."""
    kept = ("example", "label", "suggested", "duplicates")
    entries = [
        {name: getattr(each, name) for name in kept} | {"neighbours": [vars(other) for other in each.neighbours]}
        for each in suspects
    ]
    return {"suspects": entries, "classes": list(classes), "digest": data_digest}


def _neighbour(dataset: Dataset, row: int) -> Neighbour:
    return Neighbour(str(dataset.ids[row]), _label(dataset, row), _picture(dataset, row, THUMBNAIL))


def _label(dataset: Dataset, row: int) -> str:
    return dataset.classes[int(dataset.labels[row])]


def _picture(dataset: Dataset, row: int, most: int | None = None) -> str:
    pixels = _file_pixels(dataset, row, most or SIDE) if dataset.is_features else _image_pixels(dataset, row, most)
    if pixels is None:
        return ""
    with io.BytesIO() as file:
        imsave(file, pixels, format="png", metadata={"Software": None})
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _image_pixels(dataset: Dataset, row: int, most: int | None) -> np.ndarray:
    image: np.ndarray = dataset.images[row]
    if most is not None and max(image.shape[1:]) > most:
        image = fit(image[None], most, None)[0]
    return rgb_image(image, dataset.maximum)


def _file_pixels(dataset: Dataset, row: int, most: int) -> np.ndarray | None:
    """The picture that features are of, where there is one."""
    return None if dataset.files is None else thumbnail(str(dataset.files[row]), most)
