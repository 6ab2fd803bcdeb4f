"""Logits over a vocabulary."""

import jax
import jax.numpy as jnp

from vitax.core.axes import constrain

Array = jax.Array


def vocabulary_logits(features: Array, table: Array, bias: Array | None = None) -> Array:
    """``features table^T + bias``, float32 whatever the compute dtype.

    Args:
      features: [B, T, D] in the compute dtype.
      table: [V, D], often the token embedding.
      bias: [V].

    Returns:
      float32 [B, T, V].
    """
    logits = jnp.einsum("btd,vd->btv", features, table.astype(features.dtype), preferred_element_type=jnp.float32)
    logits = constrain(logits, ("batch", "tokens", "vocab"))
    return logits if bias is None else logits + bias
