"""``Linear``: a matrix product over the last axes, with a bias and named axes."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


def flattened(init: Callable[..., Array], num_in: int) -> Callable[..., Array]:
    """An initialiser that sees a kernel as the 2-D matrix that it is.

    Fans of (D, H, K) kernels are those of (D, H*K), so that separate projections
    start like the single matrix of the paper.

    Args:
      init: ``(key, shape, dtype) -> array`` for 2-D shapes.
      num_in: how many leading axes are inputs.
    """

    def wrapped(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return init(key, (math.prod(shape[:num_in]), math.prod(shape[num_in:])), dtype).reshape(shape)

    return wrapped


def linear(x: Array, kernel: Array, bias: Array | None, dtype: Any, num_in: int = 1) -> Array:
    """Contracts the last ``num_in`` axes of x with the first of the kernel, in ``dtype``."""
    dims = (tuple(range(x.ndim - num_in, x.ndim)), tuple(range(num_in)))
    y = lax.dot_general(x.astype(dtype), kernel.astype(dtype), (dims, ((), ())))
    return y if bias is None else y + bias.astype(dtype)


class Linear(nn.Module):
    """y = x @ kernel + bias, over one or more axes in and out.

    Attributes:
      features: output axes, e.g. (heads, head_dim).
      axes: logical names of all kernel axes, inputs first.
      dtype: compute dtype; parameters are float32.
      kernel_init: initialiser, given the kernel flattened to 2-D.
      bias_init: initialiser of the bias.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: Any = "float32"
    kernel_init: Callable[..., Array] = nn.initializers.xavier_uniform()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., *inputs] to [..., *features]."""
        num_in = len(self.axes) - len(self.features)
        shape = (*x.shape[x.ndim - num_in :], *self.features)
        kernel_init = flattened(self.kernel_init, num_in)
        kernel = self.param("kernel", nn.with_logical_partitioning(kernel_init, self.axes), shape, jnp.float32)
        bias_init = nn.with_logical_partitioning(self.bias_init, self.axes[num_in:])
        bias = self.param("bias", bias_init, self.features, jnp.float32)
        return linear(x, kernel, bias, self.dtype, num_in)
