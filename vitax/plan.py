"""Will it fit, how long will it take, what will it cost: asked of the compiler, before launch.

The recipe's own Program is built on the devices of a slice that nobody here holds and
compiled by the TPU compiler, which runs on any x86-64 machine. What is said of memory,
FLOPs, bytes and collectives is then of the very step that will train. Times are
estimates of three kinds, labelled: the compiler's, an op-by-op roofline, and model FLOPs
at a stated MFU.
"""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from vitax import estimate
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.cost import chips, hlo
from vitax.cost.chips import Chip
from vitax.cost.roofline import roofline
from vitax.cost.topology import USABLE_HBM_BYTES, Topology
from vitax.parallel.mesh import build_mesh
from vitax.recipe import Recipe
from vitax.train.program import Program

MFU = 0.4
# What only a compiled program tells.
UNKNOWN: dict[str, Any] = dict.fromkeys(
    (
        *("bytes_per_core", "collectives", "compute_seconds", "memory_seconds", "network_seconds"),
        *("roofline_step_seconds", "compiler_step_seconds", "self_declared_step_seconds"),
    )
)


def plan(
    recipe: Recipe, topology: Topology, *, mfu: float | None = None, devices: Any = None, fast: bool = False
) -> dict[str, Any]:
    """Compiles a recipe's step for a topology and reads the bill off it.

    Args:
      recipe: the checked recipe.
      topology: slices to plan for.
      mfu: model FLOPs utilisation to assume; stated, it also decides ``core_days``.
      devices: of the topology, where they are at hand already.
      fast: no compiler: memory by arithmetic, time by the MFU alone.

    Returns:
      Plain data, as ``vitax plan --json`` prints it.

    Raises:
      UserError: no such topology, no compiler, or a recipe that does not fit its mesh.
    """
    if mfu is not None and not 0 < mfu <= 1:
        raise UserError(f"--mfu {mfu}: expected above 0 and at most 1.")
    begun = time.perf_counter()
    if fast:
        mesh = estimate.abstract_mesh(estimate.spec_of(recipe, topology).sizes(topology.num_devices))
        program = recipe.program(mesh, "tpu")
        measured = _by_arithmetic(recipe, topology, program) | {"compile_seconds": None}
        return _bill(recipe, topology, program, measured, mfu)
    program = build_program(recipe, topology, devices)
    # What is compiled for other machines cannot be read back here: keep it out of the cache.
    cached = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        measured = _out_of_memory(str(error), program)
    else:
        measured = _measure(compiled, program, topology, recipe)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    measured["compile_seconds"] = time.perf_counter() - begun
    return _bill(recipe, topology, program, measured, mfu)


def build_program(recipe: Recipe, topology: Topology, devices: Any = None) -> Program:
    """The recipe's Program on a topology; replicas follow the slices where the recipe leaves them at 1."""
    devices = topology.devices() if devices is None else devices
    return recipe.program(build_mesh(estimate.spec_of(recipe, topology), devices))


def _measure(compiled: Any, program: Program, topology: Topology, recipe: Recipe) -> dict[str, Any]:
    stats, cost = compiled.memory_analysis(), compiled.cost_analysis()
    ops = hlo.Module(compiled.as_text(), topology.num_devices // topology.slices if topology.slices > 1 else 0).ops()
    ops = _with_kernels(ops, program)
    limits = roofline(ops, chip_of(recipe, topology))
    arguments = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    split = {**estimate.state_bytes(program), "batch": estimate.batch_bytes(program)}
    split["padding"] = max(arguments - sum(split.values()), 0)
    activations = min(estimate.stack_of(recipe, program).kept_bytes(), stats.temp_size_in_bytes)
    split |= {"activations": activations, "temporaries": stats.temp_size_in_bytes - activations}
    limit = USABLE_HBM_BYTES[topology.generation]
    used = arguments + stats.temp_size_in_bytes
    stated = compiler_seconds(cost, ops, limits.compute, topology)
    declared = any(op.kernel for op in ops)
    return {
        "fits": used <= limit,
        "hbm_bytes_per_core": used,
        "hbm_limit_bytes": limit,
        "hbm_split_bytes": split,
        "flops_per_core": sum(op.flops * op.times for op in ops),
        "bytes_per_core": sum(op.hbm_bytes * op.times for op in ops),
        "collectives": hlo.collectives(ops),
        "compute_seconds": limits.compute,
        "memory_seconds": limits.memory,
        "network_seconds": limits.network,
        "roofline_step_seconds": limits.per_op,
        "compiler_step_seconds": None if declared else stated,
        "self_declared_step_seconds": stated if declared else None,
    }


def _with_kernels(ops: list[hlo.Op], program: Program) -> list[hlo.Op]:
    """The operations, with the FLOPs of kernels that declare none: what the walk of the step counts beyond the rest.

    All blocks are counted, those too that a causal mask skips.
    """
    silent = sum(op.times for op in ops if op.kernel and not op.flops)
    if not silent or program.executed_flops is None:
        return ops
    rest = program.executed_flops / program.mesh.size - sum(op.flops * op.times for op in ops)
    share = max(int(rest), 0) // silent
    return [dataclasses.replace(op, flops=share) if op.kernel and not op.flops else op for op in ops]


def compiler_seconds(cost: Any, ops: list[hlo.Op], compute: float, topology: Topology) -> float | None:
    """The compiler's own estimate of a step, or None where it is no such thing.

    It holds placeholders on v4, v5e and v6e, and counts a loop's body once. A figure
    below the arithmetic is absurd. It takes the word of a hand-written kernel for its
    cost: with one in the step it goes under another name.
    """
    stated = cost.get("optimal_seconds") if cost else None
    looped = any(op.times > 1 for op in ops)
    if stated is None or not topology.compiler_states_time or looped:
        return None
    return float(stated) if stated >= 0.9 * compute and math.isfinite(stated) else None


def _out_of_memory(message: str, program: Program) -> dict[str, Any]:
    """What a refusal says: the answer "does not fit", with the missing bytes."""
    if "memory space vmem" in message:
        raise UserError(
            "A Pallas kernel of this step needs more vector memory than the chip has. Take smaller images or larger "
            f'patches, or set model.attention_kernel to "xla". (The compiler: {message.splitlines()[0]})'
        )
    found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message)
    if found is None:
        raise UserError(f"The compiler ran out of memory and did not say how much it needs: {message.splitlines()[0]}")
    needed, limit = (int(float(found[i]) * 1024 ** " KMGT".index(found[i + 1] or " ")) for i in (1, 3))
    split = {**estimate.state_bytes(program), "batch": estimate.batch_bytes(program)}
    return {
        "fits": False,
        "hbm_bytes_per_core": needed + sum(split.values()),
        "hbm_limit_bytes": limit,
        "hbm_split_bytes": {**split, "temporaries": needed},
        "flops_per_core": None if program.executed_flops is None else program.executed_flops / program.mesh.size,
        **UNKNOWN,
    }


