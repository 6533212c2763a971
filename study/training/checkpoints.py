"""Trained networks as bytes.  in: a network   out: safetensors, and a Snapshot of them; tensors of a file"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from study.data import Dataset
from study.errors import RecipeError, StoreError
from study.models.build import create
from study.training.device_data import Examples
from study.training.evaluation import Snapshot
from study.training.learners import trained_learner
from study.training.placement import Placement
from study.training.types import Job


def network_bytes(network: nn.Module) -> bytes:
    """Weights and buffers as safetensors, in the precision that they are kept in."""
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()})


def snapshot_from(content: bytes, job: Job, dataset: Dataset, placement: Placement) -> Snapshot:
    """A network that was kept, ready for examples to be put through it.

    Raises:
        StoreError: bytes that are damaged, or of another network.
    """
    network = create(job.network, dataset.shape, dataset.n_classes, seed=0)
    try:
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise StoreError(f"weights do not fit the network: {' '.join(str(error).split())[:120]}") from None
    examples = Examples(dataset, job.training, placement.device, placement.master)
    return Snapshot(trained_learner(network, job, placement), examples)


def file_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch file by name, in its order; nothing is executed.

    Raises:
        RecipeError: a file that cannot be read, or that holds more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, SafetensorError, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise RecipeError(f"{file}: cannot be read as weights ({line}); give .safetensors or a state_dict") from None
    except pickle.UnpicklingError:
        raise RecipeError(f"{file}: holds more than tensors; save the state_dict alone") from None
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else {}
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
