"""Keeps ``ledger.json`` up to date while a run goes on, so that a kill loses little of it."""

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from vitax.core.errors import UserError
from vitax.cost import statement
from vitax.cost.ledger import Ledger
from vitax.train import terminal
from vitax.train.clock import Clock
from vitax.train.workdir import write_json

log = logging.getLogger("vitax")

# What a killed start may have spent without its being known.
_EVERY_SECONDS = 5.0


class Account:
    """The ledger of a running start: a context that writes it every few seconds and at the end.

    A thread of process 0 writes, from host counters alone: nothing waits for a device,
    and time in one long compilation, evaluation or stall is on disk too.

    Attributes:
      ledger: the sums.
    """

    def __init__(self, ledger: Ledger, path: Path, clock: Clock, primary: bool = True):
        """Opens the account.

        Args:
          ledger: what earlier starts left.
          path: the file to keep up to date.
          clock: of this start.
          primary: whether this process writes.
        """
        self.ledger, self._path, self._clock, self._primary = ledger, path, clock, primary
        self._start = self._step = 0
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # one writer of the temporary file, and no older value over a newer
        self._thread = threading.Thread(target=self._follow, name="ledger", daemon=True)

    def __enter__(self) -> "Account":
        if self._primary:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        if not self._primary:
            return
        self._done.set()
        self._thread.join()
        if not isinstance(error, UserError):  # bad input is no start
            self.write()
            terminal.console().print(statement.line(self.read()), markup=False)

    def restored(self, step: int, metadata: dict[str, Any]) -> None:
        """Says at which step this start begins, and what the checkpoint knew (or nothing)."""
        with self._lock:
            self.ledger.restored(step, metadata.get("ledger"))
            self._start = self._step = step

    def reached(self, step: int) -> None:
        """Says how many steps the device has finished."""
        self._step = step

    def read(self) -> dict[str, Any]:
        """The ledger up to now."""
        with self._lock:
            return self.ledger.read(self._clock.read(), self._step - self._start)

    def write(self) -> None:
        """Brings the file up to date. One that cannot be written is no reason to stop a run."""
        if not self._primary:
            return
        try:
            with self._writing:
                write_json(self._path, self.read())
        except OSError as error:
            log.warning("%s was not written: %s", self._path, error)

    def _follow(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            self.write()
