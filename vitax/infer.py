"""A checkpoint at work: its model on all devices, and exact evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vitax import carried_tokenizers, config_files, own_data, run
from vitax import recipe as recipes
from vitax.checkpoint import store, warm_start
from vitax.checkpoint.files import is_weight_file
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.core.types import TrainState
from vitax.data import labelled
from vitax.recipe import Recipe
from vitax.train import terminal
from vitax.train.program import Program
from vitax.weights import reading


def load(
    checkpoint: str, overrides: Sequence[str] = (), data: str | None = None
) -> tuple[Recipe, Program, TrainState, dict[str, Any]]:
    """The model of a checkpoint on all devices.

    Args:
      checkpoint: ``DIR``, ``DIR@STEP`` or a published weight file.
      overrides: ``--config.path=value`` over the recipe that the checkpoint carries.
      data: labelled images to evaluate on in place of those of the recipe.

    Returns:
      (recipe, program, state, metadata); the state's ``params`` and ``mutables`` are the
      averaged ones where the run kept them, and it holds no optimiser.
    """
    pairs = config_files.parse_overrides(overrides)
    if is_weight_file(checkpoint):
        return _load_published(checkpoint, pairs, data)
    directory, step = warm_start.find(checkpoint)
    metadata, _ = store.read_metadata(directory, step)
    plain = carried_tokenizers.unpack(metadata["recipe"], metadata.get("tokenizers"))
    if data is not None:
        plain["evaluators"] = _evaluator_on(data, plain)
    recipe, program, like = _start(plain, pairs)
    loaded, root = warm_start.load_params(directory, step, program.mesh, like)
    wanted = dict(tree.named_leaves(like))
    lines = tree.difference(wanted, loaded)
    if lines:
        raise UserError(f"{directory / str(step)} does not hold this model:\n  " + "\n  ".join(lines[:20]))
    variables = jax.tree.unflatten(jax.tree.structure(like), [loaded[name] for name in wanted])
    state = _state(program, variables, step)
    return recipe, program, state, {**metadata, "step": step, "weights": root}


def _load_published(
    checkpoint: str, pairs: Sequence[tuple[str, str]], data: str | None
) -> tuple[Recipe, Program, TrainState, dict[str, Any]]:
    """``load`` of a weight file: whole or not at all; another image size resamples the positions."""
    size = reading.stated_size(pairs)
    found = reading.load(checkpoint, size).whole()
    if found.recipe["model"].get("head") == "none":
        raise UserError(
            f"{checkpoint}: a BERT without a head gives embeddings alone: vitax predict --text TEXT --features F.npz."
        )
    plain = dict(found.recipe)
    if size is not None:
        plain["data"] = {**plain["data"], "ops": _ops_at(plain["data"].get("ops") or (), found.size, size)}
    if data is not None:
        plain["evaluators"] = _evaluator_on(data, plain)
    recipe, program, like = _start(plain, pairs)
    fit = found.fit(recipe.model(), recipe.data.size)
    variables, placement = warm_start.place(like, found.params, (), fit.table())
    if placement.reset or placement.ignored:
        raise UserError(f"{checkpoint} does not hold this model:\n  " + "\n  ".join(placement.lines()[1:]))
    if jax.process_index() == 0:
        for line in [*found.lines, *(f"resampled: {line}" for line in placement.resampled)]:
            terminal.console().print(line, markup=False)
    about = {"class_names": found.class_names, "step": 0, "weights": found.title}
    return recipe, program, _state(program, variables, 0), {"recipe": recipe.config, "versions": {}, **about}


def _start(plain: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> tuple[Recipe, Program, dict[str, Any]]:
    """A recipe with overrides, its program on all devices, and the shapes of the variables to load."""
    for key, text in pairs:
        config_files.override(plain, key, text)
    recipe = recipes.build(ConfigDict(plain))
    run.start_jax()
    program = recipe.program()
    program.ema = None  # the parameters that are loaded are the ones to use
    return recipe, program, {**program.abstract_state.params, **program.abstract_state.mutables}


def _state(program: Program, variables: dict[str, Any], step: int) -> TrainState:
    """A state without an optimiser from parameters with the other collections beside them."""
    mutables = {name: variables.pop(name) for name in program.abstract_state.mutables}
    return TrainState(step=jnp.int32(step), params=variables, mutables=mutables, opt_state=(), ema={})


def _ops_at(
    ops: Sequence[Mapping[str, Any]], old: tuple[int, int], new: tuple[int, int]
) -> tuple[Mapping[str, Any], ...]:
    """Image ops at another size, of which the crop keeps the same part of the image."""
    factor = min(new) / min(old)
    return tuple({**op, "smaller": round(op["smaller"] * factor)} if "smaller" in op else op for op in ops)


def _evaluator_on(path: str, plain: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluator on a user's images, prepared as the recipe's own."""
    parts = own_data.locate(path)
    where = parts.get("val") or parts.get("test") or parts["train"]
    stated = [spec["data"]["ops"] for spec in (plain.get("evaluators") or {}).values() if "ops" in spec.get("data", {})]
    # Ops that train may draw at random: without an evaluator's, images are only resized.
    calm = [
        op
        for op in plain["data"].get("ops") or ()
        if op["kind"] in ("decode", "resize", "resize_small", "central_crop")
    ]
    ops = stated[0] if stated else calm if len(calm) > 1 else [{"kind": "decode"}, {"kind": "resize"}]
    source = {"kind": "labelled", "path": where}
    data = {"source": source, "ops": ops, "num_examples": len(labelled.listing(where).names)}
    return {"val": {"kind": "classification", "data": data}}


def check_images(recipe: Recipe, what: str) -> None:
    """Refuses a model of text where images are meant.

    Raises:
      UserError: says what it can be used for.
    """
    if recipe.data.size is None:
        raise UserError(
            f"{what}: a language model, which takes no images; vitax generate continues a prompt with "
            "it, or vitax predict --text fills, classifies and embeds where it is a BERT."
        )


def check_head(recipe: Recipe, checkpoint: str) -> None:
    """Refuses a model that gives features alone.

    Raises:
      UserError: says what it can be used for.
    """
    if recipe.config["model"].get("num_classes") == 0:
        raise UserError(
            f"{checkpoint}: the model has no head, so it cannot classify. vitax predict --features FILE.npz writes "
            "what a head would see; vitax finetune gives it one."
        )


def evaluate(checkpoint: str, overrides: Sequence[str] = (), data: str | None = None) -> dict[str, Any]:
    """Runs every evaluator of the recipe on a checkpoint.

    Args:
      checkpoint: as for ``load``.
      overrides: as for ``load``.
      data: as for ``load``.

    Returns:
      ``{"metrics": {"val/accuracy": ...}, "examples": n, "step": n, "weights": "params" | "ema"}``.
    """
    recipe, program, state, metadata = load(checkpoint, overrides, data)
    if data is not None:
        check_images(recipe, f"--data {data}")
    check_head(recipe, checkpoint)
    evaluators = recipe.evaluators()
    if not evaluators:
        raise UserError(
            "The recipe has no evaluators; give labelled images with --data DIR, or "
            "--config.evaluators.val.data.source...=..."
        )
    run.check_classes(metadata.get("class_names"), evaluators)
    values: dict[str, float] = {}
    examples = 0
    for evaluator, _ in evaluators:
        values |= {f"{evaluator.name}/{k}": v for k, v in evaluator.build(program)(state).items()}
        examples += len(evaluator.pipeline.source)  # type: ignore[attr-defined]
    return {"metrics": values, "examples": examples, "step": metadata["step"], "weights": metadata["weights"]}
