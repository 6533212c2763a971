"""Files of runs on disk.  in: a path, arrays   out: checksums, npz files, arrays"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def sha256(path: Path) -> str:
    """128 bits of the checksum: a tag, which has those of all files, holds 8,000 letters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """Write a compressed npz; no objects."""
    import numpy as np

    # np.savez_compressed at level 6 takes four times as long, and packed bits do not get any smaller
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def read_arrays(path: Path, keys: Sequence[str] = ()) -> "tuple[dict[str, np.ndarray], set[str]]":
    """Read the arrays of these names that there are, all unless given; and the names of all that there are."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        return {key: archive[key] for key in names if not keys or key in keys}, set(names)
