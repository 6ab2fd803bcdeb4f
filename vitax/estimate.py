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
from vitax.cost import activations, memory
from vitax.cost.activations import Activations, Traced
from vitax.cost.chips import Chip
from vitax.cost.topology import USABLE_HBM_BYTES, Topology
from vitax.models.hybrid import Hybrid
from vitax.models.transformer import Transformer
from vitax.objectives.losses_chunked import number_of_chunks
from vitax.parallel.mesh import AXES, MeshSpec
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
) -> memory.Stack | Traced:
    """The blocks of a recipe's model as one device of a program's mesh sees them.

    A stack of equal transformer blocks by formula, any other network (an encoder with a
    decoder, whose blocks differ, too) counted on its trace.

    Args:
      recipe: whose model.
      program: says over how many devices what is split.
      remat: in place of the recipe's.
      unroll: likewise.
      accumulate: likewise; 0 = the recipe's.
    """
    model: Any = recipe.model()
    ways = program.rules.batch_ways(program.mesh)
    policy = remat or recipe.config.get("remat") or "none"
    scanned = not (recipe.config.get("unroll", True) if unroll is None else unroll)
    examples = math.ceil(recipe.data.batch_size / (accumulate or recipe.accumulate) / ways)
    itemsize = 2 if recipe.dtype("tpu") == "bfloat16" else 4
    if isinstance(model, Transformer):
        found = _activations_of_pair(_for_tracing(recipe), recipe.data.length)
        return Traced(found, examples, itemsize, policy, scanned)
    tokens = recipe.num_tokens
    if tokens is None or not all(hasattr(model, name) for name in ("width", "depth", "mlp_dim", "num_heads")):
        found = _activations(_for_tracing(recipe), recipe.data.size, recipe.data.channels)
        return Traced(found, examples, itemsize, policy, scanned)
    tensor = program.mesh.shape["tensor"]
    return memory.Stack(
        examples=examples,
        tokens=tokens,
        width=model.width,
        depth=model.depth,
        mlp_dim=math.ceil(model.mlp_dim / tensor),
        num_heads=math.ceil(model.num_heads / tensor),
        head_dim=model.width // model.num_heads,
        itemsize=itemsize,
        remat=policy,
        scanned=scanned,
        kernel=getattr(model, "attention_kernel", "xla"),
        stem=_stem_bytes(recipe, policy, itemsize),
        weights_dropped=getattr(model, "attention_dropout", 0) > 0,
    )


def vocabulary_of(recipe: Recipe, program: Program, accumulate: int) -> memory.Vocabulary | None:
    """The logits of a language model as one device of a program's mesh sees them; None for images."""
    logits = _logits(recipe, accumulate)
    if logits is None:
        return None
    sharding = program.rules.resolver(program.mesh)(("batch", "tokens", "vocab"), logits)
    rows, length, tokens = sharding.shard_shape(logits)
    return memory.Vocabulary(
        targets=rows * length,
        tokens=tokens,
        width=recipe.config["model"]["width"],
        itemsize=2 if recipe.dtype("tpu") == "bfloat16" else 4,
        chunks=number_of_chunks(rows * length, tokens),
    )


def _logits(recipe: Recipe, accumulate: int) -> tuple[int, int, int] | None:
    """(rows, targets, vocabulary) of a microbatch on all devices; None for images."""
    spec = recipe.batch_spec
    name = next((n for n in ("masked_targets", "targets") if n in spec), None)
    if name is None:
        return None
    return math.ceil(recipe.data.batch_size / accumulate), spec[name].shape[1], recipe.data.vocab_size


def _for_tracing(recipe: Recipe) -> Any:
    """The model rematerialised and unrolled, so that every block stands in the trace."""
    return recipe.model("tpu").clone(remat="full", unroll=True)


def _stem_bytes(recipe: Recipe, remat: str, itemsize: int) -> int:
    """What a hybrid's convolutional stem leaves of one example; 0 where there is none."""
    model = _for_tracing(recipe)
    if not isinstance(model, Hybrid):
        return 0
    found = _activations(model, recipe.data.size, recipe.data.channels, "maps")
    return Traced(found, 1, itemsize, remat, False).kept_bytes()


@functools.lru_cache
def _activations(model: Any, size: tuple[int, int], channels: int, method: str | None = None) -> Activations:
    """What a model (or a method of it) leaves of one image in training; traced once for all settings of a search."""
    image = jax.ShapeDtypeStruct((*size, channels), jnp.float32)
    one = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
    variables = jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), one)
    if method:
        return activations.count(lambda v, x: model.apply(v, x, method=method), variables, image)
    mutable = [name for name in variables if name != "params"] or False
    return activations.count(lambda v, x: model.apply(v, x, train=True, mutable=mutable), variables, image)


