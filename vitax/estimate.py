"""A plan by arithmetic alone: memory and a rough time of a step, in milliseconds.

For choosing among many settings before the compiler looks at a few. ``vitax plan``
is the judge; what these figures miss is in docs/accounting.md.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from vitax.core import tree
from vitax.cost import memory
from vitax.cost.chips import Chip
from vitax.cost.topology import USABLE_HBM_BYTES, Topology
from vitax.models.hybrid import Hybrid
from vitax.parallel.mesh import AXES, MeshSpec
from vitax.parallel.rules import unbox
from vitax.recipe import Recipe
from vitax.train.program import Program

# Of the peak, what the matrix products of a step reach by the TPU compiler's account
# when nothing else is in the way; the rest of a step is added to it.
_PRODUCTS = 0.9
# Bytes that pass through HBM for each byte that the forward pass leaves: written, read,
# their gradients likewise.
_TRAFFIC = 6.0
# Forward passes that each policy of remat runs once more: blocks, projections or elementwise work.
_AGAIN = {"none": 0.0, "dots": 0.0, "dots_with_no_batch_dims": 0.1, "full": 1.0}
# Shares of HBM traffic and of collectives that matrix products do not hide: judgement, not a fit;
# they order settings and predict nothing.
_EXPOSED_MEMORY, _EXPOSED_NETWORK = 0.25, 0.5
# A loop keeps the compiler from overlapping and fusing over its border.
_LOOP = 1.05


def abstract_mesh(sizes: Mapping[str, int]) -> AbstractMesh:
    """A mesh of shapes alone."""
    shape = tuple(sizes[name] for name in AXES)
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def stack_of(
    recipe: Recipe, program: Program, *, remat: str | None = None, unroll: bool | None = None, accumulate: int = 0
) -> memory.Layers:
    """The layers of a recipe's model as one device of a program's mesh sees them.

    Args:
      recipe: of a ViT, a hybrid, or a network of feature maps.
      program: says over how many devices what is split.
      remat: in place of the recipe's.
      unroll: likewise.
      accumulate: likewise; 0 = the recipe's.
    """
    remat = remat or recipe.config.get("remat") or "none"
    # Scanned: tracing does not grow with depth, and the maps are the same.
    model: Any = recipe.model("tpu").clone(remat=remat, unroll=False)
    size, channels = recipe.data.size, recipe.data.channels
    ways = program.rules.batch_ways(program.mesh)
    examples = math.ceil(recipe.data.batch_size / (accumulate or recipe.accumulate) / ways)
    itemsize = 2 if recipe.dtype("tpu") == "bfloat16" else 4
    scanned = not (recipe.config.get("unroll", True) if unroll is None else unroll)
    if not hasattr(model, "num_tokens"):
        # Without remat the compiler keeps what "dots" does: it fuses norms and ReLU into the
        # convolutions that read them (R50x1, 32 images on a v3 core: 850 MiB in all, where
        # every array that JAX saves would be 1,754 and those of "dots" are 619).
        return memory.FeatureMaps(
            examples=examples,
            depth=sum(model.blocks),
            itemsize=itemsize,
            remat=remat,
            scanned=scanned,
            kept=residual_bytes(model.clone(remat="full" if remat == "full" else "dots"), size, channels),
            written=residual_bytes(model.clone(remat="none"), size, channels),
            widest=_widest(model, size, channels) * itemsize,
        )
    tensor = program.mesh.shape["tensor"]
    return memory.Stack(
        examples=examples,
        tokens=model.num_tokens(size),
        width=model.width,
        depth=model.depth,
        mlp_dim=math.ceil(model.mlp_dim / tensor),
        num_heads=math.ceil(model.num_heads / tensor),
        head_dim=model.width // model.num_heads,
        itemsize=itemsize,
        remat=remat,
        scanned=scanned,
        flat=model.attention_kernel == "pallas",
        stem=_stem_bytes(model, size, channels) if isinstance(model, Hybrid) else 0,
    )


@functools.cache
def residual_bytes(model: Any, size: tuple[int, int], channels: int, method: str | None = None) -> int:
    """Bytes of one example that the backward pass reads, as JAX differentiates the model.

    What the compiler makes again or fuses away is not taken off.

    Args:
      model: under its own policy of remat.
      size: (height, width) of the images.
      channels: of the images.
      method: of the model, to differentiate in place of its features.
    """

    def forward(variables: Any, images: Any) -> Any:
        out = model.apply(variables, images, method=method)
        return out if method else out.features

    def saved(batch: int) -> int:
        images = jax.ShapeDtypeStruct((batch, *size, channels), jnp.float32)
        variables = unbox(jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), images))
        kept = jax.eval_shape(lambda v, x: jax.vjp(lambda v: forward(v, x), v)[1], variables, images)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))

    # The difference: what does not grow with the batch are parameters.
    return saved(2) - saved(1)


def _stem_bytes(model: Hybrid, size: tuple[int, int], channels: int) -> int:
    kept = "full" if model.remat == "full" else "dots"
    return residual_bytes(model.clone(remat=kept), size, channels, "maps")


def _widest(model: Any, size: tuple[int, int], channels: int) -> int:
    """Elements of the largest of the model's intermediates, of one example."""
    images = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)

    def intermediates(key: Any, images: Any) -> Any:
        return model.init_with_output(key, images, return_intermediates=True)[0].intermediates

    return max(x.size for x in jax.eval_shape(intermediates, jax.eval_shape(jax.random.key, 0), images).values())


