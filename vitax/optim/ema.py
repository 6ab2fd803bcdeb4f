"""Averaged parameters (Polyak averaging)."""

from typing import Any

import jax
import jax.numpy as jnp

from vitax.core.types import PyTree


def ema_update(ema: PyTree, params: PyTree, decay: float, step: Any, *, warmup: bool = False) -> PyTree:
    """One update of the average: ``ema + (1 - d) (params - ema)``.

    With ``warmup`` False ``d`` is ``decay`` and the initial parameters keep a weight of
    ``decay^n`` after n updates (0.135 for 0.9999 and ViT's 20,000 steps: fine where one
    starts from trained weights, a burden where one does not). With ``warmup`` it is
    ``min(decay, (1 + step) / (10 + step))``, as TensorFlow's ``num_updates`` does, so that
    the start is forgotten.

    BatchNorm's running statistics are averaged along with the parameters, as the authors of
    EfficientNet do: statistics of the last step belong to the parameters of the last step,
    and averaged layers in front of a norm make other activations.

    Args:
      ema: the average so far; before the first update a copy of the initial parameters.
      params: parameters (and statistics) after the update, same structure.
      decay: from 0 (no memory) to below 1; ViT fine-tunes with 0.9999.
      step: number of this update, from 0.
      warmup: see above.

    Returns:
      The new average, in the dtypes of ``ema``; the arithmetic is in float32.

    Reference: Polyak and Juditsky, 1992; ViT, arXiv:2010.11929, section 4.1.
    """
    if warmup:
        step = jnp.asarray(step, jnp.float32)
        rest = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    else:
        rest = jnp.float32(1.0 - decay)  # subtracted in double precision: 1 - 0.9999 keeps its digits

    def one(old: jax.Array, new: jax.Array) -> jax.Array:
        wide = old.astype(jnp.float32)
        # This form leaves an average that equals the parameters exactly as it is.
        return (wide + rest * (new.astype(jnp.float32) - wide)).astype(old.dtype)

    return jax.tree.map(one, ema, params)
