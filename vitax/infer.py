"""A checkpoint at work: its model on all devices, and exact evaluation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vitax import config_files, run
from vitax import recipe as recipes
from vitax.checkpoint import store, warm_start
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.core.types import TrainState
from vitax.recipe import Recipe
from vitax.train.program import Program


def load(checkpoint: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Program, TrainState, dict[str, Any]]:
    """The model of a checkpoint on all devices.

    Args:
      checkpoint: ``DIR`` or ``DIR@STEP``.
      overrides: ``--config.path=value`` over the recipe that the checkpoint carries.

    Returns:
      (recipe, program, state, metadata); the state's ``params`` and ``mutables`` are the
      averaged ones where the run kept them, and it holds no optimiser.
    """
    pairs = config_files.parse_overrides(overrides)
    directory, step = warm_start.find(checkpoint)
    metadata, _ = store.read_metadata(directory, step)
    plain = metadata["recipe"]
    for key, text in pairs:
        config_files.override(plain, key, text)
    recipe = recipes.build(ConfigDict(plain))
    run.start_jax()
    program = recipe.program()
    abstract = program.abstract_state
    like = {**abstract.params, **abstract.mutables}
    loaded, root = warm_start.load_params(directory, step, program.mesh, like)
    wanted = dict(tree.named_leaves(like))
    lines = tree.difference(wanted, loaded)
    if lines:
        raise UserError(f"{directory / str(step)} does not hold this model:\n  " + "\n  ".join(lines[:20]))
    params = jax.tree.unflatten(jax.tree.structure(like), [loaded[name] for name in wanted])
    mutables = {name: params.pop(name) for name in abstract.mutables}
    state = TrainState(step=jnp.int32(step), params=params, mutables=mutables, opt_state=(), ema={})
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