@functools.lru_cache
def _activations_of_pair(model: Any, length: int) -> Activations:
    """Likewise of an encoder-decoder, for a source and a target of ``length`` tokens, without its logits."""
    pair = jax.ShapeDtypeStruct((2, length), jnp.int32)
    one = jax.ShapeDtypeStruct((1, length), jnp.int32)
    variables = jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), one, one)
    return activations.count(
        lambda v, x: model.apply(v, x[:, 0], x[:, 1], train=True, return_logits=False), variables, pair
    )


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
    recipe: Recipe, program: Program, topology: Topology, chip: Chip, stack: memory.Stack | Traced, accumulate: int
) -> dict[str, Any]:
    """Memory and time of a step on one device.

    Returns:
      ``hbm_bytes_per_core``, ``hbm_limit_bytes``, ``fits``, ``step_seconds`` (for
      ranking), ``rough`` (whether the memory figure may be off by more than 20%).
    """
    mesh, state = program.mesh, state_bytes(program)
    params = tree.size(program.abstract_state.params)
    here = state["parameters"] // 4
    examples = math.ceil(recipe.data.batch_size / accumulate / program.rules.batch_ways(mesh))
    image = program.batch_spec.get("image")
    gathered: Any = "none" if mesh.shape["fsdp"] == 1 else "layer" if stack.scanned else "all"
    temporary = memory.temporary_bytes(
        stack,
        params=params // mesh.shape["tensor"],
        params_here=here,
        accumulate=accumulate,
        input_bytes=0 if image is None else examples * math.prod(image.shape[1:]) * stack.itemsize,
        gathered=gathered,
        vocabulary=vocabulary_of(recipe, program, accumulate),
    )
    used = sum(state.values()) + batch_bytes(program) + temporary
    limit = USABLE_HBM_BYTES[topology.generation]
    return {
        "hbm_bytes_per_core": used,
        "hbm_limit_bytes": limit,
        "fits": used <= limit,
        "step_seconds": _seconds(recipe, program, chip, stack, accumulate, params),
        "rough": isinstance(stack, Traced) or stack.stem > 0 or stack.remat in memory.ROUGH,
    }


def executed_flops(recipe: Recipe, program: Program, stack: memory.Stack | Traced, accumulate: int) -> float:
    """FLOPs of a step on one device: three forward passes, and what is run again.

    The remat runs blocks again, and no logits: these are made again where they are cut.
    """
    forward = recipe.forward_flops_per_example * recipe.data.batch_size / program.mesh.size
    head = again = 0.0
    logits, vocabulary = _logits(recipe, 1), vocabulary_of(recipe, program, accumulate)
    if logits is not None and vocabulary is not None:
        head = 2 * math.prod(logits) * vocabulary.width / program.mesh.size
        again = accumulate * vocabulary.again_flops()
    return 3 * forward + (forward - head) * _AGAIN[stack.remat] + again


def _seconds(
    recipe: Recipe, program: Program, chip: Chip, stack: memory.Stack | Traced, accumulate: int, params: int
) -> float:
    mesh = program.mesh
    compute = executed_flops(recipe, program, stack, accumulate) / (chip.device_peak_bf16_flops * _PRODUCTS)
    # What a full remat does not keep it makes again, so the traffic is that of keeping.
    moved = stack.everything_bytes() * accumulate * _TRAFFIC
    moved += 22 * params / mesh.size * (mesh.shape["replica"] * mesh.shape["data"])
    seconds = compute + _EXPOSED_MEMORY * moved / chip.device_hbm_bytes_per_second
    if chip.interconnect_bytes_per_second:
        link = chip.interconnect_bytes_per_second / 2 / chip.devices_per_chip
        size, tensor = stack.itemsize, mesh.shape["tensor"]
        # FSDP gathers weights for both passes of each microbatch and scatters gradients; data
        # parallelism reduces gradients once; tensor parallelism reduces activations four times a block.
        sent = 3 * accumulate * size * params / tensor if mesh.shape["fsdp"] > 1 else 2 * size * params / tensor
        if tensor > 1:
            sent += 4 * 2 * stack.stream_bytes() * accumulate * (tensor - 1) / tensor
        seconds += _EXPOSED_NETWORK * sent / link
    return seconds * (_LOOP if stack.scanned or accumulate > 1 else 1.0)


def spec_of(recipe: Recipe, topology: Topology) -> MeshSpec:
    """The recipe's mesh on a topology: one replica a slice where it says nothing of replicas."""
    return recipe.mesh_spec.over_slices(topology.slices)
