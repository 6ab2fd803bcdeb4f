"""Random keys of a batch."""

import functools

import jax

from vitax.core.types import Batch


def of_examples(rng: jax.Array | None, batch: Batch) -> jax.Array | None:
    """One typed key an example, from what it is and not from where in the batch it stands.

    Args:
      rng: key of the step; None means no randomness.
      batch: read for ``index``, int32 [B], where there is randomness.

    Returns:
      Typed keys [B], or None.
    """
    return None if rng is None else jax.vmap(functools.partial(jax.random.fold_in, rng))(batch["index"])
