"""One token from logits: temperature, top-k and top-p."""

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from vitax.core.errors import UserError

Array = jax.Array

# How many of the likeliest are ranked at first. At temperature 1 a language model seldom
# spreads 95% over more.
CANDIDATES = 1024


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

    def check(self) -> None:
        """Finds what no sampling has.

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


def sample(logits: Array, keys: Array, sampling: Sampling) -> Array:
    """Draws a token for each row.

    Sorting a vocabulary takes a CPU longer than a small model takes for a token, so
    nothing is sorted where nothing is cut off, and a few of the likeliest where they do.

    Args:
      logits: float [B, V].
      keys: typed keys [B].
      sampling: of numbers or traced scalars.

    Returns:
      int32 [B].
    """
    logits = logits.astype(jnp.float32)
    cut = (jnp.asarray(sampling.top_k) > 0) | (jnp.asarray(sampling.top_p) < 1)
    branch = jnp.where(jnp.asarray(sampling.temperature) == 0, 0, jnp.where(cut, 2, 1))
    return lax.switch(branch, (_likeliest, _of_all, _of_some), logits, keys, sampling)


def _likeliest(logits: Array, keys: Array, sampling: Sampling) -> Array:
    return logits.argmax(-1).astype(jnp.int32)  # of equal logits the lower id


def _of_all(logits: Array, keys: Array, sampling: Sampling) -> Array:
    drawn = jax.vmap(jax.random.categorical)(keys, logits / jnp.maximum(sampling.temperature, 1e-6))
    return drawn.astype(jnp.int32)


def _of_some(logits: Array, keys: Array, sampling: Sampling) -> Array:
    """From ``CANDIDATES`` of the likeliest, where they hold all that may be drawn.

    Each row decides for itself, so that its neighbours change nothing.
    """
    scaled = logits / jnp.maximum(sampling.temperature, 1e-6)
    few = min(CANDIDATES, logits.shape[-1])
    ranked, ids = lax.top_k(scaled, few)
    log_total = jax.nn.logsumexp(scaled, axis=-1, keepdims=True)
    held = jnp.exp(jax.nn.logsumexp(ranked, axis=-1) - log_total[:, 0])
    top_k = jnp.asarray(sampling.top_k)
    # With both limits top_p is a share of what the likeliest top_k hold, so all of these are wanted.
    enough = jnp.where(top_k > 0, top_k <= few, held >= sampling.top_p)
    of_few = _by_rank(ranked, ids, log_total, keys, sampling)

    def of_sorted(scaled: Array) -> Array:
        return jnp.where(enough, of_few, _by_rank(*lax.top_k(scaled, logits.shape[-1]), log_total, keys, sampling))

    return lax.cond(jnp.all(enough), lambda _: of_few, of_sorted, scaled)


def _by_rank(ranked: Array, ids: Array, log_total: Array, keys: Array, sampling: Sampling) -> Array:
    """Draws among the first of ``ranked`` [B, some], logits in falling order, ``ids`` theirs.

    By one uniform number a row, which does not depend on how many are ranked.
    """
    rank, top_k = jnp.arange(ranked.shape[-1]), jnp.asarray(sampling.top_k)
    within = (top_k == 0) | (rank < top_k)
    of_k = jax.nn.logsumexp(jnp.where(within, ranked, -jnp.inf), axis=-1, keepdims=True)
    probabilities = jnp.where(within, jnp.exp(ranked - jnp.where(top_k > 0, of_k, log_total)), 0.0)
    before = jnp.cumsum(probabilities, -1) - probabilities
    # The likeliest stays whatever top_p is.
    kept = within & ((before < sampling.top_p) | (rank == 0))
    mass = jnp.cumsum(jnp.where(kept, probabilities, 0.0), -1)
    at = jax.vmap(jax.random.uniform)(keys)[:, None] * mass[:, -1:]
    choice = jnp.minimum((mass <= at).sum(-1), kept.sum(-1) - 1)
    return jnp.take_along_axis(ids, choice[:, None], -1)[:, 0].astype(jnp.int32)
