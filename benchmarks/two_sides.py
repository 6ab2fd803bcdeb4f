"""Times two programs in turn: ours in this process, the other in a process with another Python.

Only one works at a time, so neither library's threads live beside the other's, and what
else the machine does meets both. A side is a function: number of rounds -> seconds.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence

Side = Callable[[int], float]


def use_cores(threads: int) -> None:
    """Keeps this process to so many cores; XLA sizes its pool by them at import."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def serve(side: Side) -> None:
    """Runs as many rounds as each line of stdin says, answers with the seconds."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(side(int(line)), flush=True)


class Other:
    """A side in a process of its own, which calls ``serve``.

    Args:
      command: of the process.
    """

    def __init__(self, command: Sequence[str]):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit("The other side did not start; see scripts/requirements-parity.txt.")

    def __call__(self, rounds: int) -> float:
        print(rounds, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def alternate(sides: dict[str, Side], bursts: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a round of each burst, the sides in turn after a warm-up of each."""
    for side in sides.values():
        side(1)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(bursts):
        for name, side in sides.items():
            times[name].append(side(rounds) / rounds)
    return times


def ratio(times: dict[str, list[float]], other: str) -> float:
    """The median over bursts of the other's time by ours: above 1, vitax is faster."""
    return statistics.median(t / v for t, v in zip(times[other], times["vitax"]))


def load() -> str:
    """What else the machine does, as of now."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
