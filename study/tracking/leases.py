"""Leases on a tracking server: of the launches that would train the same, one does.  in: a Store   out: a held lease

Launches on one machine exclude each other by file locks; two roots or two machines have nothing but the server in
common, and that has no locks.  A lease is a tag of the experiment, one for each launch.  Who wants it writes a claim,
looks again, and holds it only when there is no other; of two claims the one with the smaller launch id goes on.  The
holder changes its tag every BEAT seconds.  A lease that stays the same for GRACE seconds is removed by whoever waits
for it, which needs no common clock.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from study.errors import StoreError
from study.tracking import launches

if TYPE_CHECKING:
    from study.tracking.store import Store

log = logging.getLogger(__name__)
POLL = 1.0  # seconds between two attempts


class Lease:
    """The lease of one launch on one name within an experiment."""

    def __init__(
        self, store: "Store", experiment_id: str, name: str, lost: Callable[[], None], parts: Collection[str] = ()
    ) -> None:
        """Prepare; nothing is written before `held`.

        Args:
            store: on a server.
            experiment_id: of the experiment whose tags hold the lease.
            name: what is leased, as a file name.
            lost: called in another thread when another launch has taken the lease over.
            parts: of what is leased; launches that lease other parts do not exclude each other.  Empty: all of it.
        """
        self.store, self.experiment_id, self.lost, self.parts = store, experiment_id, lost, sorted(parts)
        self.prefix = f"study.lease.{name}."
        self.launch = launches.this_launch()
        self.key = self.prefix + self.launch["id"]
        self.since = datetime.now(UTC).isoformat("T", "seconds")
        self.turn, self.beats = 1, 0
        self.watched: dict[str, tuple[str, float]] = {}
        self.read = 0.0
        self.ended = threading.Event()

    @contextmanager
    def held(self, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the lease; see `locks.held`."""
        self._acquire(waiting)
        beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        beating.start()
        try:
            yield
        finally:
            self.ended.set()
            beating.join()
            with suppress(StoreError):  # it runs out by itself
                self._remove(self.key)

    def _acquire(self, waiting: Callable[[str], None] | None) -> None:
        claimed = False
        try:
            while True:
                others = self._others()
                ahead = [lease for key, lease in others.items() if lease["held"] or key < self.key]
                if ahead and claimed:
                    self._remove(self.key)
                    claimed = False
                if ahead and waiting is None:
                    raise StoreError(f"already running: {_holder(ahead[0])}; wait for it or stop it")
                if ahead and waiting is not None:
                    waiting(_holder(ahead[0]))
                elif not claimed:
                    self._write(held=False)
                    claimed = True
                    continue  # look again, now that others see the claim
                elif not others:
                    self._write(held=True)
                    return
                time.sleep(POLL)
        except BaseException:
            if claimed:
                with suppress(StoreError):
                    self._remove(self.key)
            raise

    def _others(self) -> dict[str, dict[str, Any]]:
        """The leases of other launches that live; those of the dead are removed."""
        alive, tags, now = {}, self._tags(), time.monotonic()
        if now - self.read > launches.BEAT:  # the server was away, for others as well
            self.watched.clear()
        self.read = now
        for key, text in tags.items():
            if key == self.key:
                continue
            lease = json.loads(text)
            if not self._excludes(lease):
                continue
            self.turn = max(self.turn, lease["turn"] + 1)
            before, since = self.watched.get(key, ("", 0.0))
            if text != before:
                before, since = self.watched[key] = (text, now)
            if launches.gone(lease["launch"]) or now - since > launches.GRACE:
                self._remove(key)
            else:
                alive[key] = lease
        return alive

    def _beat(self) -> None:
        """Show a sign of life until the lease ends, or until another launch has taken it over."""
        while not self.ended.wait(launches.BEAT):
            try:
                tags = self._tags()
                leases = [json.loads(text) for key, text in tags.items() if key != self.key]
                held = [lease for lease in leases if lease["held"] and self._excludes(lease)]
                later = [lease for lease in held if lease["turn"] > self.turn]
                if later or self.key not in tags:
                    who = _holder(later[0]) if later else "another launch"
                    log.warning(f"this launch was silent for {launches.GRACE} s and {who} goes on; this one ends")
                    self.lost()
                    return
                self._write(held=True)
            except StoreError as error:
                log.debug(f"lease: {error}")

    def _excludes(self, lease: Mapping[str, Any]) -> bool:
        """Whether it is on a part of what is leased here."""
        return not self.parts or not lease["parts"] or not set(self.parts).isdisjoint(lease["parts"])

    def _write(self, *, held: bool) -> None:
        self.beats += 1
        content = {"launch": self.launch, "parts": self.parts, "since": self.since, "held": held}
        content |= {"turn": self.turn, "beat": self.beats}
        self.store.calls.now(self.store.client.set_experiment_tag, self.experiment_id, self.key, json.dumps(content))

    def _remove(self, key: str) -> None:
        """Remove a tag; another launch may have done so."""
        with suppress(StoreError):
            self.store.calls.now(self.store.client.delete_experiment_tag, self.experiment_id, key)

    def _tags(self) -> Mapping[str, str]:
        """The leases of this name, by key."""
        tags = self.store.calls.now(self.store.client.get_experiment, self.experiment_id).tags
        return {key: text for key, text in sorted(tags.items()) if key.startswith(self.prefix)}


def _holder(lease: Mapping[str, Any]) -> str:
    """Say who holds a lease."""
    since = datetime.fromisoformat(lease["since"]).astimezone()
    return f"pid {lease['launch']['pid']} on {lease['launch']['host']} since {since:%Y-%m-%d %H:%M}"
