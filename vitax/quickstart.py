"""``vitax quickstart``: ordinary recipes through the ordinary loop, then a table."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitax import recipe, report, run
from vitax.core.errors import EXIT_DONE, RunError
from vitax.train import terminal
from vitax.train.workdir import read_rows

KINDS = ("finetune", "scratch")


def run_all(workdir: Path, seeds: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Pre-trains once; fine-tunes and trains from scratch once a seed.

    Args:
      workdir: each run gets a folder in it.
      seeds: how many runs of each kind; the seed moves initialisation, order and
        which digits are labelled.
      overrides: ``--config.path=value``, for every run.

    Returns:
      Plain data: accuracy of each run, means, seconds, workdir.
    """
    begun = time.perf_counter()
    pretrain = workdir / "pretrain"
    _train("pretrain", pretrain, list(overrides))
    result: dict[str, Any] = {"pretrain": {"accuracy": _accuracy(pretrain)}}
    for kind in KINDS:
        accuracies = []
        for seed in range(seeds):
            folder = workdir / f"{kind}-{seed}"
            own = [f"--config.seed={seed}", f"--config.data.source.subset_seed={seed}"]
            if kind == "finetune":
                own.append(f"--config.init_from.checkpoint={pretrain}")
            _train(kind, folder, [*own, *overrides])
            accuracies.append(_accuracy(folder))
        result[kind] = {"accuracy": statistics.mean(accuracies), "accuracies": accuracies}
    result["gain_points"] = 100 * (result["finetune"]["accuracy"] - result["scratch"]["accuracy"])
    result["workdir"] = str(workdir)
    folders = [pretrain] + [workdir / f"{kind}-0" for kind in KINDS]
    result["reports"] = [str(path) for path in map(report.write_after_run, folders) if path]
    result["seconds"] = time.perf_counter() - begun
    return result


def _train(variant: str, folder: Path, overrides: Sequence[str]) -> None:
    terminal.console().rule(f"{variant}: {folder}")
    code = run.train(recipe.load(f"quickstart:{variant}", list(overrides)), folder)
    if code != EXIT_DONE:
        raise SystemExit(code)


def _accuracy(folder: Path) -> float:
    values = [row["val/accuracy"] for row in read_rows(folder / "metrics.jsonl") if "val/accuracy" in row]
    if not values:
        raise RunError(f"{folder}/metrics.jsonl holds no val/accuracy.")
    return values[-1]


def lines(result: dict[str, Any]) -> list[str]:
    """The table for a person."""
    rows = [f"{'run':<28}{'digits accuracy (1,000 held out)':<34}seeds"]
    for kind, text in (("finetune", "pre-trained, fine-tuned"), ("scratch", "from scratch")):
        each = " ".join(f"{a:.3f}" for a in result[kind]["accuracies"])
        rows.append(f"{text:<28}{result[kind]['accuracy']:<34.3f}{each}")
    rows.append(
        f"gain {result['gain_points']:+.1f} points (pre-training accuracy {result['pretrain']['accuracy']:.3f})"
    )
    rows += [f"report {path}" for path in result["reports"]]
    rows.append(f"{result['seconds']:.0f} s in all")
    return rows