def state_bytes(program: Program) -> dict[str, int]:
    """Bytes of the train state on one device: parameters, optimiser, averages."""

    def here(part: Any) -> int:
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(part))

    state = program.abstract_state
    return {
        "parameters": here((state.params, state.mutables, state.constants)),
        "optimizer": here((state.opt_state, state.step)),
        "averages": here((state.ema, state.ema_mutables)),
    }


def batch_bytes(program: Program) -> int:
    """Bytes of the batch on one device."""
    return sum(
        math.prod(program.batch_shardings[n].shard_shape(x.shape)) * x.dtype.itemsize
        for n, x in program.batch_spec.items()
    )


def estimate(
    recipe: Recipe, program: Program, topology: Topology, chip: Chip, stack: memory.Layers, accumulate: int
) -> dict[str, Any]:
    """Memory and time of a step on one device.

    Returns:
      ``hbm_bytes_per_core``, ``hbm_limit_bytes``, ``fits``, ``step_seconds`` (for
      ranking), ``rough`` (whether the memory figure may be off by more than 20%).
    """
    mesh, state = program.mesh, state_bytes(program)
    params = tree.size(program.abstract_state.params)
    here = state["parameters"] // 4
    image = math.prod(program.batch_spec["image"].shape[1:])
    examples = math.ceil(recipe.data.batch_size / accumulate / program.rules.batch_ways(mesh))
    gathered: Any = "none" if mesh.shape["fsdp"] == 1 else "layer" if stack.scanned else "all"
    temporary = memory.temporary_bytes(
        stack,
        params=params // mesh.shape["tensor"],
        params_here=here,
        accumulate=accumulate,
        input_bytes=examples * image * stack.itemsize,
        gathered=gathered,
    )
    used = sum(state.values()) + batch_bytes(program) + temporary
    limit = USABLE_HBM_BYTES[topology.generation]
    return {
        "hbm_bytes_per_core": used,
        "hbm_limit_bytes": limit,
        "fits": used <= limit,
        "step_seconds": _seconds(recipe, program, chip, stack, accumulate, params),
        "rough": stack.remat in memory.ROUGH or not isinstance(stack, memory.Stack) or stack.stem > 0,
    }


def executed_flops(recipe: Recipe, program: Program, stack: memory.Layers) -> float:
    """FLOPs of a step on one device: three forward passes, and what the remat runs again."""
    forward = recipe.forward_flops_per_example * recipe.data.batch_size / program.mesh.size
    return forward * (3 + _AGAIN[stack.remat])


def _seconds(recipe: Recipe, program: Program, chip: Chip, stack: memory.Layers, accumulate: int, params: int) -> float:
    mesh = program.mesh
    compute = executed_flops(recipe, program, stack) / (chip.device_peak_bf16_flops * _PRODUCTS)
    # What a full remat does not keep it makes again, so the traffic is that of keeping.
    moved = stack.written_bytes() * accumulate * _TRAFFIC
    moved += 22 * params / mesh.size * (mesh.shape["replica"] * mesh.shape["data"])
    seconds = compute + _EXPOSED_MEMORY * moved / chip.device_hbm_bytes_per_second
    if chip.interconnect_bytes_per_second:
        link = chip.interconnect_bytes_per_second / 2 / chip.devices_per_chip
        size, tensor = stack.itemsize, mesh.shape["tensor"]
        # FSDP gathers weights for both passes of each microbatch and scatters gradients; data
        # parallelism reduces gradients once; tensor parallelism reduces activations four times a block.
        sent = 3 * accumulate * size * params / tensor if mesh.shape["fsdp"] > 1 else 2 * size * params / tensor
        if tensor > 1:
            sent += 4 * 2 * stack.depth * accumulate * stack.stream_bytes() * (tensor - 1) / tensor
        seconds += _EXPOSED_NETWORK * sent / link
    return seconds * (_LOOP if stack.scanned or accumulate > 1 else 1.0)


def spec_of(recipe: Recipe, topology: Topology) -> MeshSpec:
    """The recipe's mesh on a topology: one replica a slice where it says nothing of replicas."""
    return recipe.mesh_spec.over_slices(topology.slices)
