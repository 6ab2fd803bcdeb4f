"""``Linear``: a matrix product over the last axes, with a bias and named axes."""

import functools
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


def linear(x: Array, kernel: Array, bias: Array, dtype: Any, num_in: int = 1) -> Array:
    """Contracts the last ``num_in`` axes of x with the first of the kernel, in ``dtype``.

    Differentiable in reverse mode only (see ``_backward``).
    """
    return _affine(x.astype(dtype), kernel.astype(dtype), bias.astype(dtype), num_in)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _affine(x: Array, kernel: Array, bias: Array, num_in: int) -> Array:
    dims = (tuple(range(x.ndim - num_in, x.ndim)), tuple(range(num_in)))
    return lax.dot_general(x, kernel, (dims, ((), ()))) + bias


def _forward(x: Array, kernel: Array, bias: Array, num_in: int) -> tuple[Array, tuple[Array, Array]]:
    return _affine(x, kernel, bias, num_in), (x, kernel)


def _backward(num_in: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array, Array]:
    """The gradients that differentiation would give, with the CPU's products in two dimensions.

    With the axes (batch, tokens) apart, XLA's CPU compiler transposes both operands
    of a weight's gradient through memory (8% of a ViT-S/16 step); merged, it does not.
    On TPU merging them is what costs: 197 tokens do not fill a tile of 8 rows.
    """
    x, kernel = saved
    size_in, size_out = math.prod(kernel.shape[:num_in]), math.prod(kernel.shape[num_in:])

    def apart(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
        outer = tuple(range(x.ndim - num_in))
        inner = (tuple(range(len(outer), grad.ndim)), tuple(range(num_in, kernel.ndim)))
        return (
            lax.dot_general(grad, kernel, (inner, ((), ()))),
            lax.dot_general(x, grad, ((outer, outer), ((), ()))),
        )

    def merged(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
        rows, matrix = grad.reshape(-1, size_out), kernel.reshape(size_in, size_out)
        return (
            lax.dot_general(rows, matrix, (((1,), (1,)), ((), ()))).reshape(x.shape),
            lax.dot_general(x.reshape(-1, size_in), rows, (((0,), (0,)), ((), ()))).reshape(kernel.shape),
        )

    grad_x, grad_kernel = lax.platform_dependent(x, kernel, grad, cpu=merged, default=apart)
    grad_bias = grad.astype(jnp.float32).sum(tuple(range(x.ndim - num_in))).astype(grad.dtype)
    return grad_x, grad_kernel, grad_bias


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
        return linear(x, kernel, bias, self.dtype, num_in)
