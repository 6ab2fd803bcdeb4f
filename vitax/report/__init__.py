"""A workdir -> one self-contained HTML page (``report.html``), no network needed.

``page`` is HTML and figures, ``curves`` reads metrics.jsonl, ``errors``, ``inside`` (images)
and ``texts`` run the newest checkpoint. Each figure also lies as PNG in ``report/``. May import all of
vitax but the verbs.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vitax import bill, config_files, infer
from vitax.core.errors import UserError
from vitax.evaluators.classification import predictions
from vitax.recipe import Recipe
from vitax.report import curves, errors, inside, page, texts
from vitax.report.page import Section
from vitax.train.program import Program
from vitax.train.workdir import beside, read_json, read_rows

log = logging.getLogger("vitax")


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
    config = _config(workdir)
    figures = workdir / "report"
    figures.mkdir(exist_ok=True)
    sections = list(curves.sections(read_rows(workdir / "metrics.jsonl"), figures))
    if (workdir / "ledger.json").exists():
        sections.append(("Ledger", bill.section(bill.read(workdir))))
    if (workdir / "checkpoints").is_dir():
        sections += _of_checkpoint(workdir, figures)
    sections += _warm_start(workdir)
    sections.append(("Recipe", page.rows(_flat(config))))
    path = workdir / "report.html"
    path.write_text(page.page(f"vitax run: {workdir.name}", sections))
    return path


def compare(workdirs: Sequence[Path], path: Path) -> Path:
    """Writes one page over several runs: curves, last values, cost, and how their recipes differ.

    Raises:
      UserError: a folder holds no run.
    """
    labels = _labels(workdirs)
    configs = {label: _flat(_config(workdir)) for label, workdir in zip(labels, workdirs)}
    figures = path.with_suffix("")
    figures.mkdir(parents=True, exist_ok=True)
    runs = {label: read_rows(workdir / "metrics.jsonl") for label, workdir in zip(labels, workdirs)}
    sections = list(curves.compared(runs, figures))
    for label, workdir in zip(labels, workdirs):
        if (workdir / "ledger.json").exists():
            sections.append((f"Ledger: {label}", bill.section(bill.read(workdir))))
    keys = sorted({key for config in configs.values() for key in config})
    lines = [
        (key, *(str(config.get(key, "")) for config in configs.values()))
        for key in keys
        if len({str(config.get(key)) for config in configs.values()}) > 1
    ]
    sections.append(("What differs in the recipes", page.table(("", *labels), lines) if lines else "<p>Nothing.</p>"))
    path.write_text(page.page(f"vitax: {len(labels)} runs compared", sections))
    return path


def _labels(workdirs: Sequence[Path]) -> list[str]:
    """Names of folders, or their whole paths where two names agree."""
    names = [workdir.resolve().name for workdir in workdirs]
    return names if len(set(names)) == len(names) else [str(workdir) for workdir in workdirs]


def _config(workdir: Path) -> dict[str, Any]:
    config = read_json(workdir / "recipe.json")
    if config is None:
        raise UserError(f"--workdir {workdir}: no recipe.json there; is it the folder of a run?{beside(workdir)}")
    return config


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return config_files.flatten({k: v for k, v in config.items() if v is not None})


def _of_checkpoint(workdir: Path, figures: Path) -> Iterator[Section]:
    recipe, program, state, metadata = infer.load(str(workdir))
    if recipe.data.size is None:
        yield from texts.sections(recipe, program, state, figures)
        yield "Versions", page.rows(metadata["versions"])
        return
    names = metadata.get("class_names") or [str(i) for i in range(recipe.data.num_classes)]
    yield "A training batch as the model sees it", _batch(recipe, program, names, figures)
    images = recipe.data.pipeline(recipe.seed).batch(0)["image"]
    for evaluator, _ in recipe.evaluators():
        pipeline = evaluator.pipeline  # type: ignore[attr-defined]
        images = pipeline.images(np.arange(min(64, len(pipeline.source))))
        found = errors.collect(evaluator.name, names, pipeline, predictions(program, state, pipeline))
        yield from errors.sections(found, metadata["step"], figures)
    yield from inside.sections(recipe, program, state, images, figures)
    yield "Versions", page.rows(metadata["versions"])


def _batch(recipe: Recipe, program: Program, names: Sequence[str], figures: Path) -> str:
    local = recipe.data.pipeline(recipe.seed).batch(0)
    prepare: Any = jax.jit(lambda b: program.objective.prepare(b, jax.random.key(recipe.seed), train=True))
    prepared = jax.device_get(prepare(program.put(local)))
    shown = min(24, len(prepared["label"]))
    titles = []
    for i in range(shown):
        title = names[prepared["label"][i]]
        if "target" in prepared:
            best = np.argsort(-prepared["target"][i])[:2]
            title = " + ".join(f"{names[j]} {prepared['target'][i][j]:.0%}" for j in best if prepared["target"][i][j])
        titles.append(title[:22])
    drawn = page.new_figure(11, 1.55 * -(-shown // 8))
    page.gallery(drawn.subplots(-(-shown // 8), 8, squeeze=False), list(prepared["image"][:shown]), titles)
    return page.figure(drawn, figures / "batch.png", "Augmented images")


def _warm_start(workdir: Path) -> Iterator[Section]:
    found = read_json(workdir / "warm_start.json")
    if found is not None:
        shown = {k: ", ".join(v) if isinstance(v, list) and k != "placed" else v for k, v in found.items()}
        yield "Warm start", page.rows(shown | {"placed": f"{len(found['placed'])} parameters"})


__all__ = ["compare", "write", "write_after_run"]
