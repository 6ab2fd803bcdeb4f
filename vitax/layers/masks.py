"""Attention masks: conditions on pairs of tokens, composed with ``&``."""

from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


class Condition(Protocol):
    """Says which query may see which memory token."""

    def allowed(self, query_positions: Array, memory_positions: Array) -> Array:
        """int32 [B or 1, T] and [B or 1, S] -> bool [B or 1, T or 1, S]."""
        ...


@flax.struct.dataclass
class Causal:
    """A query sees memory up to its own position."""

    def allowed(self, query_positions: Array, memory_positions: Array) -> Array:
        return memory_positions[:, None, :] <= query_positions[:, :, None]


@flax.struct.dataclass
class Prefix:
    """As ``Causal``, and everybody sees the first ``lengths`` int32 [B] positions.

    Reference: Raffel et al., arXiv:1910.10683, section 3.2.1 (prefix LM).
    """

    lengths: Array

    def allowed(self, query_positions: Array, memory_positions: Array) -> Array:
        in_prefix = memory_positions[:, None, :] < self.lengths[:, None, None]
        return in_prefix | Causal().allowed(query_positions, memory_positions)


@flax.struct.dataclass
class Padding:
    """Only memory tokens that are ``valid``, bool [B, S], are seen."""

    valid: Array

    def allowed(self, query_positions: Array, memory_positions: Array) -> Array:
        return self.valid[:, None, :]


@flax.struct.dataclass
class Segments:
    """A query sees memory of its own segment: int32 ``query`` [B, T], ``memory`` [B, S]."""

    query: Array
    memory: Array

    def allowed(self, query_positions: Array, memory_positions: Array) -> Array:
        return self.memory[:, None, :] == self.query[:, :, None]


@flax.struct.dataclass
class Mask:
    """All of its conditions must hold; without any, every token sees every token.

    A tree of arrays, so it passes through ``jit``; ``dense`` turns it into what
    ``layers.attention.Attention`` takes.

    Attributes:
      conditions: any of those of this module, in any order.
    """

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def causal(cls) -> "Mask":
        """No token sees a later one."""
        return cls((Causal(),))

    @classmethod
    def prefix(cls, lengths: Array) -> "Mask":
        """Causal behind a prefix of ``lengths`` int32 [B] tokens, which see each other both ways."""
        return cls((Prefix(lengths),))

    @classmethod
    def padding(cls, valid: Array) -> "Mask":
        """Nobody sees memory where ``valid``, bool [B, S], is False."""
        return cls((Padding(valid),))

    @classmethod
    def segments(cls, query: Array, memory: Array | None = None) -> "Mask":
        """Tokens see those of their own segment: int32 [B, T] and [B, S] (the same array by default)."""
        return cls((Segments(query, query if memory is None else memory),))

    def __and__(self, other: "Mask") -> "Mask":
        return Mask(self.conditions + other.conditions)

    def dense(self, query_positions: Array, memory_positions: Array) -> Array | None:
        """The mask as an array.

        Args:
          query_positions: int32 [B or 1, T], where in the sequence each query stands.
          memory_positions: int32 [B or 1, S], where each memory token stands.

        Returns:
          bool [B or 1, 1, T or 1, S], True = may attend; None without conditions.
        """
        result = None
        for condition in self.conditions:
            allowed = condition.allowed(query_positions, memory_positions)
            result = allowed if result is None else result & allowed
        return None if result is None else result[:, None]


def positions_in_segments(segment_ids: Array) -> Array:
    """Positions that start again at 0 with each segment: int32 [B, T] for int32 [B, T].

    Segments are runs of equal ids.
    """
    index = lax.broadcasted_iota(jnp.int32, segment_ids.shape, 1)
    before = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    return index - lax.cummax(jnp.where(segment_ids == before, 0, index), axis=1)
