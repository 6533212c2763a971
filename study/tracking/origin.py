"""Where a run comes from.  in: nothing   out: tags"""

import functools
import getpass
import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from study import plugins
from study.tracking.launches import this_launch


def origin(schema: str) -> dict[str, str]:
    """The tags of a run that say where it comes from: launch, user, versions, commit."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    tags = {
        "study.schema": schema,
        "study.launch": json.dumps(this_launch()),
        "mlflow.source.name": "study",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user,
    }
    return {**tags, **_versions(), **plugins.tags()}


@functools.cache
def _versions() -> dict[str, str]:
    """Read the versions that shape the numbers, without importing what they name."""
    versions = {"study.python": platform.python_version()}
    for package in ("study", "torch", "numpy", "mlflow"):
        with suppress(PackageNotFoundError):
            versions["study.version" if package == "study" else f"study.{package}"] = version(package)
    commit = _commit(Path(__file__).parent)
    return {**versions, "study.commit": commit} if commit else versions


def _commit(folder: Path) -> str | None:
    """Read the git commit of the checkout, `+dirty` when tracked files have changed; None when this is no checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed inside somebody else's repository: not ours
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain", "-uno", ":/") else "")
    except (OSError, subprocess.SubprocessError):
        return None
