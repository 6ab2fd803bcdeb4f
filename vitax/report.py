"""A workdir -> one self-contained HTML page (``report.html``), no network needed.

Curves, the ledger, the batch as the model sees it, the confusion matrix, the recipe.
"""

import base64
import html
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vitax import bill, config_files, infer
from vitax.core.errors import UserError
from vitax.core.types import TrainState
from vitax.evaluators.classification import predictions
from vitax.recipe import Recipe
from vitax.train.program import Program
from vitax.train.workdir import read_json, read_rows

log = logging.getLogger("vitax")

_STYLE = """
:root { color-scheme: light dark; --card: #f5f5f2; --line: #d8d8d2; }
@media (prefers-color-scheme: dark) { :root { --card: #24262a; --line: #3b3e44; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; } td { padding: .15rem 1.2rem .15rem 0; vertical-align: top; }
td:first-child { font-weight: 600; white-space: nowrap; }
img { max-width: 100%; background: #fff; border-radius: 6px; padding: 6px; box-sizing: border-box; }
pre { background: var(--card); padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: 13px; }
.bar { display: flex; height: 22px; border-radius: 6px; overflow: hidden; margin: .8rem 0; }
.parts td { padding-right: 1.6rem; } .parts td + td { text-align: right; font-variant-numeric: tabular-nums; }
.dot { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .5em; }
@media print { .bar, .dot { print-color-adjust: exact; } }
@media print { body { max-width: none; } h2 { break-after: avoid; } img { break-inside: avoid; } }
"""

Section = tuple[str, str]


def write_after_run(workdir: Path) -> Path | None:
    """``write``, but a report that fails is a warning: the run it describes did not."""
    if jax.process_index() != 0 or jax.process_count() > 1:
        return None  # other processes have left the loop: nothing may compute together
    try:
        return write(workdir)
    except Exception as error:  # never worth a run's exit code
        log.warning("report.html was not written: %s: %s", type(error).__name__, error)
        return None


def write(workdir: Path) -> Path:
    """Writes ``report.html`` (and each figure as PNG in ``report/``) and returns its path.

    Raises:
      UserError: the folder holds no run.
    """
    config = read_json(workdir / "recipe.json")
    if config is None:
        raise UserError(f"--workdir {workdir}: no recipe.json there; is it the folder of a run?")
    figures = workdir / "report"
    figures.mkdir(exist_ok=True)
    sections = list(_curves(read_rows(workdir / "metrics.jsonl"), figures))
    sections += list(_bill(workdir))
    if (workdir / "checkpoints").is_dir():
        recipe, program, state, metadata = infer.load(str(workdir))
        sections += list(_batch(recipe, program, metadata, figures))
        sections += list(_confusion(recipe, program, state, metadata, figures))
        sections.append(("Versions", _rows(metadata["versions"])))
    sections += list(_warm_start(workdir))
    flat = config_files.flatten({k: v for k, v in config.items() if v is not None})
    sections.append(("Recipe", _rows(flat)))
    body = "\n".join(f"<h2>{html.escape(title)}</h2>\n{content}" for title, content in sections)
    title = f"vitax run: {html.escape(workdir.name)}"
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>\n{body}</body></html>\n"
    )
    path = workdir / "report.html"
    path.write_text(page)
    return path


def _rows(values: Mapping[str, Any]) -> str:
    cells = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{cells}</table>"


def _figure(figure: Any, path: Path, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    path.write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _new_figure(width: float, height: float) -> Any:
    # The object interface: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _series(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [(row["step"], row[name]) for row in rows if name in row]
    return [p[0] for p in points], [p[1] for p in points]


def _curves(rows: Sequence[Mapping[str, float]], figures: Path) -> Iterator[Section]:
    names = sorted({name for row in rows for name in row})
    figure = _new_figure(11, 3.6)
    for axis, metric in zip(figure.subplots(1, 2), ("loss", "accuracy")):
        for name in (n for n in names if n.split("/")[-1] == metric):
            axis.plot(*_series(rows, name), label=name, marker="." if len(_series(rows, name)[0]) < 40 else None)
        axis.set(xlabel="step", ylabel=metric)
        axis.grid(alpha=0.3)
        axis.legend(loc="best", fontsize=8)
        if metric == "loss" and "lr" in names:
            right = axis.twinx()
            right.plot(*_series(rows, "lr"), color="0.6", linestyle=":")
            right.set_ylabel("learning rate (dotted)", color="0.5")
    yield "Loss and accuracy", _figure(figure, figures / "curves.png", "Loss and accuracy by step")
    if "examples_per_second" not in names:
        return
    figure = _new_figure(11, 2.6)
    left, right = figure.subplots(1, 2)
    left.plot(*_series(rows, "examples_per_second"))
    left.set(xlabel="step", ylabel="examples / s", ylim=(0, None))
    right.plot(*_series(rows, "data_wait_fraction"))
    right.set(xlabel="step", ylabel="waiting for data", ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    yield "Throughput", _figure(figure, figures / "throughput.png", "Throughput and data wait by step")


def _bill(workdir: Path) -> Iterator[Section]:
    if (workdir / "ledger.json").exists():
        yield "Ledger", bill.section(bill.read(workdir))


def _warm_start(workdir: Path) -> Iterator[Section]:
    found = read_json(workdir / "warm_start.json")
    if found is not None:
        shown = {k: ", ".join(v) if isinstance(v, list) and k != "placed" else v for k, v in found.items()}
        yield "Warm start", _rows(shown | {"placed": f"{len(found['placed'])} parameters"})


def _pixels(image: np.ndarray) -> np.ndarray:
    """Any float image -> [0, 1] for display, one range for all channels."""
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-6)).squeeze()


