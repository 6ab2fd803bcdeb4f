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


def linear(x: Array, kernel: Array, bias: Array, dtype: Any) -> Array:
    """x @ kernel + bias in ``dtype``, over as many axes as the kernel has more than the bias.

    Differentiable in reverse mode only (see ``_backward``).
    """
    return _affine(x.astype(dtype), kernel.astype(dtype), bias.astype(dtype))


@jax.custom_vjp
def _affine(x: Array, kernel: Array, bias: Array) -> Array:
    return _forward(x, kernel, bias)[0]


def _forward(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    # Plain operations, not a call of `_affine`: remat policies see the product only here.
    num_in = kernel.ndim - bias.ndim
    dims = (tuple(range(x.ndim - num_in, x.ndim)), tuple(range(num_in)))
    return lax.dot_general(x, kernel, (dims, ((), ()))) + bias, (x, kernel, bias)


def _backward(saved: tuple[Array, Array, Array], grad: Array) -> tuple[Array, Array, Array]:
    """What plain differentiation gives, in a form that suits each platform.

    On a CPU the axes (batch, tokens) are merged for the kernel's gradient: apart,
    XLA transposes both operands through memory (8% of a block). On TPU they stay
    apart: merging costs there, since 197 tokens do not fill tiles of 8 rows. The sum
    for the bias is float32.
    """
    x, kernel, bias = saved
    outer = tuple(range(grad.ndim - bias.ndim))
    features = (tuple(range(len(outer), grad.ndim)), tuple(range(kernel.ndim - bias.ndim, kernel.ndim)))

    def apart(x: Array, grad: Array) -> Array:
        return lax.dot_general(x, grad, ((outer, outer), ((), ())))

    def merged(x: Array, grad: Array) -> Array:
        rows = x.reshape(-1, kernel.size // bias.size), grad.reshape(-1, bias.size)
        return lax.dot_general(*rows, (((0,), (0,)), ((), ()))).reshape(kernel.shape)

    return (
        lax.dot_general(grad, kernel, (features, ((), ()))),
        lax.platform_dependent(x, grad, cpu=merged, default=apart),
        grad.astype(jnp.float32).sum(outer).astype(bias.dtype),
    )


_affine.defvjp(_forward, _backward)


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
        kernel = self.param("kernel", named(kernel_init, self.axes), shape, jnp.float32)
        bias_init = named(self.bias_init, self.axes[num_in:])
        bias = self.param("bias", bias_init, self.features, jnp.float32)
        return linear(x, kernel, bias, self.dtype)
