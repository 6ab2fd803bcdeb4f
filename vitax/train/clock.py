"""Where the time of a start went: parts that add up to its wall time."""

import contextlib
import threading
import time
from collections.abc import Iterator

PARTS = ("startup", "compile", "productive", "data_wait", "evaluation", "checkpoint")


class Clock:
    """Exactly one part runs at any moment, so the parts sum to the wall time.

    One thread switches; others may read.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._part = "startup"
        self._since = time.perf_counter()
        # A reader must not see a part that has ended but not been added, or added twice.
        self._lock = threading.Lock()

    def switch(self, part: str) -> str:
        """Ends the running part and starts ``part``; returns the one that ended."""
        with self._lock:
            now = time.perf_counter()
            self._seconds[self._part] += now - self._since
            self._since, before, self._part = now, self._part, part
        return before

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Runs ``name`` within the context, then goes back to the part before."""
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def read(self) -> dict[str, float]:
        """Part -> seconds, up to now."""
        with self._lock:
            seconds = dict(self._seconds)
            seconds[self._part] += time.perf_counter() - self._since
        return seconds