def _by_arithmetic(recipe: Recipe, topology: Topology, program: Program) -> dict[str, Any]:
    stack = estimate.stack_of(recipe, program)
    found = estimate.estimate(recipe, program, topology, chip_of(recipe, topology), stack, recipe.accumulate)
    split = {**estimate.state_bytes(program), "batch": estimate.batch_bytes(program)}
    temporary = found["hbm_bytes_per_core"] - sum(split.values())
    kept = stack.kept_bytes()
    return {
        **{k: found[k] for k in ("fits", "hbm_bytes_per_core", "hbm_limit_bytes")},
        "hbm_split_bytes": {**split, "activations": kept, "temporaries": temporary - kept},
        "flops_per_core": estimate.executed_flops(recipe, program, stack, recipe.accumulate),
        **UNKNOWN,
    }


def _bill(
    recipe: Recipe, topology: Topology, program: Program, measured: dict[str, Any], mfu: float | None
) -> dict[str, Any]:
    chip, steps = chip_of(recipe, topology), recipe.total_steps
    flops = 3.0 * recipe.forward_flops_per_example * recipe.data.batch_size
    peak = chip.device_peak_bf16_flops * topology.num_devices
    times = {
        "compiler": measured["compiler_step_seconds"],
        "roofline": measured["roofline_step_seconds"],
        "mfu": flops / peak / (mfu or MFU),
    }
    # What the user states beats what anybody estimates.
    source = "mfu" if mfu is not None else next(name for name, seconds in times.items() if seconds)
    days = {n: None if s is None else s * steps * topology.num_devices / 86400 for n, s in times.items()}
    hours = times[source] * steps / 3600
    paper = recipe.config.get("paper") or {}
    return {
        "model": f"{recipe.config['model']['kind']}, {tree.size(program.abstract_state.params)} parameters",
        "row": paper.get("row"),
        "topology": str(topology),
        "devices": topology.num_devices,
        "chips": topology.num_chips,
        "mesh": {k: v for k, v in program.mesh.shape.items() if v > 1},
        "batch_size": recipe.data.batch_size,
        "accumulate": recipe.accumulate,
        "remat": recipe.config.get("remat") or "none",
        "unroll": recipe.config.get("unroll", True),
        "steps": steps,
        **measured,
        "missing_bytes": max(measured["hbm_bytes_per_core"] - measured["hbm_limit_bytes"], 0),
        "model_flops_per_step": flops,
        "mfu": mfu or MFU,
        "mfu_step_seconds": times["mfu"],
        "step_seconds_source": source,
        "implied_mfu": flops / peak / times[source],
        "hours": hours,
        "core_days": days[source],
        "core_days_source": source,
        "core_days_by_source": days,
        "tpu_v3_core_days": days[source]
        if topology.generation == "v3"
        else chips.v3_core_seconds(flops * steps, MFU) / 86400,
        "tpu_v3_core_days_source": "of this plan"
        if topology.generation == "v3"
        else f"converted from model FLOPs at {MFU:.0%} of 61.5 TFLOP/s a core",
        "published_core_days": paper.get("core_days"),
        "usd": None if chip.usd_per_hour is None else chip.usd_per_hour * topology.num_chips * hours,
        "usd_per_chip_hour": chip.usd_per_hour,
        "prices_as_of": chips.AS_OF,
    }


def chip_of(recipe: Recipe, topology: Topology) -> Chip:
    """The chip of a topology, with the recipe's own figures laid over the table's."""
    return chips.override(topology.chip, recipe.chip)
