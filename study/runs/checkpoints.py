"""Networks kept with single runs.  in: a network, a Run   out: safetensors files, Snapshots of them"""

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from study.data import Dataset
from study.errors import StoreError
from study.models.build import create
from study.tracking import Run
from study.training.device_data import Examples
from study.training.evaluation import Snapshot
from study.training.learners import trained_learner
from study.training.placement import Placement
from study.training.types import Job

FOLDER = "checkpoints"  # of a single run
KEEPS = ("nothing", "final", "checkpoints")


def checkpoint_name(epoch: int) -> str:
    """The file of the network after so many epochs.

    >>> checkpoint_name(7)
    'checkpoints/epoch-00007.safetensors'
    """
    return f"{FOLDER}/epoch-{epoch:05}.safetensors"


def keep_network(run: Run, network: nn.Module, epoch: int) -> None:
    """Write the weights and buffers of a network, in the precision that they are kept in."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    run.bytes(checkpoint_name(epoch), save(tensors))


def kept_epochs(run: Run) -> list[int]:
    """The epochs after which a run has kept its network, ascending."""
    names = [name for name in run.files if name.startswith(f"{FOLDER}/epoch-") and name.endswith(".safetensors")]
    return sorted(int(name.removesuffix(".safetensors").rpartition("-")[2]) for name in names)


def kept_snapshot(run: Run, epoch: int, job: Job, dataset: Dataset, placement: Placement) -> Snapshot:
    """The network of one epoch, ready for examples to be put through it.

    Raises:
        StoreError: a file that is damaged, or of another network.
    """
    network = create(job.network, dataset.shape, dataset.n_classes, seed=0)
    try:
        network.load_state_dict(load(run.read(checkpoint_name(epoch)).read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise StoreError(f"run {run.id}: {checkpoint_name(epoch)} does not fit the network: {reason}") from None
    examples = Examples(dataset, job.training, placement.device, placement.master)
    return Snapshot(trained_learner(network, job, placement), examples)


def due_to_keep(keep: str, epoch: int, due: list[int]) -> bool:
    """Whether the network after this epoch is kept: the last one, or at every collection of signals.

    >>> [due_to_keep(keep, 2, [2, 4]) for keep in KEEPS]
    [False, False, True]
    """
    return epoch == due[-1] if keep == "final" else keep == "checkpoints" and epoch in np.asarray(due)
