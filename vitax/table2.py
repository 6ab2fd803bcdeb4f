"""``vitax table2``: the published comparison, and what runs of one's own say beside it.

A run belongs to a cell where its recipe says so: ``paper.table2`` holds ``model``,
``pretraining`` and ``cell``, a data set's name or ``core_days``. Recipes say it as long as
they are set as printed; a variant of another length or size belongs nowhere.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitax import paper
from vitax.core.durations import Duration
from vitax.core.errors import UserError
from vitax.cost import chips, vit_paper
from vitax.cost.ledger import SECONDS_A_DAY
from vitax.train.workdir import read_json, read_rows

# What a planned cost assumes where no run has measured one: the share of a core's peak.
MFU = 0.4
VTAB_TASKS = 19


def table(runs: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """The table, a column (a system) a row.

    Args:
      runs: folders whose workdirs are looked for, at any depth.

    Returns:
      ``model, pretraining``; ``accuracy``: data set -> ``paper`` (``{"mean", "std"}`` or None)
      and ``measured`` (``{"mean", "std", "runs", "unfinished"}`` or None; VTAB is a mean over
      ``tasks`` of 19); ``core_days``: ``paper``, ``planned`` (TPUv3-core-days of the model
      FLOPs at ``planned_mfu``, None where they are not one number), ``measured`` (of the
      ledger, with its ``source`` and whether it is ``unfinished``, or None); ``note``.

    Raises:
      UserError: a folder that is not there.
    """
    found = [cell for folder in runs for cell in _cells(folder)]
    columns = []
    for row in paper.tables()["table2"]:
        own = [c for c in found if (c["model"], c["pretraining"]) == (row["model"], row["pretraining"])]
        planned = None
        if row["exaflops"] is not None:
            planned = row["exaflops"] * paper.EXA / (MFU * chips.V3_CORE_PEAK_FLOPS * SECONDS_A_DAY)
        columns.append(
            {
                "model": row["model"],
                "pretraining": row["pretraining"],
                "accuracy": {
                    name: {
                        "paper": row["expected"].get(name),
                        "measured": _accuracy([c for c in own if c["cell"] == name.removesuffix("_real")], name),
                    }
                    for name in paper.HEADINGS
                },
                "core_days": {
                    "paper": row["core_days"],
                    "planned": planned,
                    "planned_mfu": MFU,
                    "measured": _cost([c for c in own if c["cell"] == "core_days"]),
                },
                "note": row["note"],
            }
        )
    return columns


def _cells(folder: Path) -> list[dict[str, Any]]:
    """Runs below a folder that belong to a cell: ``model, pretraining, cell, task, workdir, config``."""
    if not folder.is_dir():
        raise UserError(f"table2: no folder {folder}; expected one that holds workdirs.")
    found = []
    for file in sorted(folder.rglob("recipe.json")):
        config = read_json(file) or {}
        place = (config.get("paper") or {}).get("table2")
        if place:
            found.append({**place, "workdir": file.parent, "config": config})
    return found


def _accuracy(cells: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Mean and deviation over the runs of a cell, in percent."""
    evaluator = "real" if name.endswith("_real") else "val"  # of the same runs
    measured = [(c, *last) for c in cells if (last := _last_accuracy(c["workdir"], evaluator)) is not None]
    if not measured:
        return None
    by_task: dict[str, list[float]] = {}
    for cell, value, _ in measured:
        by_task.setdefault(cell.get("task") or name, []).append(100 * value)
    means = [statistics.mean(values) for values in by_task.values()]
    one = next(iter(by_task.values()))
    unfinished = sum(step < _total_steps(c["config"]) for c, _, step in measured)
    result = {
        "mean": statistics.mean(means),
        "std": statistics.stdev(one) if len(by_task) == 1 and len(one) > 1 else None,
        "runs": len(measured),
        "unfinished": unfinished,
    }
    return result | ({"tasks": len(by_task)} if name == "vtab" else {})


def _last_accuracy(workdir: Path, evaluator: str) -> tuple[float, int] | None:
    """The newest accuracy of an evaluator, of averaged parameters where there are any, and its step."""
    for row in reversed(read_rows(workdir / "metrics.jsonl")):
        for key in (f"{evaluator}/ema/accuracy", f"{evaluator}/accuracy"):
            if key in row:
                return row[key], int(row["step"])
    return None


def _total_steps(config: dict[str, Any]) -> int:
    duration, data = Duration.parse(config["duration"], "duration"), config["data"]
    assert duration is not None
    return duration.steps(batch_size=data["batch_size"], num_examples=data["num_examples"], total_steps=None)


def _cost(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the run that went furthest."""
    found = []
    for cell in cells:
        account = read_json(cell["workdir"] / "ledger.json")
        if account:
            step = max((int(row["step"]) for row in read_rows(cell["workdir"] / "metrics.jsonl")), default=0)
            share = step / _total_steps(cell["config"])
            found.append((share, account["tpu_v3_core_days"], account["tpu_v3_core_days_source"]))
    if not found:
        return None
    share, days, source = max(found)
    return {"core_days": days, "source": source, "unfinished": share < 1}


def lines(columns: list[dict[str, Any]]) -> list[str]:
    """The table for a person: a system a column, as printed."""
    names = [_short(c) for c in columns]
    width = max(17, *(len(part) for name in names for part in name))
    out = [f"Table 2 of ViT ({vit_paper.PAPER}): top-1 in %; (runs of one's own below, in brackets)"]
    for part in range(2):
        out.append(f"{'':<16}" + "".join(f"{name[part]:>{width + 2}}" for name in names))
    for key, heading in paper.HEADINGS.items():
        cells = [c["accuracy"][key] for c in columns]
        out.append(f"{heading:<16}" + "".join(f"{_printed(c['paper']):>{width + 2}}" for c in cells))
        if any(c["measured"] for c in cells):
            out.append(f"{'':<16}" + "".join(f"{_own(c['measured']):>{width + 2}}" for c in cells))
    days = [c["core_days"] for c in columns]
    out.append(f"{'TPUv3-core-days':<16}" + "".join(f"{d['paper']:>{width + 2},}" for d in days))
    planned = ["-" if d["planned"] is None else f"{d['planned']:,.0f}" for d in days]
    out.append(f"{f'at {MFU:.0%} MFU':<16}" + "".join(f"{text:>{width + 2}}" for text in planned))
    if any(d["measured"] for d in days):
        measured = [_own_cost(d["measured"]) for d in days]
        out.append(f"{'':<16}" + "".join(f"{text:>{width + 2}}" for text in measured))
    return [line.rstrip() for line in out]


def _short(column: dict[str, Any]) -> tuple[str, str]:
    model = column["model"].replace("Noisy Student EfficientNet-L2", "Noisy Student L2")
    return model, {"ImageNet-21k": "I21k", "JFT-300M": "JFT"}.get(column["pretraining"], "I1k + JFT images")


def _printed(value: dict[str, float | None] | None) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.2f}" + ("" if value["std"] is None else f" ± {value['std']:.2f}")


def _own(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    spread = "" if value["std"] is None else f" ± {value['std']:.2f}"
    tasks = f", {value['tasks']} of {VTAB_TASKS} tasks" if value.get("tasks", VTAB_TASKS) != VTAB_TASKS else ""
    return f"({value['mean']:.2f}{spread}{tasks}{', unfinished' if value['unfinished'] else ''})"


def _own_cost(value: dict[str, Any] | None) -> str:
    return "" if value is None else f"({value['core_days']:,.3g}{', unfinished' if value['unfinished'] else ''})"
