"""Runs side by side: what they reached, what they cost, and where their recipes differ."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitax import config_files
from vitax.core.errors import UserError
from vitax.cost import statement
from vitax.train.workdir import beside, read_json, read_rows

# Of these less is better, of everything else more.
LOWER_IS_BETTER = ("loss", "perplexity", "error", "ece")
_COST = (
    *("starts", "wall_seconds", "goodput", "examples_per_second", "mfu", "hfu"),
    *("model_flops", "device_hours", "tpu_v3_core_days", "tpu_v3_core_days_source", "usd", "usd_source"),
)
_WIDEST = 24


def compare(workdirs: Sequence[Path]) -> dict[str, Any]:
    """Reads the runs.

    Args:
      workdirs: at least two folders of runs, finished or not.

    Returns:
      ``runs`` (rows ``name, workdir, step, metrics, cost``; a metric is
      ``{"last", "best", "best_step"}``, a cost None where it is not known) and
      ``differences`` (path in the recipe -> values, in the order of the runs; None where
      the recipe leaves it out).

    Raises:
      UserError: fewer than two, or a folder that holds no run.
    """
    if len(workdirs) < 2:
        raise UserError(f"compare: {len(workdirs)} folder(s) given; expected at least two workdirs, DIR DIR ...")
    configs = []
    for workdir in workdirs:
        config = read_json(workdir / "recipe.json")
        if config is None:
            raise UserError(f"compare {workdir}: no recipe.json there; is it the folder of a run?{beside(workdir)}")
        configs.append(config)
    names = _names(workdirs)
    runs = [_run(workdir, name) for workdir, name in zip(workdirs, names)]
    return {"runs": runs, "differences": differences(configs)}


def _names(workdirs: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    paths = [p.absolute().parts for p in workdirs]
    for number in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-number:]) for parts in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(p) for p in workdirs]


def _run(workdir: Path, name: str) -> dict[str, Any]:
    rows = read_rows(workdir / "metrics.jsonl")
    account = read_json(workdir / "ledger.json") or {}
    return {
        "name": name,
        "workdir": str(workdir),
        "step": max((row["step"] for row in rows), default=0),
        "metrics": metrics(rows),
        "cost": {key: account.get(key) for key in _COST},
    }


def metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """``{"val/accuracy": {"last", "best", "best_step"}}`` of all measured names (those with a ``/``)."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for name, value in row.items():
            if "/" not in name:
                continue
            seen = found.setdefault(name, {"last": value, "best": value, "best_step": row["step"]})
            seen["last"] = value
            if better(name, value, seen["best"]):
                seen |= {"best": value, "best_step": row["step"]}
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith("train/"), item[0])))


def better(name: str, value: float, than: float) -> bool:
    """Whether a value of a metric beats another."""
    if value != value or than != than:  # NaN beats nothing and is beaten by all
        return value == value
    return value < than if name.rsplit("/", 1)[-1] in LOWER_IS_BETTER else value > than


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted path -> the values of all recipes, where they are not all the same."""
    flat = [config_files.flatten({k: v for k, v in c.items() if k != "paper" and v is not None}) for c in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in sorted(found.items()) if len({json.dumps(v) for v in values}) > 1}


# ---- for a person ---------------------------------------------------------------


def lines(found: Mapping[str, Any]) -> list[str]:
    """One column a run; ``*`` marks the best of a metric."""
    runs = found["runs"]
    rows = [("", [run["name"] for run in runs]), ("step", [f"{run['step']:,}" for run in runs])]
    names = dict.fromkeys(name for run in runs for name in run["metrics"])
    for name in names:
        rows += [(f"{name}, {which}", _marked(name, which, runs)) for which in ("best", "last")]
    for label, key, spell in _SHOWN:
        rows.append((label, [_known(run["cost"][key], spell) for run in runs]))
    shown = _table(rows)
    differ = [(key, [_short(value) for value in values]) for key, values in found["differences"].items()]
    title = f"recipe: {len(differ)} field{'s' * (len(differ) != 1)} differ" + "s" * (len(differ) == 1)
    return [*shown, "", title, *(_table(differ) if differ else [])]


def _marked(name: str, which: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    values = [run["metrics"].get(name, {}).get(which) for run in runs]
    there = [v for v in values if v is not None]
    cells = []
    for value, run in zip(values, runs):
        if value is None:
            cells.append("-")
            continue
        text = f"{value:.4f}" + (f" at {run['metrics'][name]['best_step']:,}" if which == "best" else "")
        cells.append(text + (" *" if len(there) > 1 and not any(better(name, other, value) for other in there) else ""))
    return cells


def _usd(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.01 else f"${usd:.2g}"


_SHOWN: tuple[tuple[str, str, Any], ...] = (
    ("TPUv3-core-days", "tpu_v3_core_days", lambda x: f"{x:.3g}"),
    ("dollars", "usd", _usd),
    ("wall time", "wall_seconds", statement.duration),
    ("goodput", "goodput", lambda x: f"{x:.1%}"),
    ("MFU", "mfu", lambda x: f"{x:.1%}"),
    ("examples a second", "examples_per_second", lambda x: f"{x:,.1f}"),
    ("starts", "starts", str),
)


def _known(value: Any, spell: Any) -> str:
    return "unknown" if value is None else spell(value)


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 12]}…{text[-11:]}"


def _table(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    left = max(len(label) for label, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(rows[0][1]))]
    return [
        f"{label:<{left}}  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths))
        for label, cells in rows
    ]
