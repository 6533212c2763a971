"""What the workers of one ensemble share: a folder.  in: a root, a recipe, a Dataset   out: a plan, claims, results

`<root>/work/<digest>-<data>/` holds the shards that are to be trained and what their bits depend on, each written once,
by the worker that came first; a claim for each shard; and each trained shard, until `gather` has written its run.
Workers need nothing else in common, neither MLflow nor a clock.
"""

import hashlib
import json
import os
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from study.data import Dataset
from study.errors import StoreError
from study.progress import say
from study.recipe import Recipe
from study.runs.members import Shard
from study.runs.shard_runs import ShardResult
from study.tracking import files
from study.tracking.claims import Claims, write_once
from study.tracking.names import file_safe


def unit_name(shard: Shard) -> str:
    """The name of a shard's files, such as `0.3_0-9`."""
    first, last = shard.members[0], shard.members[-1]
    name = f"{shard.ratio}_{first}-{last}"
    if shard.members == tuple(range(first, last + 1)):
        return name
    return f"{name}_{hashlib.sha256(str(shard.members).encode()).hexdigest()[:8]}"


class WorkFolder:
    """The folder of the workers of one ensemble; nothing is written before it is asked for."""

    def __init__(self, root: Path, recipe: Recipe, dataset: Dataset) -> None:
        """Name the folder.

        Args:
            root: of the runs, on a disk that all workers see.
            recipe: the ensemble part.
            dataset: its data.
        """
        self.path = root / "work" / file_safe(f"{recipe.digest()}-{dataset.digest}")
        subset = recipe.subset
        size = json.dumps([list(subset.ratios), subset.members, subset.depth, recipe.runtime.shard])
        self.plan_file = self.path / f"plan-{hashlib.sha256(size.encode()).hexdigest()[:12]}.json"
        self.claims = Claims(self.path / "claims")

    def shards(self, plan: Callable[[], list[Shard]]) -> list[Shard]:
        """The shards that workers of this ensemble and size train; `plan` is called by the one that comes first."""
        kept = self._agreed(self.plan_file, lambda: [[shard.ratio, list(shard.members)] for shard in plan()])
        return [Shard(float(ratio), tuple(members)) for ratio, members in kept]

    def placement(self, choose: Callable[[], dict[str, str]]) -> dict[str, str]:
        """The tags of the first worker's placement, which the bits depend on; it calls `choose`."""
        return self._agreed(self.path / "placement.json", choose)

    @property
    def planned(self) -> bool:
        """Whether shards are planned; no more after all were gathered."""
        return self.plan_file.is_file()

    def trained(self) -> set[str]:
        """Names of the shards that were trained, whether or not their run is written."""
        return {path.stem for path in self._files() if path.suffix in (".npz", ".written")}

    def keep(self, result: ShardResult) -> None:
        """Keep a trained shard, whole or not at all.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self.path / f"{unit_name(result.shard)}.npz"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{socket.gethostname()}.{threading.get_ident()}")
        more = {"losses": result.losses, "times": np.array([result.started, result.seconds])}
        text = {"like": np.array(json.dumps(dict(result.like))), "host": np.array(result.host)}
        try:
            files.write_arrays(temporary, {**result.arrays, **more, **text})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}; free space or allow writing there") from error
        finally:
            temporary.unlink(missing_ok=True)

    def results(self) -> Iterator[tuple[Path, ShardResult]]:
        """The shards whose runs are not written; a damaged one is named, and trained again."""
        for path in sorted(self._files()):
            if path.suffix != ".npz":
                continue
            try:
                arrays, _ = files.read_arrays(path)
                started, seconds = arrays.pop("times")
                like, host = json.loads(str(arrays.pop("like"))), str(arrays.pop("host"))
                losses = arrays.pop("losses")
                yield path, ShardResult(arrays, losses, like, float(started), float(seconds), host)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                say(f"{path}: damaged ({error}); its members are trained again")
                path.unlink(missing_ok=True)
                self.claims.reopen(path.stem)

    def written(self, path: Path) -> None:
        """Note that the run of a shard is written; its file is no longer needed."""
        path.with_suffix(".written").touch()
        path.unlink(missing_ok=True)

    def reopen(self, missing: Collection[Shard]) -> None:
        """Let workers train what the store lacks though it was written, or what they were not to train before."""
        if not self.planned:
            return
        units = {unit_name(shard) for shard in self.shards(list)}
        for shard in missing:
            name = unit_name(shard)
            if (note := self.path / f"{name}.written").exists():
                note.unlink()
                self.claims.reopen(name)
            if name not in units:
                self.plan_file.unlink(missing_ok=True)  # the next worker plans anew

    def wait(self, waiting: Callable[[str], None]) -> None:
        """Wait until no worker is at a shard; `waiting` hears of one that is."""
        while holders := self.claims.holders():
            waiting(next(iter(holders.values())))
            threading.Event().wait(1.0)

    def remove(self) -> None:
        """Remove the folder: every shard has its run.  Workers that come now begin with what the store lacks."""
        self.plan_file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _agreed(self, path: Path, choose: Callable[[], Any]) -> Any:
        """What the first worker has chosen."""
        if not path.is_file():
            write_once(path, choose())
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: {error}; remove {self.path} and start the workers again") from error

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.path.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []
