"""One token from logits: temperature, top-k and top-p."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from vitax.core.errors import UserError

Array = jax.Array


@flax.struct.dataclass
class Sampling:
    """How a token is drawn. Numbers, not shapes: changing them compiles nothing.

    Attributes:
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: draw from so many of the likeliest; 0 from all.
      top_p: draw from the fewest of the likeliest that hold this much of the probability.

    Reference: top-p: Holtzman et al., arXiv:1904.09751, section 3.1.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def checked(self) -> "Sampling":
        """Itself.

        Raises:
          UserError: a number out of its range.
        """
        for name, good, expected in (
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not good:
                raise UserError(f"--{name.replace('_', '-')}: expected {expected}, got {getattr(self, name)}.")
        return dataclasses.replace(self)


def sample(logits: Array, keys: Array, sampling: Sampling) -> Array:
    """Draws a token for each row.

    Args:
      logits: float [B, V].
      keys: typed keys [B].
      sampling: of numbers or traced scalars.

    Returns:
      int32 [B].
    """
    order = jnp.argsort(-logits, axis=-1)  # stable: of equal logits the lower id comes first
    ranked = jnp.take_along_axis(logits.astype(jnp.float32), order, -1)
    scaled = ranked / jnp.maximum(sampling.temperature, 1e-6)
    rank = jnp.arange(logits.shape[-1])
    limit = jnp.where(jnp.asarray(sampling.top_k) > 0, sampling.top_k, logits.shape[-1])
    scaled = jnp.where(rank < limit, scaled, -jnp.inf)
    probabilities = jax.nn.softmax(scaled)
    before = jnp.cumsum(probabilities, -1) - probabilities
    # The likeliest stays whatever top_p is.
    scaled = jnp.where((before < sampling.top_p) | (rank == 0), scaled, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    choice = jnp.where(jnp.asarray(sampling.temperature) == 0, 0, drawn)
    return jnp.take_along_axis(order, choice[:, None], -1)[:, 0].astype(jnp.int32)
