"""What a run leaves behind: recipe.json, metrics.jsonl, TensorBoard events, ledger.json.

Everything is written by process 0 alone, in whole lines or by an atomic rename.
"""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitax.core import paths
from vitax.core.errors import UserError, suggest

# How often the files of a run are copied to an object store, which charges by the call.
_COPY_SECONDS = 30.0


def write_json(path: Path, value: Any) -> None:
    """Writes under a temporary name, then renames: a reader never sees half a file."""
    _write(path, json.dumps(value, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    if paths.is_url(path):  # an object appears whole, or not at all
        path.write_text(text)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read_json(path: Path) -> Any | None:
    """The content, or None where there is no such file.

    Raises:
      UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Mend or delete it.") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line cut off by a crash is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events of one run.

    A row holds ``step`` and the values of that step alone. Opening the log at a
    step cuts rows of later steps away, so that a resumed run leaves the same file
    as a straight one.
    """

    def __init__(self, workdir: Path, step: int, primary: bool = True):
        """Opens (and cuts back) the log.

        Args:
          workdir: the run's folder.
          step: the restored step; 0 for a fresh run.
          primary: whether this process writes.
        """
        self._primary = primary
        if not primary:
            return
        self._path = workdir / "metrics.jsonl"
        kept = [r for r in read_rows(self._path) if r.get("step", 0) <= step]
        _write(self._path, "".join(json.dumps(r) + "\n" for r in kept))
        self._written = {(r["step"], tuple(sorted(r))) for r in kept if r["step"] == step}
        self._store = workdir if paths.is_url(workdir) else None
        self._local = workdir
        if self._store is not None:
            # Objects cannot be appended to: the files grow here and are copied there.
            self._folder = tempfile.TemporaryDirectory(prefix="vitax")
            self._local = Path(self._folder.name)
            (self._local / self._path.name).write_text(self._path.read_text())
        self._file = (self._local / self._path.name).open("a", buffering=1)
        self._copied = time.monotonic()
        from tensorboardX import SummaryWriter

        events = str(self._local / "tensorboard")
        self._events = SummaryWriter(events, purge_step=step + 1 if step else None, flush_secs=10)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row. A row that the restored step already has is not repeated."""
        if not self._primary:
            return
        row = {"step": step, **{k: float(v) for k, v in values.items()}}
        if (step, tuple(sorted(row))) in self._written:
            return
        self._file.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, float(value), step)
        if time.monotonic() - self._copied > _COPY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Brings an object store up to date; rows up to a checkpoint must be there before it is."""
        if self._primary and self._store is not None:
            self._events.flush()
            self._copy()

    def _copy(self) -> None:
        if self._store is None:
            return
        for path in [p for p in self._local.rglob("*") if p.is_file()]:
            target = self._store / str(path.relative_to(self._local))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        self._copied = time.monotonic()

    def close(self) -> None:
        if self._primary:
            self._file.close()
            self._events.close()
            self._copy()
            if self._store is not None:
                self._folder.cleanup()


def beside(workdir: Path) -> str:
    """`` Workdirs beside it: ...`` for the message about a folder that holds no run, or nothing."""
    if not workdir.parent.is_dir():
        return ""
    near = sorted(str(p.parent) for p in workdir.parent.glob("*/recipe.json"))
    return f"{suggest(str(workdir), near)} Workdirs beside it: {', '.join(near[:8])}." if near else ""
