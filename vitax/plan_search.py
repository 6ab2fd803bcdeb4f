"""Searches microbatch x remat x sharding x scan for the cheapest step that fits."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from vitax import estimate
from vitax.core.errors import UserError
from vitax.cost.topology import Topology
from vitax.layers.remat import REMAT_POLICIES
from vitax.plan import chip_of, plan
from vitax.recipe import Recipe, build

# How far the arithmetic may be over the limit before it is believed: a step a little too
# large the compiler makes fit, by recomputing on its own.
_MARGIN, _ROUGH_MARGIN = 1.4, 1.6
ERROR = (
    "Arithmetic: memory within 20% of the compiler's peak for ViT with none or full remat, rough for the other "
    "policies; times are for ranking."
)


def search(recipe: Recipe, topology: Topology, *, fast: bool, compile_at_most: int = 4) -> dict[str, Any]:
    """Ranks settings of a recipe on a topology.

    Args:
      recipe: what to train; its batch size and model stay.
      topology: where.
      fast: arithmetic alone; no compiler is needed.
      compile_at_most: how many of the most promising the compiler judges otherwise.

    Returns:
      Plain data: ``candidates`` (cheapest first; those that fit before those that do
      not), ``best`` (overrides to paste, [] where none fits), ``considered``,
      ``pruned``, ``error``.
    """
    rows = sorted(_candidates(recipe, topology), key=lambda r: (not r["fits"], r["step_seconds"]))
    if not rows:
        raise UserError(f"plan --search: a batch of {recipe.data.batch_size} divides over no mesh of {topology}.")
    margin = {row_id: _ROUGH_MARGIN if row["rough"] else _MARGIN for row_id, row in enumerate(rows)}
    kept = [
        row for i, row in enumerate(rows) if row["hbm_bytes_per_core"] <= row["hbm_limit_bytes"] * margin[i]
    ] or rows[-1:]
    pruned = len(rows) - len(kept)
    if not fast:
        devices = topology.devices()
        judged: list[dict[str, Any]] = []
        for row in sorted(kept, key=lambda r: r["step_seconds"]):
            if len(judged) == compile_at_most and any(r["fits"] for r in judged):
                break
            if len(judged) >= 2 * compile_at_most:
                break
            judged.append(_judge(recipe, row, topology, devices))
        kept = judged
    kept.sort(key=lambda r: (not r["fits"], r["step_seconds"]))
    best: list[str] = next((row["overrides"] for row in kept if row["fits"]), [])
    return {
        "topology": str(topology),
        "candidates": kept[:20],
        "considered": len(rows),
        "pruned": pruned,
        "best": best,
        "error": ERROR,
    }


def meshes(num_devices: int, slices: int, num_heads: int) -> Iterator[dict[str, int]]:
    """Sizes worth a look: data-parallel, sharded, both, and tensor-parallel within a host."""
    inner = num_devices // slices
    for tensor in (1, 2, 4):
        if inner % tensor or num_heads % tensor:
            continue
        rest = inner // tensor
        for fsdp in sorted({1, rest, *(n for n in (8, 16, 64) if rest % n == 0 and n < rest)}):
            if tensor > 1 and fsdp == 1:
                continue
            yield {"replica": slices, "data": rest // fsdp, "fsdp": fsdp, "tensor": tensor}


def _candidates(recipe: Recipe, topology: Topology) -> Iterator[dict[str, Any]]:
    chip, base = chip_of(recipe, topology), None
    heads = recipe.config["model"].get("num_heads", 1)
    for sizes in meshes(topology.num_devices, topology.slices, heads):
        mesh = estimate.abstract_mesh(sizes)
        if recipe.data.batch_size % recipe.rules.batch_ways(mesh):
            continue
        program = recipe.program(mesh, "tpu") if base is None else base.on(mesh)
        base = base or program
        here = recipe.data.batch_size // recipe.rules.batch_ways(mesh)
        for accumulate, remat, unroll in itertools.product((1, 2, 4, 8, 16), REMAT_POLICIES, (True, False)):
            if here % accumulate or (here == accumulate and accumulate > 1):
                continue
            stack = estimate.stack_of(recipe, program, remat=remat, unroll=unroll, accumulate=accumulate)
            row = estimate.estimate(recipe, program, topology, chip, stack, accumulate)
            yield {
                **row,
                "core_days": row["step_seconds"] * recipe.total_steps * topology.num_devices / 86400,
                "source": "arithmetic",
                "mesh": {k: v for k, v in sizes.items() if v > 1},
                "accumulate": accumulate,
                "remat": remat,
                "unroll": unroll,
                "overrides": [
                    *(f"--config.mesh.{name}={n}" for name, n in sizes.items()),
                    f"--config.accumulate={accumulate}",
                    f"--config.remat={remat}",
                    f"--config.unroll={unroll}",
                ],
            }


def _judge(recipe: Recipe, row: dict[str, Any], topology: Topology, devices: Sequence[Any]) -> dict[str, Any]:
    config = {
        **recipe.config,
        "mesh": {"replica": 1, "data": 1, "fsdp": 1, "tensor": 1, **row["mesh"]},
        **{k: row[k] for k in ("accumulate", "remat", "unroll")},
    }
    made = plan(build(config), topology, devices=devices)
    seconds = made["roofline_step_seconds"] or row["step_seconds"]
    return {
        **row,
        "hbm_bytes_per_core": made["hbm_bytes_per_core"],
        "fits": made["fits"],
        "step_seconds": seconds,
        "core_days": seconds * recipe.total_steps * topology.num_devices / 86400,
        "source": "roofline" if made["roofline_step_seconds"] else "arithmetic",
        "rough": False,
        "compile_seconds": made["compile_seconds"],
        "arithmetic_hbm_bytes": row["hbm_bytes_per_core"],
    }
