"""Dropout and stochastic depth with one random key an example.

Masks depend on the key of the example and the number of the site alone: not on
how the batch is split over devices, microbatches, a scanned or unrolled stack,
or recomputation.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def fold(rng: Array | None, site: int | Array) -> Array | None:
    """Keys of a site: ``rng`` is typed keys [B] or None (deterministic)."""
    return None if rng is None else jax.vmap(jax.random.fold_in, (0, None))(rng, site)


def dropout(x: Array, rate: float, rng: Array | None, site: int) -> Array:
    """Zeroes elements of x [B, ...] with probability ``rate`` and rescales the rest.

    Args:
      x: activations, axis 0 = example.
      rate: probability of zero; 0 returns x itself.
      rng: typed keys [B], or None for no dropout.
      site: number of the place in the network, folded into the keys.

    Reference: Srivastava et al., JMLR 15 (2014).
    """
    if rng is None or rate == 0.0:
        return x
    keys = fold(rng, site)
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def drop_branch(x: Array, keep: float | Array | None, rng: Array | None, site: int) -> Array:
    """Stochastic depth: drops a residual branch for whole examples.

    Args:
      x: the branch [B, ...].
      keep: probability that an example keeps the branch, a number or a traced
        scalar; None keeps all.
      rng: typed keys [B], or None.
      site: as in ``dropout``.

    Reference: Huang et al., arXiv:1603.09382; kept branches are divided by
    ``keep`` in training, so nothing changes at evaluation.
    """
    if rng is None or keep is None:
        return x
    keys = fold(rng, site)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep))(keys)
    scale = jnp.where(kept, 1.0 / jnp.float32(keep), 0.0).astype(x.dtype)
    return x * scale.reshape(-1, *[1] * (x.ndim - 1))
