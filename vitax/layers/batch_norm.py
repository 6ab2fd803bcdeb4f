"""Batch normalisation: the one layer in which examples see each other."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vitax.layers.named import named

Array = jax.Array

# The collection of running statistics, beside ``params``.
STATISTICS = "batch_stats"


def moments(x: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Mean and variance over examples and places: float32 [C] each, variance over n (biased).

    Sums run over the whole array, so under ``jit`` over the global batch, however it is
    sharded.

    Args:
      x: [B, H, W, C].
      mask: bool [B]; rows where it is False are left out. None counts all.
    """
    y = x.astype(jnp.float32)
    if mask is None:
        average = lambda values: values.mean((0, 1, 2))  # noqa: E731
    else:
        rows = mask.reshape(-1, 1, 1, 1)
        count = jnp.maximum(mask.sum(dtype=jnp.float32), 1.0) * (x.shape[1] * x.shape[2])
        # where, not a product: a NaN in a padded row must not leak into the sum.
        average = lambda values: jnp.where(rows, values, 0.0).sum((0, 1, 2)) / count  # noqa: E731
    mean = average(y)
    if x.dtype == jnp.float32:
        # Two passes: E[x^2] - E[x]^2 loses digits where the mean is large beside the deviation.
        return mean, average(jnp.square(y - mean))
    # One pass over what is already rounded to bfloat16; see ``layers.norm``.
    return mean, jnp.maximum(average(jnp.square(y)) - jnp.square(mean), 0.0)


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, a channel.

    In training the statistics are those of the global batch, padding left out, and the
    running ones move: ``running = momentum * running + (1 - momentum) * batch``, with the
    biased variance as TensorFlow's cross-replica layer and Flax have it (PyTorch takes
    n / (n - 1) times that). Otherwise the running ones are used and no example depends on
    another. Statistics are float32 in any case.

    Parameters: ``scale``, ``bias`` (C,). ``batch_stats``: ``mean``, ``var`` (C,).

    Attributes:
      axis: logical name of the channels.
      momentum: of the running statistics, TensorFlow's convention.
      epsilon: added to the variance.
      dtype: of the result.

    Reference: Ioffe and Szegedy, arXiv:1502.03167, algorithms 1 and 2.
    """

    axis: str
    momentum: float = 0.99
    epsilon: float = 1e-3
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, mask: Array | None = None) -> Array:
        """Maps [B, H, W, C] to [B, H, W, C].

        Args:
          x: activations.
          train: take the statistics of the batch and update the running ones, which wants
            ``batch_stats`` to be mutable.
          mask: bool [B]: examples that count for the statistics; None = all.
        """
        channels, zeros, ones = x.shape[-1:], nn.initializers.zeros_init(), nn.initializers.ones_init()
        scale = self.param("scale", named(ones, (self.axis,)), channels, jnp.float32)
        bias = self.param("bias", named(zeros, (self.axis,)), channels, jnp.float32)
        # The key is not used: both start as constants.
        start = lambda init: named(init, (self.axis,))(None, channels, jnp.float32)  # noqa: E731
        running_mean = self.variable(STATISTICS, "mean", start, zeros)
        running_var = self.variable(STATISTICS, "var", start, ones)
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var = moments(x, mask)
            if not self.is_initializing():
                # A batch of padding alone says nothing.
                rate = 1.0 - self.momentum if mask is None else jnp.where(mask.any(), 1.0 - self.momentum, 0.0)
                for running, batch in ((running_mean, mean), (running_var, var)):
                    running.value += rate * (lax.stop_gradient(batch) - running.value)
        factor = lax.rsqrt(var + self.epsilon) * scale
        return ((x.astype(jnp.float32) - mean) * factor + bias).astype(self.dtype)
