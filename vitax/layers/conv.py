"""Convolutions over [B, H, W, C]: the operation, and ``Conv`` with weight standardisation and named axes."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vitax.layers.linear import flattened
from vitax.layers.named import named

Array = jax.Array
Padding = Literal["same", "symmetric"]


def convolve(x: Array, kernel: Array, stride: int, padding: Padding, groups: int = 1) -> Array:
    """A convolution in the dtype of its arguments.

    Args:
      x: [B, H, W, C].
      kernel: (K, K, C / groups, features).
      stride: of the window, in both directions.
      padding: ``same`` pads as TensorFlow and XLA do, by what the size of the image asks for
        and more after than before; ``symmetric`` by K // 2 on all sides, as PyTorch ports
        do. They differ where the stride is 2.
      groups: C for one filter a channel.

    Returns:
      [B, H / stride, W / stride, features], rounded up.
    """
    around = kernel.shape[0] // 2
    pad: Any = "SAME" if padding == "same" else [(around, around)] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def standardise(kernel: Array, epsilon: float, added_to: Literal["variance", "deviation"]) -> Array:
    """A kernel whose every output channel has mean 0 and variance 1, in float32.

    Args:
      kernel: (height, width, in, out).
      epsilon: keeps constant kernels finite.
      added_to: the variance, as BiT has it, or the standard deviation, as the stems of
        ViT's hybrids have it: at 1e-5 the two differ by 1e-4 of a kernel.

    Reference: Qiao et al., arXiv:1903.10520, equation 11; the variance is the biased one.
    """
    kernel = kernel.astype(jnp.float32)
    centred = kernel - kernel.mean((0, 1, 2))
    variance = jnp.square(centred).mean((0, 1, 2))
    if added_to == "variance":
        return centred * lax.rsqrt(variance + epsilon)
    # The gradient of a square root at zero is infinite; a constant kernel has no direction.
    positive = variance > 0
    return centred / (jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0) + epsilon)


class Conv(nn.Module):
    """A convolution without a bias whose kernel is standardised: ``kernel`` (h, w, in, out).

    Attributes:
      features: output channels.
      size: side of the kernel.
      stride: of the window, in both directions.
      padding: as in ``convolve``.
      std_eps: epsilon of the standardisation.
      std_eps_added_to: see ``standardise``.
      dtype: compute dtype; the kernel is float32, and so is its standardisation.
    """

    features: int
    size: int
    stride: int = 1
    padding: Padding = "symmetric"
    std_eps: float = 1e-10
    std_eps_added_to: Literal["variance", "deviation"] = "variance"
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        init = flattened(nn.initializers.lecun_normal(), 3)
        kernel = self.param("kernel", named(init, (None, None, "channels", "embed")), shape, jnp.float32)
        kernel = standardise(kernel, self.std_eps, self.std_eps_added_to).astype(self.dtype)
        return convolve(x.astype(self.dtype), kernel, self.stride, self.padding)
