"""Figures from metrics.jsonl: loss, accuracy, learning rate, throughput; one run or several."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitax.report import page
from vitax.report.page import Section

Rows = Sequence[Mapping[str, float]]

# Drawn where a run has them, beside loss and accuracy.
_MORE = ("bits_per_byte", "bleu", "f1", "exact_match")


def series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one name."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    return [p[0] for p in points], [p[1] for p in points]


def _names(rows: Rows) -> list[str]:
    return sorted({name for row in rows for name in row})


def _metric(name: str) -> str:
    return name.split("/")[-1]


def _grid(count: int, height: float) -> tuple[Any, Sequence[Any]]:
    """A figure of two columns and its first ``count`` axes."""
    lines = -(-count // 2)
    drawn = page.new_figure(11, height * lines)
    axes: Any = drawn.subplots(lines, 2, squeeze=False)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return drawn, axes.flat[:count]


def sections(rows: Rows, figures: Path) -> Iterator[Section]:
    """Loss and accuracy with the learning rate, raw against averaged weights, throughput."""
    names = _names(rows)
    metrics = ["loss", "accuracy", *(m for m in _MORE if any(_metric(n) == m for n in names))]
    drawn, grid = _grid(len(metrics), 3.6)
    for axis, metric in zip(grid, metrics):
        for name in (n for n in names if _metric(n) == metric):
            steps, values = series(rows, name)
            style = "--" if "/ema/" in name else "-"
            axis.plot(steps, values, style, label=name, marker="." if len(steps) < 40 else None)
        axis.set(xlabel="step", ylabel=metric)
        axis.grid(alpha=0.3)
        axis.legend(loc="best", fontsize=8)
        if metric == "loss" and "lr" in names:
            right = axis.twinx()
            right.plot(*series(rows, "lr"), color="0.6", linestyle=":")
            right.set_ylabel("learning rate (dotted)", color="0.5")
    yield "Loss and accuracy", page.figure(drawn, figures / "curves.png", "Loss and accuracy by step") + _averages(rows)
    if "examples_per_second" not in names:
        return
    drawn = page.new_figure(11, 2.6)
    left, right = drawn.subplots(1, 2)
    left.plot(*series(rows, "examples_per_second"))
    left.set(xlabel="step", ylabel="examples / s", ylim=(0, None))
    right.plot(*series(rows, "data_wait_fraction"))
    right.set(xlabel="step", ylabel="waiting for data", ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    yield "Throughput", page.figure(drawn, figures / "throughput.png", "Throughput and data wait by step")


def last(rows: Rows, name: str) -> float | None:
    """The newest value of a name."""
    return next((row[name] for row in reversed(rows) if name in row), None)


def _averages(rows: Rows) -> str:
    """The last evaluation with raw and with averaged weights, side by side."""
    pairs = [(n, n.replace("/", "/ema/", 1)) for n in _names(rows) if "/" in n and "/ema/" not in n]
    lines = [
        (raw, f"{last(rows, raw):.4f}", f"{last(rows, ema):.4f}") for raw, ema in pairs if last(rows, ema) is not None
    ]
    return page.table(("last evaluation", "raw weights", "averaged (EMA)"), lines) if lines else ""


def compared(runs: Mapping[str, Rows], figures: Path) -> Iterator[Section]:
    """Several runs over each other: training loss, and every metric that evaluations share.

    Args:
      runs: label -> rows of metrics.jsonl.
      figures: folder for the PNGs.
    """
    common = [n for n in _names([r for rows in runs.values() for r in rows]) if "/" in n and n.split("/")[0] != "train"]
    shown = [n for n in common if _metric(n) in ("loss", "accuracy", *_MORE)]
    wanted = ["train/loss", *shown, "examples_per_second"]
    drawn, grid = _grid(len(wanted), 3.2)
    for axis, name in zip(grid, wanted):
        for label, rows in runs.items():
            steps, values = series(rows, name)
            if steps:
                axis.plot(steps, values, label=label, marker="." if len(steps) < 40 else None)
        axis.set(xlabel="step", ylabel=name)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    yield "Curves", page.figure(drawn, figures / "compared.png", "Curves of all runs by step")
    lines = [(name, *(_spell(last(rows, name)) for rows in runs.values())) for name in ("train/loss", *common)]
    yield "Last values", page.table(("", *runs), lines)


def _spell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
