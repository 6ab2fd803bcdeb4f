"""A recipe explained before it runs: its steps, its learning rate, what decays, what is sharded how.

Shapes alone: nothing is initialised, and no accelerator is needed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitax import estimate
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.parallel.rules import replicated
from vitax.recipe import Recipe
from vitax.train.terminal import count, size

# Points of the learning-rate curve: one a column of the drawing.
_POINTS = 66
_BARS = " ▁▂▃▄▅▆▇█"
_DECAY = {
    "lr": "decoupled: p -= lr (update + {wd:g} p)",
    "schedule": "decoupled: p -= lr update + lr / peak {wd:g} p",
    "gradient": "coupled: {wd:g} p is added to the gradient, before clipping and momentum",
}


def explain(recipe: Recipe, devices: int = 1) -> dict[str, Any]:
    """What a recipe resolves to.

    Args:
      recipe: a checked recipe.
      devices: how many to lay the recipe's mesh over.

    Returns:
      Plain data: ``name``, ``row``; ``length`` (everything in steps); ``learning_rate``
      (``peak, warmup_steps, step, value``); ``weight_decay`` in both conventions;
      ``parameters`` (a row for all layers together); ``sharding``.

    Raises:
      UserError: the mesh or the batch does not fit that many devices.
    """
    if devices < 1:
        raise UserError(f"--devices {devices}: expected at least 1.")
    rules = recipe.optimizer.describe(recipe.abstract_params)
    sizes = {name: math.prod(leaf.shape) for name, leaf in tree.named_leaves(recipe.abstract_params)}
    return {
        "name": recipe.name,
        "row": (recipe.config.get("paper") or {}).get("row"),
        "length": _length(recipe),
        "learning_rate": _learning_rate(recipe),
        "weight_decay": _weight_decay(recipe, rules, sizes),
        "parameters": _parameters(rules, sizes),
        "sharding": _sharding(recipe, devices),
    }


def _length(recipe: Recipe) -> dict[str, Any]:
    data = recipe.data
    evaluators = recipe.config.get("evaluators") or {}
    return {
        "steps": recipe.total_steps,
        "epochs": recipe.total_examples / data.num_examples,
        "examples": recipe.total_examples,
        "batch_size": data.batch_size,
        "accumulate": recipe.accumulate,
        "num_examples": data.num_examples,
        "log_every": recipe.every(recipe.log.every, "log.every"),
        "checkpoint_every": recipe.every(recipe.checkpoint.every, "checkpoint.every"),
        "checkpoints_kept": recipe.checkpoint.keep,
        "evaluate_every": {
            name: recipe.every(spec.get("every") or {"epochs": 1}, f"evaluators.{name}.every")
            for name, spec in evaluators.items()
        },
    }


def _learning_rate(recipe: Recipe) -> dict[str, Any]:
    last = recipe.total_steps - 1
    warmup = recipe.schedule.warmup
    steps = np.unique(np.round(np.linspace(0, last, min(_POINTS, last + 1))).astype(np.int32))
    return {
        "kind": recipe.config["schedule"]["kind"],
        "peak": recipe.optimizer.lr,
        "warmup_steps": recipe.steps(warmup, "schedule.warmup") if warmup else 0,
        "step": steps.tolist(),
        "value": np.asarray(recipe.learning_rate(steps), np.float64).tolist(),
    }


def _weight_decay(recipe: Recipe, rules: Sequence[Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """``paper``: what is multiplied by the rate; ``big_vision``: that times the peak rate; None for coupled decay."""
    stated, scale, peak = recipe.optimizer.weight_decay, recipe.optimizer.weight_decay_scale, recipe.optimizer.lr
    paper = {"lr": stated, "schedule": stated / peak, "gradient": None}[scale]
    decays = [rule.name for rule in rules if rule.decays]
    return {
        "stated": stated,
        "scale": scale,
        "paper": paper,
        "big_vision": None if paper is None else paper * peak,
        "decay_mask": list(recipe.optimizer.decay_mask),
        "leaves": len(decays),
        "of_leaves": len(rules),
        "parameters": sum(sizes[name] for name in decays),
        "of_parameters": sum(sizes.values()),
    }


def collapse(name: str) -> str:
    """``encoder/block_07/norm/scale`` -> ``encoder/block_*/norm/scale``."""
    return re.sub(r"((?:^|/)block_)\d+(?=/|$)", r"\1*", name)


def _parameters(rules: Sequence[Any], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row for the same parameter of all layers, in the order of the first."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for rule in rules:
        key = (collapse(rule.name), rule.leaf, rule.decays, rule.frozen, rule.method)
        groups.setdefault(key, []).append(rule)
    return [
        {
            "name": name if len(found) > 1 else found[0].name,
            "layers": len(found),
            "leaf": leaf,
            "parameters": sum(sizes[rule.name] for rule in found),
            "decays": decays,
            "frozen": frozen,
            "method": method,
            "lr_multiplier": sorted({rule.lr_multiplier for rule in found}),
        }
        for (name, leaf, decays, frozen, method), found in groups.items()
    ]


def _sharding(recipe: Recipe, devices: int) -> dict[str, Any]:
    mesh = estimate.abstract_mesh(recipe.mesh_spec.sizes(devices))
    program = recipe.program(mesh, platform="tpu" if devices > 1 else "cpu")
    state = program.abstract_state
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for name, leaf in tree.named_leaves(state.params):
        spec = tuple(list(axes) if isinstance(axes, tuple) else axes for axes in leaf.sharding.spec)
        spec += (None,) * (len(leaf.shape) - len(spec))
        groups.setdefault((collapse(name), tree.describe(leaf), repr(spec)), []).append((name, leaf, spec))
    rows = [
        {
            "name": name if len(found) > 1 else found[0][0],
            "layers": len(found),
            "leaf": leaf,
            "partition": list(found[0][2]),
            "bytes_a_device": sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for _, x, _ in found),
        }
        for (name, leaf, _), found in groups.items()
    ]
    return {
        "devices": devices,
        "mesh": dict(mesh.shape),
        "rules": {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.rules.table.items()},
        "parameters": rows,
        "state_bytes_a_device": estimate.state_bytes(program),
        "batch_bytes_a_device": estimate.batch_bytes(program),
        "replicated": replicated(state.params, jax.tree.map(lambda x: x.sharding, state.params), mesh),
    }


# ---- lines for a person ---------------------------------------------------------


def lines(found: Mapping[str, Any]) -> list[str]:
    """The explanation at 80 columns."""
    shown = [found["name"] + (f": {found['row']}" if found["row"] else "")]
    parts = (_length_lines, _rate_lines, _decay_lines, _parameter_lines, _sharding_lines)
    for part in parts:
        shown += ["", *part(found)]
    return shown


def _length_lines(found: Mapping[str, Any]) -> list[str]:
    length, micro = found["length"], found["length"]["accumulate"]
    rows = [
        (
            "steps",
            f"{length['steps']:,} of {length['batch_size']:,} examples in {micro} microbatch{'es' * (micro > 1)}",
        ),
        ("epochs", f"{length['epochs']:.4g} of {length['num_examples']:,}: {length['examples']:,} examples"),
        ("warm-up", f"{found['learning_rate']['warmup_steps']:,} steps"),
        ("log", f"every {_every(length['log_every'], length['steps'])}"),
        (
            "checkpoint",
            f"every {_every(length['checkpoint_every'], length['steps'])}, {length['checkpoints_kept']} kept",
        ),
    ]
    rows += [(f"eval {n}", f"every {_every(e, length['steps'])}") for n, e in length["evaluate_every"].items()]
    return [f"{name:<12}{text}" for name, text in rows]


def _every(every: float, steps: int) -> str:
    # The loop logs, evaluates and saves after the last step too, whenever it comes.
    times = math.ceil(steps / every - 1e-9)
    return f"{every:,.6g} steps ({times:,} time{'s' * (times != 1)}, the end included)"


def _rate_lines(found: Mapping[str, Any]) -> list[str]:
    rate = found["learning_rate"]
    highest, first, last = max(rate["value"]), rate["value"][0], rate["value"][-1]
    # The peak itself may fall between two columns; a run that ends in its warm-up never gets there.
    top = rate["peak"] if highest > 0.8 * rate["peak"] else highest
    head = f"learning rate: {rate['kind']}, {first:.3g} at step 0, peak {rate['peak']:g}, {last:.3g} at the last step"
    return [head, *curve(rate["step"], rate["value"], top)]


def curve(steps: Sequence[int], values: Sequence[float], top: float, height: int = 8) -> list[str]:
    """Draws values of equally spaced steps as bars of eighths of a character.

    Args:
      steps: of the values; the first and the last label the axis.
      values: at least 0.
      top: what fills the whole height.
      height: lines of the drawing.
    """
    # A few steps are drawn wider, so that the axis is as long as ever.
    wide = [values[min(i * len(values) // _POINTS, len(values) - 1)] for i in range(_POINTS)]
    eighths = [round(8 * height * value / top) if top else 0 for value in wide]
    drawn = []
    for row in reversed(range(height)):
        label = f"{top * (row + 1) / height:.2e}" if row in (height - 1, height // 2 - 1) else ""
        bars = "".join(_BARS[min(max(e - 8 * row, 0), 8)] for e in eighths)
        drawn.append(f"{label:>9} ┤{bars}".rstrip())
    left, right = f"{steps[0]:,}", f"{steps[-1]:,}"
    space = _POINTS - len(left) - len(right)
    drawn.append(f"{'0':>9} ┼{'─' * _POINTS}")
    drawn.append(f"{'':11}{left}{'step':^{space}}{right}")
    return drawn


def _decay_lines(found: Mapping[str, Any]) -> list[str]:
    decay = found["weight_decay"]
    if not decay["stated"]:
        return ["weight decay: none"]
    shown = ["weight decay, " + _DECAY[decay["scale"]].format(wd=decay["stated"])]
    if decay["paper"] is None:
        shown.append(f"  gradient of {decay['stated']:g} / 2 |p|^2 in the loss; neither convention below applies")
    else:
        shown.append(f"  {decay['paper']:<10.4g} as papers and AdamW state it: multiplied by the rate of the step")
        shown.append(f"  {decay['big_vision']:<10.4g} as big_vision's `wd` states it: {decay['paper']:.4g} x peak rate")
    shown.append(
        f"  on {decay['leaves']} of {decay['of_leaves']} arrays, {count(decay['parameters'])} of "
        f"{count(decay['of_parameters'])} parameters (decay_mask {', '.join(decay['decay_mask'])})"
    )
    return shown


def _named(row: Mapping[str, Any]) -> str:
    return row["name"] + (f" x{row['layers']}" if row["layers"] > 1 else "")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be, two spaces apart where 80 columns allow it."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= 80 else " "
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _parameter_lines(found: Mapping[str, Any]) -> list[str]:
    rows = [("parameter", "shape", "decay", "rate x", "method")]
    for row in found["parameters"]:
        rates = row["lr_multiplier"]
        factor = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g}..{rates[-1]:.3g}"
        shape = row["leaf"].partition("[")[2].rstrip("]") or "scalar"
        method = "frozen" if row["frozen"] else row["method"]
        rows.append((_named(row), shape, "yes" if row["decays"] else "-", factor, method))
    return _table(rows)


def _sharding_lines(found: Mapping[str, Any]) -> list[str]:
    sharding = found["sharding"]
    mesh = " x ".join(f"{name} {n}" for name, n in sharding["mesh"].items() if n > 1) or "all sizes 1"
    devices = f"{sharding['devices']} device{'s' * (sharding['devices'] != 1)}"
    shown = ["sharding: logical axis -> mesh axis (others are whole on every device)"]
    split = {name: axes for name, axes in sharding["rules"].items() if axes}
    pairs = [f"{name} -> {', '.join(axes) if isinstance(axes, list) else axes}" for name, axes in split.items()]
    shown += [f"  {'; '.join(pairs[i : i + 3])}" for i in range(0, len(pairs), 3)]
    shown += [f"on {devices} (--devices N for others): mesh {mesh}"]
    rows = [("parameter", "partition", "a device")]
    for row in sharding["parameters"]:
        axes = ["+".join(a) if isinstance(a, list) else a or "-" for a in row["partition"]]
        rows.append((_named(row), ", ".join(axes) or "-", size(row["bytes_a_device"])))
    shown += _table(rows)
    state = sharding["state_bytes_a_device"]
    split_bytes = ", ".join(f"{name} {size(n)}" for name, n in state.items() if n)
    shown.append(f"state a device: {size(sum(state.values()))} ({split_bytes})")
    shown.append(f"batch a device: {size(sharding['batch_bytes_a_device'])}")
    shown += [f"large and whole on every device: {line}" for line in sharding["replicated"]]
    return shown
