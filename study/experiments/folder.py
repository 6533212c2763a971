"""Files in a folder that the caller names.  in: names and bytes   out: the paths written"""

from collections.abc import Iterable
from pathlib import Path

from study.errors import StoreError


def write_files(files: Iterable[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Write each file into the folder, which is made if it is not there; one file is made at a time.

    Raises:
        StoreError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            (folder / name).write_bytes(content)
            written.append(folder / name)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}; name another folder with --out") from None
    return written
