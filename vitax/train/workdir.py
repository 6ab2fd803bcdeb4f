"""What a run leaves behind: recipe.json, metrics.jsonl, TensorBoard events, ledger.json.

Everything is written by process 0 alone, in whole lines or by an atomic rename.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitax.core.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Writes under a temporary name, then renames: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
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
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
        temporary.replace(self._path)
        self._written = {(r["step"], tuple(sorted(r))) for r in kept if r["step"] == step}
        self._file = self._path.open("a", buffering=1)
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None, flush_secs=10)

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

    def close(self) -> None:
        if self._primary:
            self._file.close()
            self._events.close()
