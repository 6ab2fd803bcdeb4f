"""Multi-head attention."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.layers.dropout import dropout
from vitax.layers.linear import Linear

Array = jax.Array

# Site of the dropout on the weights, within the keys that the caller gives.
WEIGHTS = 0


def softmax(scores: Array, mask: Array | None = None) -> Array:
    """Softmax over the last axis: maximum and sum in float32, result in the dtype of ``scores``.

    A row that ``mask`` leaves empty is all zeros, not NaN.
    """
    wide = scores.astype(jnp.float32)
    if mask is not None:
        wide = jnp.where(mask, wide, -jnp.inf)
    top = jax.lax.stop_gradient(wide.max(-1, keepdims=True))
    if mask is not None:
        top = jnp.where(jnp.isfinite(top), top, 0.0)
    p = jnp.exp(wide - top)
    total = p.sum(-1, keepdims=True)
    if mask is not None:
        total = jnp.where(total == 0.0, 1.0, total)
    return (p / total).astype(scores.dtype)


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(K)) V over heads, with separate projections.

    Parameters: ``query, key, value`` with kernels (D, N, K), ``out`` with (N, K, D).
    Separate projections rather than one fused kernel: the TPU compiler's schedule of
    a ViT step is 1 to 5 ms of 76 shorter, and each has its own sharding.

    Attributes:
      num_heads: N; divides the width.
      dropout: rate on the attention weights.
      dtype: compute dtype, also of scores and weights.

    Reference: Vaswani et al., arXiv:1706.03762, section 3.2.
    """

    num_heads: int
    dropout: float = 0.0
    dtype: Any = "float32"

    @nn.compact
    def __call__(
        self,
        queries: Array,
        memory: Array,
        *,
        mask: Array | None = None,
        rng: Array | None = None,
        return_weights: bool = False,
    ) -> tuple[Array, Array | None]:
        """Attends from ``queries`` to ``memory`` (the same array for self-attention).

        Args:
          queries: [B, T, D].
          memory: [B, S, D].
          mask: bool, broadcastable to [B, N, T, S]; True = may attend. None: all.
          rng: typed keys [B], or None for no dropout.
          return_weights: also return the weights.

        Returns:
          [B, T, D], and weights float32 [B, N, T, S] or None.
        """
        width = queries.shape[-1]
        shape = (self.num_heads, width // self.num_heads)
        axes = ("embed", "heads", "head_dim")
        q = Linear(shape, axes, self.dtype, name="query")(queries)
        k = Linear(shape, axes, self.dtype, name="key")(memory)
        v = Linear(shape, axes, self.dtype, name="value")(memory)
        q, k, v = (constrain(a, ("batch", "tokens", "heads", "head_dim")) for a in (q, k, v))
        scores = jnp.einsum("btnk,bsnk->bnts", q * shape[1] ** -0.5, k)
        weights = softmax(scores, mask)
        dropped = dropout(weights, self.dropout, rng, WEIGHTS)
        y = jnp.einsum("bnts,bsnk->btnk", dropped, v)
        y = Linear((width,), ("heads", "head_dim", "embed"), self.dtype, name="out")(y)
        return constrain(y, ("batch", "tokens", "embed")), weights.astype(jnp.float32) if return_weights else None
