"""Checkpoints as a user handles them: list, verify, export, copy. Plain rows, and lines for a person."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vitax.checkpoint import digest, export, offline, seal, store, transfer, warm_start, weight_writer
from vitax.checkpoint.files import is_weight_file
from vitax.core.errors import UserError
from vitax.train.terminal import count, size

# Lines of damage shown of a step.
_SHOWN = 20


def listing(directory: str) -> list[dict[str, Any]]:
    """The steps of a workdir, oldest first; files are checked against the seal, arrays are not opened.

    Returns:
      Rows ``step, bytes, saved`` (ISO time), ``state`` (``whole``; ``unsealed``: killed before
      it was sealed, so that only its arrays can tell; ``damaged``), ``problem``, ``recipe``,
      ``row`` of the paper, ``weights``, ``digest`` (as a run's last line has it).
    """
    folder, steps, named = warm_start.locate(_local(directory), "ckpt ls")
    return [_row(folder, step) for step in (steps if named is None else [named])]


def _row(directory: Path, step: int) -> dict[str, Any]:
    folder = directory / str(step)
    files = [p for p in folder.rglob("*") if p.is_file()]
    wrong = seal.problems(folder)
    row: dict[str, Any] = {"step": step, "bytes": sum(p.stat().st_size for p in files), "saved": _saved(folder)}
    row |= {"state": "whole" if (folder / seal.NAME).exists() else "unsealed", "problem": None}
    row |= dict.fromkeys(("recipe", "row", "weights", "digest"))
    try:
        metadata, digests = store.read_metadata(directory, step)
    except store.Damaged as problem:
        wrong = wrong or [str(problem)]
    else:
        row["recipe"] = metadata.get("name")
        row["row"] = (metadata["recipe"].get("paper") or {}).get("row")
        row["weights"] = [root for root in ("params", "ema") if any(n.startswith(f"{root}/") for n in digests)]
        row["digest"] = digest.combine(digests)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        row |= {"state": "damaged", "problem": wrong[0] + more}
    return row


def _saved(folder: Path) -> str:
    """When it was saved; a copy keeps the time of the original."""
    try:
        seconds = json.loads((folder / "_CHECKPOINT_METADATA").read_text())["commit_timestamp_nsecs"] / 1e9
    except (OSError, ValueError, KeyError, TypeError):
        seconds = folder.stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def listing_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table for a person."""
    lines = [f"{'step':>9}  {'size':>9}  {'saved (UTC)':<19}  {'state':<8}  {'digest':<16}  recipe"]
    for row in rows:
        recipe = row["recipe"] or row["row"] or ""
        saved = row["saved"][:19].replace("T", " ")
        line = f"{row['step']:>9}  {size(row['bytes']):>9}  {saved}  {row['state']:<8}  {row['digest'] or '':<16}  "
        lines.append((line + recipe + (" (with averages)" if "ema" in (row["weights"] or ()) else "")).rstrip())
        if row["problem"]:
            lines.append(f"{'':>11}{row['problem']}")
    return lines


def verify(checkpoint: str) -> list[dict[str, Any]]:
    """Every file against the seal, and every array against its digest.

    Args:
      checkpoint: ``DIR`` (all steps) or ``DIR@STEP``.

    Returns:
      Rows ``step, sealed, arrays, problems`` ([] = whole).
    """
    folder, steps, named = warm_start.locate(_local(checkpoint), "ckpt verify")
    rows = []
    for step in steps if named is None else [named]:
        problems = offline.problems(folder, step)
        try:
            arrays = len(store.read_metadata(folder, step)[1])
        except store.Damaged:
            arrays = None
        sealed = (folder / str(step) / seal.NAME).exists()
        rows.append({"step": step, "sealed": sealed, "arrays": arrays, "problems": problems})
    return rows


def verify_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line a step, and one for each thing that is damaged."""
    lines = []
    for row in rows:
        if row["problems"]:
            lines.append(f"step {row['step']}: DAMAGED")
            lines += [f"  {problem}" for problem in row["problems"][:_SHOWN]]
            if len(row["problems"]) > _SHOWN:
                lines.append(f"  ... and {len(row['problems']) - _SHOWN} more (--json names all)")
        else:
            files = "every file and" if row["sealed"] else "no seal (killed before it was written), but"
            lines.append(f"step {row['step']}: whole: {files} all {row['arrays']} arrays are what was written")
    return lines


def write_weights(
    checkpoint: str, out: Path, weights: Literal["ema", "params"] | None = None, last: int = 1
) -> dict[str, Any]:
    """``checkpoint.export`` of ``DIR`` (the newest readable step) or ``DIR@STEP``."""
    weight_writer.check(out)
    if is_weight_file(checkpoint):
        raise UserError(f"ckpt export {checkpoint}: is a weight file, not a workdir; vitax convert reads these.")
    folder, step = warm_start.find(_local(checkpoint), "ckpt export")
    return export.export(folder, step, out, weights, last)


def export_lines(row: dict[str, Any]) -> list[str]:
    """What was written, and which weights they are."""
    which = "averaged parameters (--params for those of the last step)" if row["weights"] == "ema" else "parameters"
    steps = row["steps"]
    of = f"step {row['step']}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}, their mean"
    amount = f"{row['arrays']} arrays, {count(row['parameters'])} values, {size(row['bytes'])}"
    return [f"{row['file']}: {which} of {of}, {amount}, digest {row['digest']}"]


copy = transfer.copy


def copy_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line a step."""
    return [
        f"step {row['step']}: {row['files']} files, {size(row['bytes'])} "
        f"{'copied and verified' if row['copied'] else 'there already, verified'}: {row['to']}"
        for row in rows
    ]


def _local(checkpoint: str) -> str:
    if "://" in checkpoint:
        raise UserError(f"{checkpoint}: only ckpt cp reads URLs; copy it first: vitax ckpt cp {checkpoint} DIR")
    return checkpoint
