"""A checkpoint at work: exact evaluation, and predictions on image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vitax import config_files, run
from vitax import recipe as recipes
from vitax.checkpoint import store, warm_start
from vitax.construct import construct
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.core.types import TrainState
from vitax.data.image_files import load_image
from vitax.data.image_ops import OPS
from vitax.evaluators.classification import make_predict
from vitax.recipe import Recipe, evaluator_data
from vitax.train.program import Program


def load(checkpoint: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Program, TrainState, dict[str, Any]]:
    """The model of a checkpoint on all devices.

    Args:
      checkpoint: ``DIR`` or ``DIR@STEP``.
      overrides: ``--config.path=value`` over the recipe that the checkpoint carries.

    Returns:
      (recipe, program, state, metadata); the state's ``params`` are the averaged ones
      where the run kept them, and it holds no optimiser.
    """
    directory, step = warm_start.find(checkpoint)
    metadata, _ = store.read_metadata(directory, step)
    plain = metadata["recipe"]
    for key, text in config_files.parse_overrides(overrides):
        config_files.override(plain, key, text)
    recipe = recipes.build(ConfigDict(plain))
    run.start_jax()
    program = recipe.program()
    loaded, root = warm_start.load_params(directory, step, program.mesh, program.abstract_state.params)
    abstract = program.abstract_state
    wanted = dict(tree.named_leaves(abstract.params))
    lines = tree.difference(wanted, loaded)
    if lines:
        raise UserError(f"{directory / str(step)} does not hold this model:\n  " + "\n  ".join(lines[:20]))
    params = jax.tree.unflatten(jax.tree.structure(abstract.params), [loaded[name] for name in wanted])
    state = TrainState(step=jnp.int32(step), params=params, mutables={}, opt_state=(), ema={})
    program.ema = None  # the parameters loaded are the ones to use
    return recipe, program, state, {**metadata, "step": step, "weights": root}


def evaluate(checkpoint: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Runs every evaluator of the recipe on a checkpoint.

    Returns:
      ``{"metrics": {"val/accuracy": ...}, "examples": n, "step": n, "weights": "params" | "ema"}``.
    """
    recipe, program, state, metadata = load(checkpoint, overrides)
    evaluators = recipe.evaluators()
    if not evaluators:
        raise UserError("The recipe has no evaluators; add one with --config.evaluators.val.data.source...=...")
    run.check_classes(metadata.get("class_names"), evaluators)
    values: dict[str, float] = {}
    examples = 0
    for evaluator, _ in evaluators:
        values |= {f"{evaluator.name}/{k}": v for k, v in evaluator.build(program)(state).items()}
        examples += len(evaluator.pipeline.source)  # type: ignore[attr-defined]
    return {"metrics": values, "examples": examples, "step": metadata["step"], "weights": metadata["weights"]}


def predict(
    checkpoint: str, images: Sequence[Path], topk: int = 5, overrides: Sequence[str] = (), batch_size: int = 64
) -> list[dict[str, Any]]:
    """Classifies image files with the evaluation ops of the recipe.

    Returns:
      One row a file: ``{"file", "topk": [{"label", "index", "probability"}, ...]}``.

    Raises:
      UserError: a file that is missing or no image, before anything is computed.
    """
    if topk < 1:
        raise UserError(f"--topk {topk}: expected at least 1.")
    folders = [str(p) for p in images if p.is_dir()]
    if folders:
        raise UserError(f"{folders[0]} is a folder; give image files, e.g. {folders[0]}/*.jpg")
    missing = [str(p) for p in images if not p.is_file()]
    if missing:
        raise UserError(f"No such image file: {', '.join(missing[:5])}.")
    recipe, program, state, metadata = load(checkpoint, overrides)
    names = metadata.get("class_names") or [str(i) for i in range(recipe.data.num_classes)]
    spec = recipe.data
    if recipe.config.get("evaluators"):
        spec = evaluator_data(recipe.config, next(iter(recipe.config["evaluators"])))
    ops = [
        construct(OPS, op, f"data.ops.{i}", size=spec.size, channels=spec.channels)
        for i, op in enumerate(spec.ops)
        if op["kind"] != "decode"
    ]
    function = make_predict(program)
    ways = program.rules.batch_ways(program.mesh)
    batch_size = -(-min(batch_size, len(images)) // ways) * ways
    rows = []
    for start in range(0, len(images), batch_size):
        files = images[start : start + batch_size]
        pixels = np.zeros((batch_size, *spec.size, spec.channels), np.uint8)
        for i, file in enumerate(files):
            pixels[i] = _prepare(file, ops, spec)
        batch = {"image": pixels, "label": np.zeros(batch_size, np.int32), "index": np.zeros(batch_size, np.int32)}
        logits = function(state.params, state.mutables, program.put({**batch, "mask": np.ones(batch_size, bool)}))
        probabilities = np.asarray(jax.nn.softmax(logits.astype(np.float32)))
        rows += [_row(file, p, names, topk) for file, p in zip(files, probabilities)]
    return rows


def _prepare(file: Path, ops: Sequence[Any], spec: recipes.DataSpec) -> np.ndarray:
    image = load_image(file, channels=spec.channels)
    for op in ops:
        image = op(image, np.zeros(op.uniforms))
    if image.shape != (*spec.size, spec.channels):
        # Raw files come in any size, also for recipes whose data needs no resizing.
        image = construct(OPS, {"kind": "resize"}, "predict", size=spec.size)(image, np.zeros(0))
    return image.reshape(*spec.size, spec.channels)


def _row(file: Path, probabilities: np.ndarray, names: Sequence[str], topk: int) -> dict[str, Any]:
    best = np.argsort(-probabilities, kind="stable")[: min(topk, len(names))]
    return {
        "file": str(file),
        "topk": [{"label": names[i], "index": int(i), "probability": float(probabilities[i])} for i in best],
    }
