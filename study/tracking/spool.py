"""Results that wait on disk while a tracking server is away.  in: Writes   out: the same, sent in order

`<root>/spool/<launch>/` holds a file for each write, numbered, with its checksum; `runs.json` says which ids the server
has given to runs that were started meanwhile.  A write is removed when it has arrived.  What a dead launch has left is
sent by the next one; the last write may then arrive twice, which changes nothing.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from study.errors import ServerAwayError, StoreError
from study.tracking import locks
from study.tracking.writes import Write

log = logging.getLogger(__name__)
PAUSE = 5.0  # seconds between two attempts to reach the server
PATIENCE = 600.0  # seconds that a launch waits at its end for a server


class Spool:
    """The writes of one launch that wait."""

    def __init__(self, folder: Path, send: Callable[[Write, str, Path | None], str]) -> None:
        """Open the folder, made when something has to wait.

        Args:
            folder: of the launch.
            send: sends a write for the run with this id, and the file with it; returns the id; raises ServerAwayError.
        """
        self.folder, self.send = folder, send
        self.lock = threading.Lock()
        self.number = 0
        self.runs: dict[str, str] = {}  # ids of the runs that were started meanwhile, by key
        self.owned = ExitStack()
        self.sending: threading.Thread | None = None
        self.failed: StoreError | None = None
        self.on_made: Callable[[str, str], None] = lambda key, run: None

    @property
    def busy(self) -> bool:
        """Whether something waits; then what comes after has to wait as well."""
        return self.sending is not None

    def waiting(self) -> list[Path]:
        """The files of the writes that wait, in order."""
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())

    def append(self, write: Write, file: Path | None = None) -> None:
        """Keep a write, and the file that belongs to it; a thread sends it when the server is back."""
        with self.lock:
            if not self.folder.is_dir():
                self.owned.enter_context(locks.held(self.folder / "lock"))
                self._write("runs.json", self.runs)
            self.number += 1
            content = write.content()
            if file is not None:
                kept = self.folder / f"{self.number:08}.file"
                shutil.copyfile(file, kept)
                _durable(kept)
                content |= {"file": file.name, "sha256": _sha256(kept.read_bytes())}
            self._write(f"{self.number:08}.json", content)
            if self.sending is None or not self.sending.is_alive():
                self.sending = threading.Thread(target=self._flush, name="spool", daemon=True)
                self.sending.start()

    def wait(self, where: str, patience: float | None = None) -> None:
        """Wait until all is sent.

        Args:
            where: address of the server.
            patience: seconds, PATIENCE unless given.

        Raises:
            StoreError: the server stays away, or refuses a write.
        """
        patience = PATIENCE if patience is None else patience
        start, said = time.monotonic(), False
        while (sending := self.sending) is not None and sending.is_alive():
            if not said:
                log.warning(f"waiting for {where}: {len(self.waiting())} results wait in {self.folder}")
                said = True
            if time.monotonic() - start > patience:
                waited = (
                    f"away for {time.monotonic() - start:.0f} s, {len(self.waiting())} results wait in {self.folder}"
                )
                raise StoreError(f"{where}: {waited}; start the server and run the same command again to send them")
            sending.join(min(1.0, PAUSE))
        if self.failed:
            raise self.failed

    def flush(self) -> None:
        """Send what waits, here and now.

        Raises:
            ServerAwayError: the server does not answer; the rest goes on waiting.
            StoreError: a file is damaged, or the server refuses it.
        """
        if (self.folder / "runs.json").is_file():
            self.runs |= self._read(self.folder / "runs.json")
        for path in self.waiting():
            content = self._read(path)
            file = self._file(path, content)
            write = Write(content["call"], content["run"], content["settings"])
            parent = write.settings.get("tags", {}).get("mlflow.parentRunId") if write.call == "create_run" else None
            if parent in self.runs:
                write.settings["tags"]["mlflow.parentRunId"] = self.runs[parent]
            run = self.send(write, self.runs.get(write.run, write.run), file)
            if write.call == "create_run":
                self.runs[write.run] = run
                self._write("runs.json", self.runs)
                self.on_made(write.run, run)
            path.unlink()
            if file is not None:
                shutil.rmtree(file.parent)

    def _flush(self) -> None:
        """Send what waits, as often as it takes."""
        while True:
            try:
                self.flush()
            except ServerAwayError:
                time.sleep(PAUSE)
                continue
            except StoreError as error:
                self.failed = error
                return
            with self.lock:
                if not self.waiting():
                    self.owned.close()
                    shutil.rmtree(self.folder, ignore_errors=True)
                    self.sending = None
                    return

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Write a file whole or not at all, with its checksum."""
        text = json.dumps(content)
        temporary = self.folder / f".{name}"
        temporary.write_text(f"{_sha256(text.encode())}\n{text}")
        _durable(temporary)
        os.replace(temporary, self.folder / name)

    def _read(self, path: Path) -> dict[str, Any]:
        total, _, text = path.read_text().partition("\n")
        if total != _sha256(text.encode()):
            raise self._damaged(path)
        return json.loads(text)

    def _file(self, path: Path, content: dict[str, Any]) -> Path | None:
        """The file of a write under its own name, in a folder of its own."""
        if "file" not in content:
            return None
        kept = path.with_suffix(".file")
        named = path.with_suffix("") / content["file"]
        if kept.is_file():
            named.parent.mkdir(exist_ok=True)
            os.replace(kept, named)
        if not named.is_file() or _sha256(named.read_bytes()) != content["sha256"]:
            raise self._damaged(named)
        return named

    def _damaged(self, path: Path) -> StoreError:
        return StoreError(f"{path}: damaged while it waited; remove {self.folder}, and run the same command again")


def send_left_behind(root: Path, send: Callable[[Write, str, Path | None], str]) -> None:
    """Send what launches that have ended left in their folders below `root`, the oldest first.

    Raises:
        StoreError: see `Spool.flush`.
    """
    for lock in sorted(root.glob("*/lock"), key=lambda path: path.stat().st_mtime):
        spool = Spool(lock.parent, send)
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.held(lock))
            except StoreError:  # its launch lives and sends them itself
                continue
            log.info(f"sending {len(spool.waiting())} results that an earlier launch has left in {spool.folder}")
            spool.flush()
            shutil.rmtree(spool.folder, ignore_errors=True)


def _durable(path: Path) -> None:
    """Make a file survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
