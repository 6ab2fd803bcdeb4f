"""Multi-head attention."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vitax.core.axes import constrain
from vitax.core.errors import UserError
from vitax.layers.cache import KVCache
from vitax.layers.dropout import dropout
from vitax.layers.flat_attention import flat_attention_on_mesh
from vitax.layers.fused_attention import FUSED, fused_attention, places
from vitax.layers.inits import VIT_INITS, Inits
from vitax.layers.kernels import KernelName
from vitax.layers.linear import Linear
from vitax.layers.masks import Mask

Array = jax.Array

# Site of the dropout on the weights, within the keys that the caller gives.
WEIGHTS = 0
# Batch axes (examples, heads) of products of [B, N, T, K] arrays.
BATCH = ((0, 1), (0, 1))


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    dropout_rate: float = 0.0,
    rng: Array | None = None,
    return_weights: bool = False,
) -> tuple[Array, Array | None]:
    """softmax(Q K^T / sqrt(K)) V: statistics in float32, the rest in the dtype of ``query``.

    Differentiable in reverse mode only (see ``_mix_backward``).

    Args:
      query: [B, T, N, K].
      key: [B, S, N, K].
      value: [B, S, N, K].
      mask: bool, broadcastable to [B, N, T, S]; True = may attend. A row that it
        leaves empty gives zeros, not NaN. None: all.
      dropout_rate: probability of dropping a weight.
      rng: typed keys [B], or None for no dropout.
      return_weights: also return the weights (before dropout).

    Returns:
      [B, T, N, K], and weights float32 [B, N, T, S] or None.

    Reference: Vaswani et al., arXiv:1706.03762, equation 1.
    """
    # Heads before tokens, as matrix libraries want their batches: 15% of attention's
    # time on a CPU; the TPU compiler chooses its own layout.
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    kept = None
    if rng is not None and dropout_rate:
        ones = jnp.ones((*query.shape[:3], key.shape[2]), query.dtype)
        kept = dropout(ones, dropout_rate, rng, WEIGHTS)
    mixed = jnp.swapaxes(_mix(query, key, value, mask, kept), 1, 2)
    if not return_weights:
        return mixed, None
    scores = _scores(query, key, mask)
    return mixed, _weights(scores, _log_total(scores, mask), mask)


def attend_cached(query: Array, cache: KVCache, mask: Array | None) -> Array:
    """``attend`` of a query [B, T, N, K] to a cache, which has its heads first already."""
    query = jnp.swapaxes(query * query.shape[-1] ** -0.5, 1, 2)
    return jnp.swapaxes(_mix(query, cache.key, cache.value, mask, None), 1, 2)


def _scores(query: Array, key: Array, mask: Array | None) -> Array:
    scores = lax.dot_general(query, key, (((3,), (3,)), BATCH))
    # Finite, so that the maximum of an empty row does not turn into NaN.
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(scores.dtype).min)


def _weights(scores: Array, log_total: Array, mask: Array | None) -> Array:
    weights = jnp.exp(scores.astype(jnp.float32) - log_total)
    return weights if mask is None else jnp.where(mask, weights, 0.0)


def _total(scores: Array, top: Array, mask: Array | None) -> Array:
    total = _weights(scores, top, mask).sum(-1, keepdims=True)
    return total if mask is None else jnp.where(total == 0.0, 1.0, total)


def _log_total(scores: Array, mask: Array | None) -> Array:
    top = lax.stop_gradient(scores.max(-1, keepdims=True).astype(jnp.float32))
    return top + jnp.log(_total(scores, top, mask))


@jax.custom_vjp
def _mix(query: Array, key: Array, value: Array, mask: Array | None, kept: Array | None) -> Array:
    return _mix_forward(query, key, value, mask, kept)[0]


def _mix_forward(query: Array, key: Array, value: Array, mask: Array | None, kept: Array | None) -> tuple[Array, Any]:
    """softmax(query key^T) value on [B, N, T or S, K]; ``kept`` multiplies the weights.

    The division by the sum is done on the result, not on the weights: one pass less
    over the largest array.
    """
    scores = _scores(query, key, mask)
    top = scores.max(-1, keepdims=True).astype(jnp.float32)
    weights = _weights(scores, top, mask).astype(value.dtype)
    total = _total(scores, top, mask)
    weights = weights if kept is None else weights * kept
    mixed = lax.dot_general(weights, value, (((3,), (2,)), BATCH))
    mixed = (mixed.astype(jnp.float32) / total).astype(value.dtype)
    return mixed, (query, key, value, mask, kept, mixed, scores, top + jnp.log(total))


def _mix_backward(saved: Any, grad: Array) -> tuple[Array, Array, Array, None, None]:
    """The gradients from the scores in the compute dtype and one float32 number a row.

    Plain differentiation keeps the weights in float32 too: by the TPU compiler's
    account 0.9 of 27 ms in four layers of B/16 (bfloat16, TPU v3), and 10% of
    attention's time on a CPU.

    Reference: the row sums are those of FlashAttention, arXiv:2205.14135, appendix B.
    """
    query, key, value, mask, kept, mixed, scores, log_total = saved
    weights = _weights(scores, log_total, mask).astype(value.dtype)
    row = (grad.astype(jnp.float32) * mixed.astype(jnp.float32)).sum(-1, keepdims=True)
    by_weight = lax.dot_general(grad, value, (((3,), (3,)), BATCH))
    dropped = weights
    if kept is not None:
        by_weight, dropped = by_weight * kept, weights * kept
    by_score = (weights * (by_weight.astype(jnp.float32) - row)).astype(value.dtype)
    return (
        lax.dot_general(by_score, key, (((3,), (2,)), BATCH)),
        lax.dot_general(by_score, query, (((2,), (2,)), BATCH)),
        lax.dot_general(dropped, grad, (((2,), (2,)), BATCH)),
        None,
        None,
    )


_mix.defvjp(_mix_forward, _mix_backward)


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(K)) V over heads, with separate projections.

    Parameters: ``query, key, value`` with kernels (D, N, K), ``out`` with (N, K, D).
    Separate projections rather than one fused kernel: the TPU compiler's schedule of
    a ViT step is 1 to 5 ms of 76 shorter, and each has its own sharding.

    Attributes:
      num_heads: N; divides the width.
      dropout: rate on the attention weights.
      dtype: compute dtype, also of scores and weights.
      kernel: ``xla``, or one that keeps scores out of memory and has no dropout on the
        weights: ``pallas`` on TPUs, without masks (``layers.flat_attention``); ``splash``
        on TPUs from v4 on, or ``cudnn`` on GPUs (``layers.fused_attention``). Calls
        that want the weights, and those with a cache, take the xla form.
      inits: how kernels start.

    Reference: Vaswani et al., arXiv:1706.03762, section 3.2.
    """

    num_heads: int
    dropout: float = 0.0
    dtype: Any = "float32"
    kernel: KernelName = "xla"
    inits: Inits = VIT_INITS

    @nn.compact
    def __call__(
        self,
        queries: Array,
        memory: Array | None,
        *,
        mask: Array | Mask | None = None,
        rng: Array | None = None,
        return_weights: bool = False,
        cache: KVCache | None = None,
        slots: Array | None = None,
    ) -> tuple[Array, Any]:
        """Attends from ``queries`` to ``memory`` (the same array for self-attention).

        Args:
          queries: [B, T, D].
          memory: [B, S, D]; None: the cache holds all of it (an encoder's output, once written).
          mask: bool, broadcastable to [B, N, T, S]; True = may attend. None: all. As its
            conditions for ``splash`` and ``cudnn`` (``fused_attention.mask_of``).
          rng: typed keys [B], or None for no dropout.
          return_weights: also return the weights.
          cache: keys and values of earlier calls. Those of ``memory`` are written into
            ``slots``, int32 [B, S of memory], and the queries attend to all slots of the
            cache, as ``mask`` [B, N, T, slots] says.
          slots: as above.

        Returns:
          [B, T, D], and beside it the weights float32 [B, N, T, S] or None; with a cache,
          beside it the new cache.

        Raises:
          UserError: what the kernel cannot take, or where it cannot run.
        """
        width = queries.shape[-1]
        shape = (self.num_heads, width // self.num_heads)
        axes = ("embed", "heads", "head_dim")
        flat = self.kernel == "pallas"
        init = self.inits.kernel
        q = Linear(shape, axes, self.dtype, init, flat=flat, name="query")(queries)
        if memory is not None:
            k = Linear(shape, axes, self.dtype, init, flat=flat, name="key")(memory)
            v = Linear(shape, axes, self.dtype, init, flat=flat, name="value")(memory)
        self._check(mask)
        if cache is not None:
            assert not isinstance(mask, Mask)
            if memory is not None:
                assert slots is not None
                cache = cache.write(k, v, slots)
            y, weights = attend_cached(q, cache, mask), None
        elif flat and not return_weights:
            q, k, v = (a.reshape(*a.shape[:2], width) for a in (q, k, v))
            y, weights = flat_attention_on_mesh(q, k, v, self.num_heads).reshape(*q.shape[:2], *shape), None
        else:
            q, k, v = (constrain(a, ("batch", "tokens", "heads", "head_dim")) for a in (q, k, v))
            if self.kernel in FUSED and not return_weights:
                y, weights = fused_attention(self.kernel, q, k, v, mask), None
            else:
                seen = mask.dense(*map(places, (q, k))) if isinstance(mask, Mask) else mask
                options: dict[str, Any] = {"dropout_rate": self.dropout, "rng": rng, "return_weights": return_weights}
                y, weights = attend(q, k, v, mask=seen, **options)
        axes = ("heads", "head_dim", "embed")
        y = Linear((width,), axes, self.dtype, self.inits.residual, flat=flat, name="out")(y)
        return constrain(y, ("batch", "tokens", "embed")), weights if cache is None else cache

    def _check(self, mask: Array | Mask | None) -> None:
        """Whatever the call wants, so that inspection and training agree on what is valid."""
        if self.kernel == "xla":
            return
        masked = self.kernel == "pallas" and mask is not None
        what = "a mask" if masked else f"attention_dropout {self.dropout}" if self.dropout else None
        if what:
            raise UserError(
                f'model.attention_kernel: "{self.kernel}" cannot take {what}. '
                'Leave it out, or set model.attention_kernel to "xla".'
            )
