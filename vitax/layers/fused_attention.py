"""Attention by the kernels of others: splash attention on TPUs, cuDNN's on GPUs.

Neither has run on its hardware yet: splash is held to ``layers.attention`` in Pallas' interpreter and
compiled for v4, v5e, v5p and v6e; of cuDNN's only the program for CUDA devices is checked.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from vitax.core.errors import UserError
from vitax.layers import kernels
from vitax.layers.masks import Causal, Mask, Padding, Segments

Array = jax.Array

FUSED = ("splash", "cudnn")
# Tokens of a block of splash: the largest that divides the padded length.
_BLOCKS = (512, 256, 128)
# Segments of no token: memory that is padding, and the rows that fill a block.
_HIDDEN, _BEHIND = -1, -2
# For these the TPU compiler refuses bfloat16 operands of a product in a kernel (Mosaic error E2001).
_WITHOUT_BFLOAT16 = ("TPU v2", "TPU v3")


def mask_of(kernel: str, mask: Mask, queries: Array, memory: Array) -> Any:
    """A mask as ``Attention`` with this kernel takes it: its conditions, or one array.

    Args:
      kernel: of ``KernelName``.
      mask: of tokens that stand where they are numbered, from 0 on.
      queries: int32 [1, T], 0, 1, ...
      memory: int32 [1, S], likewise.
    """
    return mask if kernel in FUSED else mask.dense(queries, memory)


def places(x: Array) -> Array:
    """int32 [1, T] of [B, T, ...]: 0, 1, ..."""
    return jnp.arange(x.shape[1], dtype=jnp.int32)[None]


def fused_attention(kernel: str, query: Array, key: Array, value: Array, mask: Mask | Array | None) -> Array:
    """softmax(Q K^T / sqrt(K)) V by a library's kernel, on each device's examples and heads.

    A row that the mask leaves empty gives a mean of values with ``splash``, not zeros as in
    ``layers.attention``; nothing that counts reads such rows.

    Args:
      kernel: ``splash`` or ``cudnn``.
      query: [B, T, N, K], global.
      key: [B, S, N, K].
      value: [B, S, N, K].
      mask: conditions (see ``mask_of``); any, but for a prefix with ``splash``.

    Returns:
      [B, T, N, K].

    Raises:
      UserError: other devices, a dtype or a mask that the kernel does not have, or sharded tokens.
      TypeError: a mask as one array.

    Reference: FlashAttention, arXiv:2205.14135, whose recomputation both have.
    """
    if not isinstance(mask, Mask | None):
        raise TypeError(f'kernel "{kernel}": expected the mask as its conditions (layers.masks.Mask), got an array.')
    sharding = kernels.sharding_of(query, *query.shape[2:])
    prepare, platform = {"splash": (_splash, "tpu"), "cudnn": (_cudnn, "gpu")}[kernel]
    devices = kernels.devices_of(kernel, platform, query, sharding)
    if kernel == "splash" and devices:
        _check_chip(devices[0].device_kind)
    attend, beside = prepare(query, key, mask or Mask())
    return kernels.on_each_device(kernel, attend, sharding, (query, key, value), beside)


def _check_chip(kind: str) -> None:
    if kind in _WITHOUT_BFLOAT16:
        raise UserError(
            f'model.attention_kernel: "splash" is for TPUs from v4 on, and these are {kind}. {kernels.MEND} '
            'Or take "pallas", where nothing is masked.'
        )


def _splash(query: Array, key: Array, mask: Mask) -> tuple[Any, tuple[Array, ...]]:
    _, length, _, head_dim = query.shape
    lengths = length, key.shape[1]
    padded = _up(lengths[0]), _up(lengths[1])
    block_q, block_kv = (next(b for b in _BLOCKS if n % b == 0) for n in padded)
    causal, ids = _segments(mask, lengths, padded)
    pattern = (splash.CausalMask if causal else splash.FullMask)(padded)
    sizes = splash.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv,
        block_q_dq=block_q,
        block_kv_dq=block_kv,
    )
    interpret = kernels.interpreted()

    def attend(query: Array, key: Array, value: Array, of_query: Array, of_memory: Array, ways: int) -> Array:
        heads = splash.MultiHeadMask([pattern] * query.shape[2])
        run = splash.make_splash_mha(heads, head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret)
        query = query * head_dim**-0.5
        query, key, value = (_grown(x, n) for x, n in zip((query, key, value), (padded[0], padded[1], padded[1])))
        query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
        of_query, of_memory = (jnp.broadcast_to(x, (query.shape[0], x.shape[1])) for x in (of_query, of_memory))
        mixed = jax.vmap(lambda q, k, v, i, j: run(q, k, v, segment_ids=splash.SegmentIds(i, j)))(
            query, key, value, of_query, of_memory
        )
        return jnp.swapaxes(mixed, 1, 2)[:, :length]

    return attend, ids


def _up(length: int) -> int:
    """Of whole blocks."""
    return -(-length // _BLOCKS[-1]) * _BLOCKS[-1]


def _grown(x: Array, length: int) -> Array:
    """[B, T, N, K] with zeros behind, up to a length."""
    return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0)))


def _segments(mask: Mask, lengths: tuple[int, int], padded: tuple[int, int]) -> tuple[bool, tuple[Array, Array]]:
    """Whether it is causal, and ids int32 [B or 1, padded] of queries and of memory: a query sees its own."""
    causal, of_query, of_memory, valid = False, None, None, None
    for condition in mask.conditions:
        if isinstance(condition, Causal):
            causal = True
        elif isinstance(condition, Padding):
            valid = condition.valid if valid is None else valid & condition.valid
        elif isinstance(condition, Segments) and of_query is None:
            of_query, of_memory = condition.query, condition.memory
        else:
            raise UserError(
                f'model.attention_kernel: "splash" has causal masks, padding and one sort of segments; it cannot take '
                f"{type(condition).__name__} in a mask of {len(mask.conditions)}. {kernels.MEND}"
            )
    of_query = jnp.zeros((1, lengths[0]), jnp.int32) if of_query is None else of_query
    of_memory = jnp.zeros((1, lengths[1]), jnp.int32) if of_memory is None else of_memory
    of_memory = of_memory if valid is None else jnp.where(valid, of_memory, _HIDDEN)
    behind = ((0, 0), (0, padded[0] - lengths[0])), ((0, 0), (0, padded[1] - lengths[1]))
    of_query, of_memory = (jnp.pad(x, n, constant_values=_BEHIND) for x, n in zip((of_query, of_memory), behind))
    return causal, (of_query, of_memory)


def _cudnn(query: Array, key: Array, mask: Mask) -> tuple[Any, tuple[Array, ...]]:
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        raise UserError(
            f'model.attention_kernel: "cudnn" multiplies in bfloat16, and dtype is {query.dtype}. '
            f"Set --config.dtype=bfloat16. {kernels.MEND}"
        )
    causal = any(isinstance(condition, Causal) for condition in mask.conditions)
    rest = Mask(tuple(condition for condition in mask.conditions if not isinstance(condition, Causal)))
    dense = rest.dense(places(query), places(key))

    def attend(query: Array, key: Array, value: Array, *beside: Any) -> Array:
        seen = beside[0] if dense is not None else None
        return jax.nn.dot_product_attention(query, key, value, mask=seen, is_causal=causal, implementation="cudnn")

    return attend, () if dense is None else (dense,)
