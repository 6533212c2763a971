"""Claims on parts of a work, files on a folder that several machines share.  in: a folder, names   out: held claims

A claim is a file `<name>.<turn>`, made whole and only once, which network file systems grant as well.  Its holder
changes it every BEAT seconds.  A claim that stays the same for GRACE seconds, or whose process on this machine has
ended, is followed by one of the next turn; that needs no common clock, and of two processes that try one succeeds.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from study.errors import StoreError
from study.tracking import launches

log = logging.getLogger(__name__)
Claim = dict[str, Any]


class Claims:
    """The claims of this process in one folder, and what it sees of those of others."""

    def __init__(self, folder: Path, lost: Callable[[str], None] = lambda name: None) -> None:
        """Prepare; nothing is written before `take`.

        Args:
            folder: of the claims, made when need be.
            lost: called in another thread with the name of a claim that another process has taken over.
        """
        self.folder, self.lost = folder, lost
        self.launch = launches.this_launch()
        self.held: dict[str, Path] = {}
        self.beats = 0
        self.watched: dict[Path, tuple[str, float]] = {}
        self.read = 0.0
        self.lock, self.ended = threading.RLock(), threading.Event()
        self.beating: threading.Thread | None = None

    def take(self, name: str) -> bool:
        """Claim a part, unless it is done, held by a living process, or another one is faster.

        Raises:
            StoreError: the folder cannot be written.
        """
        turn, latest = self._latest(name)
        if latest is not None and not self._free(self._path(name, turn), latest):
            return False
        path = self._path(name, turn + 1)
        if not write_once(path, self._content("held")):
            return False
        with self.lock:
            self.held[name] = path
        if self.beating is None:
            self.beating = threading.Thread(target=self._beat, name="claims", daemon=True)
            self.beating.start()
        return True

    def holds(self, name: str) -> bool:
        """Whether this process still has the claim: another may have taken it over while this one was silent."""
        with self.lock:
            path = self.held.get(name)
        return path is not None and self._latest(name)[0] == _turn(path)

    def end(self, name: str, state: str) -> None:
        """Mark a claim as "done", or give it back as "free"."""
        with self.lock:
            path = self.held.pop(name, None)
            if path is not None and path.exists():
                _replace(path, self._content(state))

    def reopen(self, name: str) -> None:
        """Give a part that was done back to all: its result is lost."""
        turn, latest = self._latest(name)
        if latest is not None and latest["state"] == "done":
            _replace(self._path(name, turn), {**latest, "state": "free"})

    def done(self, name: str) -> bool:
        """Whether a part was marked as done."""
        latest = self._latest(name)[1]
        return latest is not None and latest["state"] == "done"

    def holders(self) -> dict[str, str]:
        """Who holds what: parts of living processes, by name."""
        alive = {}
        for name in sorted({path.name.rpartition(".")[0] for path in self._paths()}):
            turn, latest = self._latest(name)
            if latest and latest["state"] == "held" and not self._free(self._path(name, turn), latest):
                alive[name] = _holder(latest)
        return alive

    def close(self) -> None:
        """Give back what is held, and end the signs of life."""
        self.ended.set()
        if self.beating is not None:
            self.beating.join(1.0)  # no longer: a signal's handler may have come between, which holds the lock
        for name in list(self.held):
            with suppress(StoreError):  # it runs out by itself
                self.end(name, "free")

    def _free(self, path: Path, claim: Claim) -> bool:
        """Whether a claim was given back, or its holder shows no sign of life any more."""
        if claim["state"] != "held":
            return claim["state"] == "free"
        text, now = json.dumps(claim), time.monotonic()
        if now - self.read > launches.BEAT:  # nobody looked, or the folder was away, for others as well
            self.watched.clear()
        self.read = now
        before, since = self.watched.get(path, ("", 0.0))
        if text != before:
            before, since = self.watched[path] = (text, now)
        return launches.gone(claim["launch"]) or now - since > launches.GRACE

    def _beat(self) -> None:
        """Show a sign of life for every claim that is held."""
        while not self.ended.wait(launches.BEAT):
            with self.lock:
                self.beats += 1
                for name, path in list(self.held.items()):
                    try:
                        if self._latest(name)[0] != _turn(path):
                            del self.held[name]
                            self.lost(name)
                        else:
                            _replace(path, self._content("held"))
                    except StoreError as error:
                        log.debug(f"claim {name}: {error}")

    def _content(self, state: str) -> Claim:
        since = datetime.now().astimezone().isoformat("T", "seconds")
        return {"launch": self.launch, "state": state, "beat": self.beats, "since": since}

    def _latest(self, name: str) -> tuple[int, Claim | None]:
        """The last turn of a part and its claim; 0 and None where there is none."""
        turn, claim = 0, None
        while True:
            try:
                claim = json.loads(self._path(name, turn + 1).read_text(encoding="utf-8"))
            except FileNotFoundError:
                return turn, claim
            except OSError as error:
                raise _unusable(self.folder, error) from error
            turn += 1

    def _path(self, name: str, turn: int) -> Path:
        return self.folder / f"{name}.{turn}"

    def _paths(self) -> list[Path]:
        """All claims in the folder."""
        try:
            return [path for path in self.folder.iterdir() if path.suffix[1:].isdigit() and path.name[0] != "."]
        except FileNotFoundError:
            return []


def write_once(path: Path, content: object) -> bool:
    """Make a JSON file that nobody has made before, whole; False when somebody has.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        temporary = _temporary(path, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path.parent, error) from error
    return True


def _replace(path: Path, content: object) -> None:
    """Write a JSON file anew, whole."""
    try:
        os.replace(_temporary(path, content), path)
    except OSError as error:
        raise _unusable(path.parent, error) from error


def _temporary(path: Path, content: object) -> Path:
    """A file of this content, beside the one that it becomes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{launches.this_launch()['id']}.{threading.get_ident()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _unusable(folder: Path, error: OSError) -> StoreError:
    reason = error.strerror or error
    return StoreError(f"{folder}: {reason}; workers need a folder that they can write and that has hard links (--root)")


def _turn(path: Path) -> int:
    return int(path.suffix[1:])


def _holder(claim: Claim) -> str:
    """Say who holds a claim."""
    since = datetime.fromisoformat(claim["since"])
    return f"pid {claim['launch']['pid']} on {claim['launch']['host']} since {since:%Y-%m-%d %H:%M}"
