"""`study.extract_features`.  in: images, a pretrained network   out: a file of features"""

import threading
from os import PathLike
from pathlib import Path

from study.data import Dataset
from study.progress import Bar, quiet

ON_CPU = 16  # examples in a batch; with 64 the activations of an efficientnet took half of the time to be allocated
ON_GPU = 64


def extract_features(
    data: Dataset,
    out: str | PathLike[str],
    *,
    model: str,
    weights: str | PathLike[str] | None = None,
    size: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Bar = quiet,
    stop: threading.Event | None = None,
) -> Path:
    """Compute the features of images by a pretrained network, for C-scores by linear heads.

    Args:
        data: images; gray ones are repeated for the three channels.
        out: an .npz file, which `Dataset.from_name("features", root=out)` opens.
        model: one of timm's names, such as "resnet18.a1_in1k".
        weights: a .safetensors or torch file of this network; the published ones from the hub unless given.
        size: pixels that the images are brought to; as the network was pretrained unless given.  Smaller is faster.
        device: auto, cpu, cuda.
        batch_size: examples at a time; 16 on a CPU and 64 on a GPU unless given.
        progress: opens a display; see `study.progress`.
        stop: set to end after the next batch.

    Returns:
        The file: features (n, d) float32, labels, ids, split, classes, and files where the images have some.

    Raises:
        RecipeError: no such network or device, weights that cannot be fetched or do not fit.
        DataError: data that are features already, or a file that cannot be written.

    >>> import tempfile, timm, torch
    >>> digits = Dataset.from_name("digits", limit=1, limit_test=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = f"{folder}/weights.pt"
    ...     torch.save(timm.create_model("test_resnet").state_dict(), weights)
    ...     file = extract_features(digits, f"{folder}/features.npz", model="test_resnet", weights=weights)
    ...     Dataset.from_name("features", root=str(file)).shape
    (96, 1, 1)
    """
    from study.models.backbone import load_backbone
    from study.training.checkpoints import file_tensors
    from study.training.features import write_features
    from study.training.placement import find_devices

    file, where = Path(out).expanduser(), find_devices(device)[0]
    tensors = None if weights is None else file_tensors(Path(weights).expanduser())
    backbone = load_backbone(model, tensors, side=size, device=where)
    batch_size = batch_size or (ON_CPU if where == "cpu" else ON_GPU)
    write_features(data, backbone, file, device=where, batch_size=batch_size, progress=progress, stop=stop)
    return file
