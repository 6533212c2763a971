"""The way of every call to MLflow; writes wait while a server is away.  in: reads, Writes   out: what MLflow returns"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from study.errors import ServerAwayError
from study.tracking import client, spool
from study.tracking.launches import this_launch
from study.tracking.spool import Spool
from study.tracking.writes import KEY, Write, run_with_key

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from study.tracking.run import Run

T = TypeVar("T")
log = logging.getLogger(__name__)


class Calls:
    """The calls of one open store."""

    def __init__(
        self, connected: "Callable[[], MlflowClient]", where: str, patience: float, spools: Path | None
    ) -> None:
        """Prepare; nothing is called.

        Args:
            connected: gives MLflow's client.
            where: file or address of the store, as messages show it.
            patience: seconds to wait for a locked database.
            spools: folder of what waits for a server; None: a database, which is never away.
        """
        self.connected, self.where, self.patience, self.spools = connected, where, patience, spools
        self.runs: dict[str, Run] = {}  # that were started or resumed here, by id
        self.spool = Spool(spools / this_launch()["id"], self._resend) if spools else None
        if self.spool:
            self.spool.on_made = self._made

    @property
    def busy(self) -> bool:
        """Whether something waits for the server."""
        return self.spool is not None and self.spool.busy

    def responds(self) -> bool:
        """Whether the server is there."""
        try:
            self.now(self.connected().search_experiments, max_results=1)
        except ServerAwayError:
            return False
        return True

    def now(self, function: Callable[..., T], *args: object, **settings: object) -> T:
        """Call MLflow without waiting for a server; see `client.call`."""
        return client.call(function, *args, where=self.where, patience=self.patience, **settings)

    def read(self, function: Callable[..., T], *args: object, **settings: object) -> T:
        """Call MLflow when all that waits has arrived; a server that is away is waited for.

        Raises:
            StoreError: see `client.call`; a server that stays away for longer than `spool.PATIENCE`.
        """
        start, said = time.monotonic(), False
        while True:
            if self.spool:
                self.spool.wait(self.where)
            try:
                return self.now(function, *args, **settings)
            except ServerAwayError as error:
                if time.monotonic() - start > spool.PATIENCE:
                    raise
                if not said:
                    log.warning(f"{error}; waiting for it")
                    said = True
            time.sleep(spool.PAUSE)

    def write(self, write: Write, file: Path | None = None) -> Any:
        """Change a run; while the server is away, and until all before it has arrived, the change waits on disk.

        Args:
            write: the change.
            file: that it keeps.

        Returns:
            what MLflow returns; None when the write waits.
        """
        if not self.busy:
            try:
                return self.now(write.perform, self.connected(), self.run_id(write.run), file)
            except ServerAwayError as error:
                if self.spool is None:
                    raise
                log.warning(f"{error}; the work goes on, results wait in {self.spool.folder}")
        if self.spool:
            self.spool.append(write, file)
        return None

    def send_left_behind(self) -> None:
        """Send what launches that have ended left on disk.

        Raises:
            StoreError: see `Spool.flush`.
        """
        if self.spools:
            spool.send_left_behind(self.spools, self._resend)

    def run_id(self, run_id: str) -> str:
        """The id of a run that may have been started while the server was away."""
        return self.spool.runs.get(run_id, run_id) if self.spool else run_id

    def _resend(self, write: Write, run_id: str, file: Path | None) -> str:
        """Send what has waited: a run that was made already, though nobody heard of it, is not made again."""
        if write.call != "create_run":
            self.now(write.perform, self.connected(), run_id, file)
            return run_id
        settings = write.settings
        before = self.now(run_with_key, self.connected(), settings["experiment_id"], settings["tags"][KEY])
        created = before or self.now(write.perform, self.connected(), run_id, file)
        return created.info.run_id

    def _made(self, key: str, run_id: str) -> None:
        """A run that was started while the server was away has its id now."""
        if key in self.runs:
            run = self.runs[run_id] = self.runs.pop(key)
            run.id = run_id
