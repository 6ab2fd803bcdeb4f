"""The teacher of a distillation: found when a recipe is built, loaded when a run starts."""

from collections.abc import Mapping
from typing import Any

import jax

from vitax.checkpoint import store, warm_start
from vitax.checkpoint.files import is_weight_file
from vitax.construct import construct, fields_of
from vitax.core import tree
from vitax.core.errors import UserError, pick, suggest
from vitax.core.types import TrainState
from vitax.models.table import MODELS
from vitax.objectives.distill import TEACHER, Teacher
from vitax.train import terminal
from vitax.train.program import Program
from vitax.weights import reading

FIELDS = ("checkpoint", "model", "mean", "std")


def resolve(objective: Mapping[str, Any]) -> dict[str, Any]:
    """``objective`` with the teacher's model written out, so that a run carries it from then on.

    ``teacher: {checkpoint: DIR[@STEP]}``, or a published weight file, gains ``model``, ``mean``
    and ``std`` from the recipe in that checkpoint; one that states ``model`` is left as it is, and no file is read.

    Raises:
      UserError: an unknown field, no checkpoint there, or one that is no classifier.
    """
    stated = objective.get(TEACHER)
    if stated is None:
        return dict(objective)
    if not isinstance(stated, Mapping):
        raise UserError(f'objective.teacher: expected {{"checkpoint": DIR}}, got {stated!r}.')
    for key in stated:
        if key not in FIELDS:
            raise UserError(
                f"objective.teacher.{key}: unknown field.{suggest(key, FIELDS)} Valid: {', '.join(FIELDS)}."
            )
    if stated.get("model"):
        return dict(objective)
    where = "objective.teacher.checkpoint"
    if not stated.get("checkpoint"):
        raise UserError(f"{where}: missing. Give a workdir or a published weight file.")
    if is_weight_file(stated["checkpoint"]):
        taught = reading.load(stated["checkpoint"]).whole().recipe
    else:
        directory, step = warm_start.find(stated["checkpoint"], where)
        taught = store.read_metadata(directory, step)[0]["recipe"]
    model = dict(taught["model"])
    data = taught["data"]
    fields = fields_of(pick(MODELS, model["kind"], f"{where}: model.kind"))
    # A published file's positions are resampled to the student's images, which set the size then.
    held = ("num_classes",) if is_weight_file(stated["checkpoint"]) else ("num_classes", "image_size")
    model |= {n: data[n] for n in held if n in fields and model.get(n) is None}
    scaling = {n: taught["objective"][n] for n in ("mean", "std") if n in taught["objective"]}
    return {**objective, TEACHER: {"model": model, **scaling, **{k: v for k, v in stated.items() if v is not None}}}


def build(stated: Any, num_classes: int, dtype: str) -> Teacher:
    """The teacher of a resolved objective.

    Raises:
      UserError: it has other classes than the student.
    """
    where = "objective.teacher"
    model: Any = construct(MODELS, stated["model"], f"{where}.model", dtype=dtype)
    if model.num_classes != num_classes:
        raise UserError(f"{where}: it has {model.num_classes} classes, the student {num_classes}.")
    scaling = {n: tuple(stated[n]) for n in ("mean", "std") if stated.get(n)}
    return Teacher(model, **scaling)


def load(objective: Mapping[str, Any], program: Program, state: TrainState) -> TrainState:
    """Puts the teacher's weights into a fresh state (averaged ones where its run kept them).

    Raises:
      UserError: no checkpoint is named, or it holds another model.
    """
    if TEACHER not in state.constants:
        return state
    where = "objective.teacher.checkpoint"
    if not objective[TEACHER].get("checkpoint"):
        raise UserError(f"{where}: missing. Give a workdir or a published weight file.")
    checkpoint = objective[TEACHER]["checkpoint"]
    variables = dict(program.abstract_state.constants[TEACHER])
    like = {**variables.pop("params"), **variables}  # as ``load_params`` names them
    if is_weight_file(checkpoint):
        params = _published(checkpoint, program, like)
        others = {name: params.pop(name) for name in variables}
        return state.replace(constants={TEACHER: {"params": params, **others}})  # type: ignore[attr-defined]
    directory, step = warm_start.find(checkpoint, where)
    loaded, _ = warm_start.load_params(directory, step, program.mesh, like)
    named = dict(tree.named_leaves(like))
    lines = tree.difference(named, loaded)
    if lines:
        raise UserError(
            f"{where}: {directory / str(step)} does not hold the teacher's model:\n  " + "\n  ".join(lines[:20])
        )
    params = jax.tree.unflatten(jax.tree.structure(like), [loaded[name] for name in named])
    others = {name: params.pop(name) for name in variables}
    return state.replace(constants={TEACHER: {"params": params, **others}})  # type: ignore[attr-defined]


def _published(checkpoint: str, program: Program, like: Any) -> Any:
    """Variables of a published teacher, its positions and patches made to fit the student's images."""
    height, width = program.batch_spec["image"].shape[1:3]
    found = reading.load(checkpoint, (height, width)).whole()
    objective: Any = program.objective
    fit = found.fit(objective.teacher.model, (height, width))
    placed, placement = warm_start.place(like, found.params, (), fit.table())
    if placement.reset or placement.ignored:
        raise UserError(
            f"objective.teacher.checkpoint: {checkpoint} does not hold the teacher's model:\n  "
            + "\n  ".join(placement.lines()[1:])
        )
    if jax.process_index() == 0:
        for line in [*found.lines, *(f"resampled: {line}" for line in placement.resampled)]:
            terminal.console().print(f"teacher: {line}", markup=False)
    return placed
