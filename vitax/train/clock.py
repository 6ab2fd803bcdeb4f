"""Where the time of a run went: parts that add up to the wall time."""

import contextlib
import time
from collections.abc import Iterator

PARTS = ("startup", "compile", "train", "data_wait", "evaluation", "checkpoint")


class Clock:
    """Exactly one part runs at any moment, so the parts sum to the wall time.

    Attributes:
      seconds: part -> seconds so far.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part = "startup"
        self._since = time.perf_counter()

    def switch(self, part: str) -> str:
        """Ends the running part and starts ``part``; returns the one that ended."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
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
        self.switch(self._part)
        return dict(self.seconds)
