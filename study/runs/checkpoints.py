"""Networks kept with single runs.  in: a Run   out: which of them it keeps, and under what names"""

import numpy as np

from study.tracking import Run

FOLDER = "checkpoints"  # of a single run
KEEPS = ("nothing", "final", "checkpoints")


def checkpoint_name(epoch: int) -> str:
    """The file of the network after so many epochs.

    >>> checkpoint_name(7)
    'checkpoints/epoch-00007.safetensors'
    """
    return f"{FOLDER}/epoch-{epoch:05}.safetensors"


def kept_epochs(run: Run) -> list[int]:
    """The epochs after which a run has kept its network, ascending."""
    names = [name for name in run.files if name.startswith(f"{FOLDER}/epoch-") and name.endswith(".safetensors")]
    return sorted(int(name.removesuffix(".safetensors").rpartition("-")[2]) for name in names)


def due_to_keep(keep: str, epoch: int, due: list[int]) -> bool:
    """Whether the network after this epoch is kept: the last one, or at every collection of signals.

    >>> [due_to_keep(keep, 2, [2, 4]) for keep in KEEPS]
    [False, False, True]
    """
    return epoch == due[-1] if keep == "final" else keep == "checkpoints" and epoch in np.asarray(due)
