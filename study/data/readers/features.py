"""Features that a pretrained network or another program has computed.  in: an npz or Parquet file   out: Raw

features labels [ids] [split] [files] [classes]    arrays of an npz
features label  [id] [split] [file]                columns of a Parquet table; features are lists of one length

One file has all splits, or each split has its own.
"""

import numpy as np

from study.data.raw import Raw, shown
from study.data.readers.feature_files import ENDINGS, Part, open_part
from study.data.readers.rows import Chosen, choose_rows, places, raw_of
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar


def read_features(data: DataSpec, progress: Bar) -> Raw:
    """Rows in the order of the files; ids are the file's, else `train/00012`.

    The features are in memory once, as float32, whatever the number of files and the order of their rows.

    Raises:
        DataError: no such file, arrays or columns that are missing or of different lengths, features that are not
            finite.
    """
    files = places(data, ENDINGS)
    parts = [open_part(file, data.columns) for _, file in files]
    words = np.concatenate([_words(part, split) for (split, _), part in zip(files, parts, strict=True)])
    labels, where = _joined(parts), files[0][1]
    chosen = choose_rows(words, labels, str(where))
    names = parts[0].more.get("classes")
    return raw_of(
        _features(parts, chosen),
        chosen.of(labels),
        chosen,
        where,
        ids=_texts("ids", parts, chosen),
        files=_texts("files", parts, chosen),
        classes=None if names is None else [str(name) for name in names.tolist()],
    )


def _features(parts: list[Part], chosen: Chosen) -> np.ndarray:
    """(n, d) float32 of the chosen rows; every block goes from its file to its place."""
    _refuse_other_forms([part.shape[1:] for part in parts], parts)
    place = np.full(sum(part.shape[0] for part in parts), -1)
    place[chosen.order] = np.arange(len(chosen.order))
    features, low = np.empty((len(chosen.order), parts[0].shape[1]), dtype=np.float32), 0
    for part in parts:
        for block in part.blocks():
            places_of = place[low : low + len(block)]
            kept = places_of >= 0
            with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
                features[places_of[kept]] = block if kept.all() else block[kept]
            low += len(block)
    return features


def _words(part: Part, split: str | None) -> np.ndarray:
    """(n,) in which split each row is: the file's, else its column's, else train."""
    if split is not None:
        return np.full(len(part.labels), split)
    return part.more["split"].astype(str) if "split" in part.more else np.full(len(part.labels), "train")


def _joined(parts: list[Part]) -> np.ndarray:
    """(n,) labels of all files."""
    labels = [part.labels for part in parts]
    _refuse_other_forms([array.dtype.kind in "OUS" for array in labels], parts)
    return np.concatenate(labels)


def _refuse_other_forms(forms: list[object], parts: list[Part]) -> None:
    if any(form != forms[0] for form in forms):
        raise DataError(
            f"{shown(parts[-1].file)}: features or labels are of another form than in {shown(parts[0].file)}"
        )


def _texts(role: str, parts: list[Part], chosen: Chosen) -> np.ndarray | None:
    """(n,) str of the chosen rows, where every file has it."""
    if not all(role in part.more for part in parts):
        return None
    return chosen.of(np.concatenate([part.more[role].astype(str) for part in parts]))
