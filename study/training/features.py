"""Features of images by a pretrained network.  in: a Dataset, a Backbone   out: an npz file, written batch by batch"""

import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from study.data import Dataset
from study.errors import DataError, Stopped
from study.models.backbone import Backbone
from study.progress import Bar, quiet


def feature_batches(dataset: Dataset, backbone: Backbone, *, device: str, batch_size: int) -> Iterator[np.ndarray]:
    """The features of all examples in their order, (b, d) float32 at a time.

    Raises:
        DataError: the data are features already.
    """
    if dataset.is_features:
        raise DataError(f"{dataset.name}: these are features already; name a recipe whose data are images")
    for low in range(0, dataset.n, batch_size):
        images = torch.from_numpy(np.ascontiguousarray(dataset.images[low : low + batch_size])).to(device)
        yield backbone.features(images.float() / dataset.maximum).cpu().numpy()


def write_features(
    dataset: Dataset,
    backbone: Backbone,
    file: Path,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    progress: Bar = quiet,
    stop: threading.Event | None = None,
) -> tuple[int, int]:
    """Write what `data.name = "features"` reads: features, labels without noise, ids, split, classes, files.

    One batch of features is held at a time, whatever the number of examples.  The file is there once it is whole.

    Returns:
        (n, d).

    Raises:
        DataError: see `feature_batches`; the file cannot be written.
        Stopped: `stop` was set.
    """
    draft = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(draft, "w") as archive, progress("features", dataset.n) as advance:
            width = 0
            with archive.open("features.npy", "w", force_zip64=True) as member:
                for batch in feature_batches(dataset, backbone, device=device, batch_size=batch_size):
                    if stop is not None and stop.is_set():
                        raise Stopped
                    if not width:
                        width = batch.shape[1]
                        header = {"descr": "<f4", "fortran_order": False, "shape": (dataset.n, width)}
                        np.lib.format.write_array_header_1_0(member, header)
                    member.write(batch.astype("<f4").tobytes())
                    advance(len(batch))
            for name, array in _companions(dataset).items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        draft.replace(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); name another file") from None
    finally:
        draft.unlink(missing_ok=True)
    return dataset.n, width


def _companions(dataset: Dataset) -> dict[str, np.ndarray]:
    arrays = {"labels": dataset.clean_labels, "ids": dataset.ids, "split": dataset.split()}
    arrays["classes"] = np.array(dataset.classes, dtype=str)
    return arrays if dataset.files is None else arrays | {"files": dataset.files.astype(str)}
