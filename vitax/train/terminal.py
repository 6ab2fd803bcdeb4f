"""What a person sees: a table before step 1, a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

SHOWN = {"train/loss": "loss {:.4f}", "train/accuracy": "acc {:.3f}", "lr": "lr {:.2e}"}


def console() -> Console:
    """Progress goes to stderr; stdout is for results."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def count(n: float) -> str:
    """1234567 -> ``1.23 M``."""
    for unit in ("", "K", "M", "G", "T", "P"):
        if abs(n) < 1000:
            return f"{n:.3g} {unit}".strip()
        n /= 1000
    return f"{n:.3g} E"


def size(num_bytes: float) -> str:
    """Bytes in binary units: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Prints one table of names and values."""
    grid = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    console().print(grid)


@contextlib.contextmanager
def download_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar a file with speed and ETA on a terminal, nothing elsewhere; yields ``(file, bytes, total) -> None``."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console(), disable=not sys.stderr.isatty()) as live:
        tasks: dict[str, TaskID] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = live.add_task(file, total=total)
            live.update(tasks[file], completed=done)

        yield show


class Bar:
    """Progress of one run, quiet on all processes but the first."""

    def __init__(self, total_steps: int, start: int, primary: bool = True):
        self._primary = primary
        self._console = console()
        self._live: Progress | None = None
        self._total, self._start, self._begun = total_steps, start, time.monotonic()
        if primary and self._console.is_terminal:
            whole = Column(no_wrap=True)
            # The values come last and give way first where the terminal is narrow.
            self._live = Progress(
                MofNCompleteColumn(table_column=whole),
                BarColumn(bar_width=10, table_column=whole),
                TextColumn("ETA", table_column=whole),
                TimeRemainingColumn(compact=True, table_column=whole),
                TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
                console=self._console,
                expand=True,
            )
            self._live.start()
            self._task = self._live.add_task("train", total=total_steps, completed=start, note="")

    def advance(self, step: int) -> None:
        """Moves the bar; cheap, may be called every step."""
        if self._live:
            self._live.update(self._task, completed=step)

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values of a logged step."""
        if not self._primary:
            return
        parts = [text.format(values[name]) for name, text in SHOWN.items() if name in values]
        if "examples_per_second" in values:
            parts.append(f"{count(values['examples_per_second'])} ex/s")
        if "data_wait_fraction" in values:
            parts.append(f"data wait {values['data_wait_fraction']:.0%}")
        parts += [f"{k} {v:.4f}" for k, v in values.items() if "/" in k and not k.startswith("train/")]
        line = "  ".join(parts)
        if self._live and any("/" in k and not k.startswith("train/") for k in values):
            self._live.console.print(f"step {step}  {line}")  # evaluations stay on the screen
        elif self._live:
            self._live.update(self._task, completed=step, note=line)
        else:
            done = max(step - self._start, 1)
            eta = (time.monotonic() - self._begun) / done * (self._total - step)
            self._console.print(f"step {step}/{self._total}  {line}  ETA {eta:.0f} s")

    def say(self, text: str) -> None:
        """One line of plain text."""
        if self._primary:
            (self._live.console if self._live else self._console).print(text)

    def close(self) -> None:
        if self._live:
            self._live.stop()


def counting(what: str, total: int) -> Callable[[int], None]:
    """Progress of work on many files: a line every few seconds, none where it is quick.

    Returns:
      A function to call with the number done so far.
    """
    begun = said = time.monotonic()

    def told(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > 3.0 and done < total:
            said = now
            left = (now - begun) / done * (total - done)
            console().print(f"{what}: {done:,} of {total:,}, {left:.0f} s left")

    return told
