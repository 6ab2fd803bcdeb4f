"""A checkpoint in a model that somebody asked for by name: what is taken, resampled, started afresh, left."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vitax.checkpoint import warm_start
from vitax.construct import construct
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.layers.batch_norm import STATISTICS
from vitax.models import table
from vitax.models.table import MODELS
from vitax.parallel.rules import unbox
from vitax.train import terminal
from vitax.weights import reading
from vitax.weights.reading import RUN_FIELDS, Published, with_defaults

# Heads, which start afresh where another is asked for.
_HEADS = ("head/", "mlm/", "next_sentence/", "pooler/")
# Goes with a head that is not taken.
_WITH_HEAD = (*_HEADS, "pre_logits/")


class Asked(NamedTuple):
    """What a caller wants.

    Attributes:
      name: of the model.
      fields: constructor fields that the name stands for, with ``kind``.
      changes: constructor fields that the call states itself.
      num_classes: None for those of the checkpoint.
      image_size: None for that of the checkpoint.
      seed: of what starts afresh.
    """

    name: str
    fields: Mapping[str, Any]
    changes: Mapping[str, Any]
    num_classes: int | None
    image_size: int | tuple[int, int] | None
    seed: int


def load(checkpoint: str, asked: Asked) -> tuple[Any, Any]:
    """The module and its variables; prints what was done.

    Raises:
      UserError: no such checkpoint, one of another model, or unknown fields.
    """
    size = asked.image_size
    size = (size, size) if isinstance(size, int) else size
    found = reading.read(checkpoint, "create_model: checkpoint", size).whole()
    size = size or found.image_size
    fields, lines = _fields(found, asked)
    model: Any = construct(MODELS, fields, "create_model", image_size=size)
    one = table.inputs(model, size, found.recipe["data"].get("channels") or 3)

    def init(key: Any) -> Any:
        variables = dict(unbox(model.init(key, *(jnp.zeros(x.shape, x.dtype) for x in one))))
        return {**variables.pop("params"), **variables}

    shapes = jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))
    new_head = any(with_defaults(fields).get(name) != found.fields.get(name) for name in ("head", "num_classes"))
    reset = ["^head/"] if new_head else []
    placed, placement = warm_start.place(shapes, found.params, reset, found.fit(model, size).table())
    wrong = [f"missing  {line}" for line in placement.reset if not (new_head and line.startswith(_HEADS))]
    wrong += [f"unexpected  {name}" for name in placement.ignored if not (new_head and name.startswith(_WITH_HEAD))]
    if wrong:
        raise UserError(f"create_model: {checkpoint} does not hold this {asked.name}:\n  " + "\n  ".join(wrong[:20]))
    for line in [*found.lines, *lines, *placement.lines()]:
        terminal.console().print(line, markup=False)
    # Of the random start only what is needed is computed.
    open_ = [name for name, x in tree.named_leaves(placed) if isinstance(x, jax.ShapeDtypeStruct)]
    fresh = jax.jit(lambda key: {n: x for n, x in tree.named_leaves(init(key)) if n in open_})(
        jax.random.key(asked.seed)
    )
    whole = tree.map_named(lambda name, x: fresh.get(name, x), placed)
    statistics = {name: whole.pop(name) for name in (STATISTICS,) if name in whole}
    return model, {"params": whole, **statistics}


def _fields(found: Published, asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """Constructor fields, and what the checkpoint says otherwise than the name."""
    held, wanted = found.fields, with_defaults({**asked.fields, **asked.changes})
    wrong = [
        f"{name} {held.get(name)}, not {wanted.get(name)}"
        for name in ("kind", *found.family.architecture)
        if _plain(held.get(name)) != _plain(wanted.get(name))
    ]
    if wrong:
        raise UserError(f"create_model: {found.spec} is no {asked.name}: it has {', '.join(wrong)}.")
    lines = [
        f"{name}: {held[name]}, as the checkpoint has it; {asked.name} alone has {asked.fields[name]}"
        for name in found.family.numerics
        if name in asked.fields and name not in asked.changes and _plain(held[name]) != _plain(asked.fields[name])
    ]
    fields = {name: x for name, x in found.recipe["model"].items() if name not in RUN_FIELDS}
    if "patch_size" in asked.fields:
        fields["patch_size"] = asked.fields["patch_size"]
    fields |= asked.changes
    if asked.num_classes is not None:
        fields["num_classes"] = asked.num_classes
    if fields.get("num_classes") != held.get("num_classes") and "pre_logits" not in asked.changes:
        fields.pop("pre_logits", None)  # a part of the head that is not taken
    return fields, lines


def _plain(value: Any) -> Any:
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value
