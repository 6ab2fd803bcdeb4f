"""Softmax attention over flat [B, T, N*K] arrays, fused in Pallas kernels for TPU.

The scores never leave the chip's vector memory, and the backward pass makes them again
from queries and keys. Heads stay side by side in the lanes, as the projections write
them: arrays of [B, N, T, K] with K = 64 would be padded to twice their size.

XLA knows of such a kernel what its author declares, so the declaration is kept honest:
matrix products at their true shapes, as XLA counts its own (neither sees that K = 64
half fills a matrix unit), and the bytes of every array with the padding of its tiles.

Compiled with libtpu 0.0.52 for v2, v3, v4, v5e, v5p and v6e, forward and backward:
197 tokens with K = 64, 257 with K = 80, and 785 with K = 64 on v3, 1025 on v4 and v5e.
Whether v2 and v3 multiply float32 operands in one pass of their matrix unit or in
several is unknown here: no kernel of this file has run on a TPU yet.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vitax.core.errors import UserError
from vitax.layers import kernels
from vitax.layers.kernels import MEND

Array = jax.Array

# Rows and lanes of a tile; blocks are whole tiles wide, or as wide as the array.
_ROWS, _LANES = 8, 128
# What a block as wide as the array may be where none of whole tiles fits.
_WHOLE = 1024
# Cores with 16 MiB of vector memory, for which the compiler refuses bfloat16 operands of
# a product in a kernel (Mosaic error E2001).
_SMALL = ("TPU v2", "TPU v3")
_VMEM_BYTES = 16 * 2**20


def block_width(num_heads: int, head_dim: int) -> int:
    """Lanes of a block: the fewest whole heads that fill whole tiles, and divide the width.

    128 for K = 64, 640 for K = 80 of H/14. A narrow array (a shard of a few heads) is
    one block as it is.

    Raises:
      UserError: there is no such block.
    """
    width, block = num_heads * head_dim, math.lcm(head_dim, _LANES)
    if width % block == 0:
        return block
    if width <= _WHOLE:
        return width
    raise UserError(
        f'model.attention_kernel: "pallas" needs a width that is a multiple of {block} (whole heads of {head_dim} in '
        f"whole tiles of {_LANES}) or at most {_WHOLE} on each device, got {num_heads} heads of {head_dim} = {width}. "
        f"Choose another model.width or model.num_heads, or another mesh.tensor. {MEND}"
    )


def flat_attention(
    query: Array,
    key: Array,
    value: Array,
    num_heads: int,
    *,
    operands: Any = "float32",
    interpret: bool = False,
) -> Array:
    """softmax(Q K^T / sqrt(K)) V on one device: statistics in float32, results in the dtype of ``query``.

    Differentiable in reverse mode only. The backward pass is left ``query``, ``key`` and
    ``value`` and nothing else.

    Args:
      query: [B, T, N*K], float32 or bfloat16.
      key: [B, S, N*K].
      value: [B, S, N*K].
      num_heads: N.
      operands: dtype of the operands of matrix products: float32 compiles everywhere,
        bfloat16 from v4 on.
      interpret: run in Pallas' interpreter instead of on a TPU.

    Returns:
      [B, T, N*K].

    Raises:
      UserError: no block fits the width.

    Reference: Vaswani et al., arXiv:1706.03762, equation 1; recomputation as in
    FlashAttention, arXiv:2205.14135, appendix B, but of whole rows.
    """
    head_dim = query.shape[-1] // num_heads
    width = block_width(num_heads, head_dim)
    return _attend(query, key, value, (head_dim, width, jnp.dtype(operands).name, interpret))


def flat_attention_on_mesh(query: Array, key: Array, value: Array, num_heads: int) -> Array:
    """``flat_attention`` on each device's examples and heads, as the resolver in force shards them.

    Without a resolver (see ``core.axes``) it is called as it is; under ``jax.jit`` only JAX
    then sees the platform, and refuses another than TPU with a ``ValueError`` of its own.
    Arguments and result are those of ``flat_attention``, global.

    Raises:
      UserError: the devices are no TPUs, or of v2 or v3 and the scores do not fit their
        vector memory; tokens are sharded; and those of ``flat_attention``.
    """
    head_dim = query.shape[-1] // num_heads
    sharding = kernels.sharding_of(query, num_heads, head_dim)
    devices = kernels.devices_of("pallas", "tpu", query, sharding)
    kind = devices[0].device_kind if devices else None
    if kind in _SMALL:
        _check_memory(query, key, block_width(num_heads, head_dim))
    # Of devices that are not known (a mesh of shapes alone) nothing will be compiled, or it must run on any.
    operands = "float32" if kind is None or kind in _SMALL else query.dtype
    interpret = kernels.interpreted()

    def attend(query: Array, key: Array, value: Array, ways: int) -> Array:
        return flat_attention(query, key, value, num_heads // ways, operands=operands, interpret=interpret)

    return kernels.on_each_device("pallas", attend, sharding, (query, key, value))


def _check_memory(query: Array, key: Array, width: int) -> None:
    """Refuses what cannot fit on v2 and v3; the compiler needs more than this and has the last word."""
    rows, columns = _up(key.shape[1], _ROWS), _up(query.shape[1], _LANES)
    scores = 4 * rows * columns
    # Each block is there twice, for the copy of the next beside the work on this one.
    blocks = 2 * (3 * _up(query.shape[1], _ROWS) + 4 * rows) * width * query.dtype.itemsize
    needed = blocks + 3 * scores
    if needed > _VMEM_BYTES:
        raise UserError(
            f'model.attention_kernel: "pallas" holds the scores of a head whole, and those of {query.shape[1]} x '
            f"{key.shape[1]} tokens with blocks of {width} lanes need at least {needed / 2**20:.1f} MiB of the "
            f"{_VMEM_BYTES // 2**20} MiB of vector memory. Take smaller images or larger patches. {MEND}"
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query: Array, key: Array, value: Array, how: tuple[int, int, str, bool]) -> Array:
    return _attend_forward(query, key, value, how)[0]


def _attend_forward(query: Array, key: Array, value: Array, how: tuple[int, int, str, bool]) -> tuple[Array, Any]:
    (mixed,) = _call(_forward, (query, key, value), (query,), how, products=2)
    return mixed, (query, key, value)


def _attend_backward(how: tuple[int, int, str, bool], saved: Any, grad: Array) -> tuple[Array, ...]:
    query, key, value = saved
    return _call(_backward, (query, key, value, grad), (query, key, value), how, products=5)


_attend.defvjp(_attend_forward, _attend_backward)


def _call(
    kernel: Callable[..., None],
    inputs: tuple[Array, ...],
    like: tuple[Array, ...],
    how: tuple[int, int, str, bool],
    products: int,
) -> tuple[Array, ...]:
    """Runs a kernel on every example and every block of heads.

    Args:
      kernel: of references to [1, T or S, width] blocks, inputs then outputs.
      inputs: [B, T or S, N*K]; the first is of queries, the second of keys.
      like: arrays that the results look like.
      how: head_dim, width of a block, name of the operands' dtype, interpret.
      products: matrix products of [T, K] by [K, S] size that it makes for each head.
    """
    head_dim, width, operands, interpret = how
    (batch, length, total), source = inputs[0].shape, inputs[1].shape[1]
    scores = batch * (total // head_dim) * length * source

    def block(x: Array) -> pl.BlockSpec:
        # Full length: the compiler masks the rows that tiles add to 197.
        return pl.BlockSpec((1, x.shape[1], width), lambda b, c: (b, 0, c))

    return tuple(
        pl.pallas_call(
            functools.partial(kernel, head_dim=head_dim, operands=operands),
            name=f"flat_attention{kernel.__name__}",
            grid=(batch, total // width),
            in_specs=[block(x) for x in inputs],
            out_specs=[block(x) for x in like],
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like],
            # Steps of the grid share nothing: chips of two cores may split it.
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            cost_estimate=pl.CostEstimate(
                flops=2 * products * scores * head_dim,
                transcendentals=scores,
                bytes_accessed=sum(_padded_bytes(x) for x in (*inputs, *like)),
            ),
            interpret=interpret,
        )(*inputs)
    )


def _forward(query: Any, key: Any, value: Any, mixed: Any, *, head_dim: int, operands: str) -> None:
    for lanes in _heads(query, head_dim):
        scores = _product(_scaled(query, lanes), key[0, :, lanes], (1, 1), operands)
        weights = jnp.exp(scores - scores.max(1, keepdims=True))
        result = _product(weights, value[0, :, lanes], (1, 0), operands) / weights.sum(1, keepdims=True)
        mixed[0, :, lanes] = result.astype(mixed.dtype)


def _backward(
    query: Any,
    key: Any,
    value: Any,
    grad: Any,
    by_query: Any,
    by_key: Any,
    by_value: Any,
    *,
    head_dim: int,
    operands: str,
) -> None:
    # Scores lie transposed, [S, T]: statistics of a query then run over sublanes, which
    # the vector unit adds without a shuffle, and one product of three wants a transpose.
    for lanes in _heads(query, head_dim):
        q, k, v, g = _scaled(query, lanes), key[0, :, lanes], value[0, :, lanes], grad[0, :, lanes]
        scores = _product(k, q, (1, 1), operands)
        weights = jnp.exp(scores - scores.max(0, keepdims=True))
        weights = weights * (1.0 / weights.sum(0, keepdims=True))
        by_weight = _product(v, g, (1, 1), operands)
        by_score = weights * (by_weight - (weights * by_weight).sum(0, keepdims=True))
        by_value[0, :, lanes] = _product(weights, g, (1, 0), operands).astype(by_value.dtype)
        by_key[0, :, lanes] = _product(by_score, q, (1, 0), operands).astype(by_key.dtype)
        # The scale of the queries, whose gradient passes through it.
        back = _product(by_score, k, (0, 0), operands) * head_dim**-0.5
        by_query[0, :, lanes] = back.astype(by_query.dtype)


def _heads(block: Any, head_dim: int) -> list[slice]:
    return [slice(at, at + head_dim) for at in range(0, block.shape[-1], head_dim)]


def _scaled(query: Any, lanes: slice) -> Array:
    return query[0, :, lanes].astype(jnp.float32) * (lanes.stop - lanes.start) ** -0.5


def _product(left: Array, right: Array, contracted: tuple[int, int], operands: str) -> Array:
    """float32 product of two matrices over one axis of each."""
    dims = (((contracted[0],), (contracted[1],)), ((), ()))
    return lax.dot_general(left.astype(operands), right.astype(operands), dims, preferred_element_type=jnp.float32)


def _padded_bytes(x: Array) -> int:
    """What [B, T, D] takes in HBM: whole tiles of 8 rows and 128 lanes."""
    return x.shape[0] * _up(x.shape[1], _ROWS) * _up(x.shape[2], _LANES) * x.dtype.itemsize


def _up(n: int, tile: int) -> int:
    return -(-n // tile) * tile
