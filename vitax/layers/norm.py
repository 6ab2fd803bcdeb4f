"""Layer normalisation with float32 statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vitax.layers.named import named

Array = jax.Array


class LayerNorm(nn.Module):
    """Normalises the last axis; statistics in float32, result in ``dtype``.

    Two passes (mean, then mean of squares about it) rather than E[x^2] - E[x]^2:
    the second loses digits where the mean is large beside the deviation, and both
    passes are one fusion anyway.

    Attributes:
      epsilon: added to the variance; 1e-6 in the original ViT.
      dtype: dtype of the result.

    Reference: Ba et al., arXiv:1607.06450, equation 4.
    """

    epsilon: float = 1e-6
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to [..., D]."""
        scale = self.param("scale", named(nn.initializers.ones_init(), ("embed",)), x.shape[-1:], jnp.float32)
        bias = self.param("bias", named(nn.initializers.zeros_init(), ("embed",)), x.shape[-1:], jnp.float32)
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
        return (y * scale + bias).astype(self.dtype)
