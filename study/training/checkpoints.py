"""Trained networks as bytes.  in: a network   out: safetensors, and a Snapshot of them"""

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from study.data import Dataset
from study.errors import StoreError
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
