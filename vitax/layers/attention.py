"""Multi-head attention."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vitax.core.axes import constrain
from vitax.layers.dropout import dropout
from vitax.layers.linear import Linear

Array = jax.Array

# Site of the dropout on the weights, within the keys that the caller gives.
WEIGHTS = 0


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
    """softmax(Q K^T / sqrt(K)) V: maximum and sum in float32, the rest in the dtype of ``query``.

    The division by the softmax sum is done on the output [B, N, T, K] instead of on
    the weights [B, N, T, S]: one pass less over the largest array, forward and
    backward. Heads come before tokens in both products, as matrix libraries want
    their batches (15% of attention's time on a CPU; the TPU compiler chooses its own
    layout).

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
    dtype = query.dtype
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    batch = ((0, 1), (0, 1))
    scores = lax.dot_general(query, key, (((3,), (3,)), batch))
    if mask is not None:
        # Finite: the maximum of an empty row must not turn into NaN.
        scores = jnp.where(mask, scores, jnp.finfo(dtype).min)
    top = lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores.astype(jnp.float32) - top.astype(jnp.float32))
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    total = weights.sum(-1, keepdims=True)
    if mask is not None:
        total = jnp.where(total == 0.0, 1.0, total)
    dropped = dropout(weights.astype(dtype), dropout_rate, rng, WEIGHTS)
    mixed = lax.dot_general(dropped, value, (((3,), (2,)), batch))
    mixed = jnp.swapaxes((mixed / total).astype(dtype), 1, 2)
    return mixed, (weights / total if return_weights else None)


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
        y, weights = attend(q, k, v, mask=mask, dropout_rate=self.dropout, rng=rng, return_weights=return_weights)
        y = Linear((width,), ("heads", "head_dim", "embed"), self.dtype, name="out")(y)
        return constrain(y, ("batch", "tokens", "embed")), weights
