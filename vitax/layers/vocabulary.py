"""Logits over a vocabulary, of all tokens or of some."""

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


def only(features: Array, last: Array | None) -> Array:
    """Of features [B, T, D] those of token ``last``, int32 [B], as [B, 1, D]; all where it is None."""
    return features if last is None else jnp.take_along_axis(features, last[:, None, None], axis=1)