def _class_names(recipe: Recipe, metadata: Mapping[str, Any]) -> list[str]:
    return metadata.get("class_names") or [str(i) for i in range(recipe.data.num_classes)]


def _batch(recipe: Recipe, program: Program, metadata: Mapping[str, Any], figures: Path) -> Iterator[Section]:
    names = _class_names(recipe, metadata)
    local = recipe.data.pipeline(recipe.seed).batch(0)
    prepare: Any = jax.jit(lambda b: program.objective.prepare(b, jax.random.key(recipe.seed), train=True))
    prepared = jax.device_get(prepare(program.put(local)))
    shown = min(24, len(prepared["label"]))
    figure = _new_figure(11, 1.55 * -(-shown // 8))
    for i, axis in enumerate(np.ravel(figure.subplots(-(-shown // 8), 8))):
        axis.axis("off")
        if i >= shown:
            continue
        axis.imshow(_pixels(prepared["image"][i]), cmap="gray")
        title = names[prepared["label"][i]]
        if "target" in prepared:
            best = np.argsort(-prepared["target"][i])[:2]
            title = " + ".join(f"{names[j]} {prepared['target'][i][j]:.0%}" for j in best if prepared["target"][i][j])
        axis.set_title(title[:22], fontsize=7)
    yield "A training batch as the model sees it", _figure(figure, figures / "batch.png", "Augmented images")


def _confusion(
    recipe: Recipe, program: Program, state: TrainState, metadata: Mapping[str, Any], figures: Path
) -> Iterator[Section]:
    from matplotlib.colors import LogNorm

    names = _class_names(recipe, metadata)
    for evaluator, _ in recipe.evaluators():
        matrix = np.zeros((len(names), len(names)), np.int64)
        for probabilities, batch in predictions(program, state, evaluator.pipeline):  # type: ignore[attr-defined]
            np.add.at(matrix, (batch["label"], probabilities.argmax(-1)), 1)
        few = len(names) <= 25
        figure = _new_figure(7 if few else 9, 6 if few else 8)
        axis = figure.subplots()
        drawn = axis.imshow(np.maximum(matrix, 0.5), cmap="Blues", norm=LogNorm(0.5, max(matrix.max(), 1)))
        axis.set(xlabel="predicted", ylabel="true")
        if few:
            axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
            axis.set_yticks(range(len(names)), names, fontsize=8)
            for (i, j), n in np.ndenumerate(matrix):
                if n:
                    dark = np.log(n + 0.5) > 0.6 * np.log(matrix.max() + 0.5)
                    axis.text(j, i, str(n), ha="center", va="center", fontsize=7, color="w" if dark else "k")
        else:
            figure.colorbar(drawn)
        correct = np.trace(matrix) / max(matrix.sum(), 1)
        image = _figure(figure, figures / f"confusion_{evaluator.name}.png", "Confusion matrix")
        text = f"<p>{np.trace(matrix)} of {matrix.sum()} right ({correct:.2%}), step {metadata['step']}.</p>"
        worst = _worst(matrix, names)
        yield f"Confusion matrix: {evaluator.name}", text + image + worst


def _worst(matrix: np.ndarray, names: Sequence[str]) -> str:
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:5]
    pairs = [divmod(int(k), len(names)) for k in order if off.flat[int(k)]]
    rows = {f"{names[i]} taken for {names[j]}": f"{off[i, j]} of {matrix[i].sum()}" for i, j in pairs}
    return "<p>Commonest confusions</p>" + _rows(rows) if rows else ""
