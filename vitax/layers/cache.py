"""The key-value cache of cached decoding."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class KVCache:
    """Keys and values that one attention layer has seen, by slot.

    A slot is a position in the sequence. Slots that nothing was written to, or that
    hold padding of a prompt, lie behind every query: a causal mask over the slots hides
    them until they are written (again), so the cache needs no lengths.

    Attributes:
      key: [B, N, S, K]: heads first, as products over slots want them, since a step reads
        all slots and writes one.
      value: [B, N, S, K].
    """

    key: Array
    value: Array

    @classmethod
    def zeros(cls, batch: int, slots: int, num_heads: int, head_dim: int, dtype: Any) -> "KVCache":
        """An empty cache."""
        blank = jnp.zeros((batch, num_heads, slots, head_dim), dtype)
        return cls(blank, blank)

    @property
    def num_slots(self) -> int:
        """S."""
        return self.key.shape[2]

    def write(self, key: Array, value: Array, slots: Array) -> "KVCache":
        """The cache with [B, T, N, K] keys and values in ``slots``, int32 [B, T]; those past the end are lost."""
        rows = jnp.arange(slots.shape[0])[:, None]
        return KVCache(
            self.key.at[rows, :, slots].set(key.astype(self.key.dtype), mode="drop"),
            self.value.at[rows, :, slots].set(value.astype(self.value.dtype), mode="drop"),
        )
