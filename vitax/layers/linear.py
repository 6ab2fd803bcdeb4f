"""``Linear``: a matrix product over the last axes, with a bias and named axes."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vitax.layers.named import named

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


def linear(x: Array, kernel: Array, bias: Array, dtype: Any, flat: bool = False) -> Array:
    """x @ kernel + bias in ``dtype``, over as many axes as the kernel has more than the bias.

    ``flat`` multiplies by the kernel as one matrix, [..., inputs] by (inputs, features):
    for neighbours that want features side by side (``layers.flat_attention``), whose
    reshapes then cancel against those here. For others it costs 2 of 76 ms (ViT-B/16).

    In float32, the precision of CPUs, leading axes (batch, tokens) are merged to rows:
    apart, XLA's CPU compiler transposes both operands of the kernel's gradient through
    memory (8% of a block). In bfloat16 they stay apart: on TPU merging costs, since
    197 tokens do not fill tiles of 8 rows.
    """
    x, kernel, bias = x.astype(dtype), kernel.astype(dtype), bias.astype(dtype)
    num_in = kernel.ndim - bias.ndim
    leading = x.shape[: x.ndim - num_in]
    if jnp.dtype(dtype) == jnp.float32:
        matrix = kernel.reshape(-1, bias.size)
        return (x.reshape(-1, matrix.shape[0]) @ matrix + bias.reshape(-1)).reshape(*leading, *bias.shape)
    if flat:
        matrix = kernel.reshape(-1, bias.size)
        y = x.reshape(*leading, matrix.shape[0]) @ matrix + bias.reshape(-1)
        return y.reshape(*leading, *bias.shape)
    dims = (tuple(range(len(leading), x.ndim)), tuple(range(num_in)))
    return lax.dot_general(x, kernel, (dims, ((), ()))) + bias


class Linear(nn.Module):
    """y = x @ kernel + bias, over one or more axes in and out.

    Attributes:
      features: output axes, e.g. (heads, head_dim).
      axes: logical names of all kernel axes, inputs first.
      dtype: compute dtype; parameters are float32.
      kernel_init: initialiser, given the kernel flattened to 2-D.
      bias_init: initialiser of the bias.
      flat: as in ``linear``.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: Any = "float32"
    kernel_init: Callable[..., Array] = nn.initializers.xavier_uniform()
    bias_init: Callable[..., Array] = nn.initializers.zeros_init()
    flat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., *inputs] to [..., *features]."""
        num_in = len(self.axes) - len(self.features)
        shape = (*x.shape[x.ndim - num_in :], *self.features)
        kernel_init = flattened(self.kernel_init, num_in)
        kernel = self.param("kernel", named(kernel_init, self.axes), shape, jnp.float32)
        bias_init = named(self.bias_init, self.axes[num_in:])
        bias = self.param("bias", bias_init, self.features, jnp.float32)
        return linear(x, kernel, bias, self.dtype, self.flat)
