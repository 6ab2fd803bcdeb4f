"""The linear head of a classifier."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.layers.named import named

Array = jax.Array


class Head(nn.Module):
    """Linear head; logits float32 whatever the compute dtype.

    Attributes:
      num_classes: classes.
      bias_init: start value of the bias.
      zero: start the kernel at zero.
      after_pre_logits: whether the input axis is that of ``pre_logits``.
      dtype: compute dtype of the product.
    """

    num_classes: int
    bias_init: float
    zero: bool
    after_pre_logits: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, D] to float32 [B, num_classes]."""
        init = nn.initializers.zeros_init() if self.zero else nn.initializers.lecun_normal()
        # One mesh axis cannot shard both sides: behind pre_logits the classes have it.
        names = (None if self.after_pre_logits else "embed", "classes")
        kernel = self.param("kernel", named(init, names), (x.shape[-1], self.num_classes), jnp.float32)
        constant = named(nn.initializers.constant(self.bias_init), ("classes",))
        bias = self.param("bias", constant, (self.num_classes,), jnp.float32)
        kernel = kernel.astype(self.dtype)
        logits = jnp.matmul(x.astype(self.dtype), kernel, preferred_element_type=jnp.float32) + bias
        return constrain(logits, ("batch", "classes"))
