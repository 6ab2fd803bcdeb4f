"""The inverted bottleneck of MobileNet and EfficientNet, and the convolution that it is made of."""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.layers.batch_norm import BatchNorm
from vitax.layers.conv import Padding, convolve
from vitax.layers.dropout import drop_branch
from vitax.layers.linear import Linear
from vitax.layers.named import named

Array = jax.Array
ActivationName = Literal["silu", "relu6"]

ACTIVATIONS: dict[str, Any] = {"silu": jax.nn.silu, "relu6": jax.nn.relu6}
# Site of stochastic depth within the keys of one block.
BRANCH = 0


@dataclasses.dataclass(frozen=True)
class Style:
    """What all layers of one network share.

    Attributes:
      activation: a name of ``ACTIVATIONS``.
      padding: as in ``layers.conv.convolve``.
      norm_momentum, norm_eps: of ``BatchNorm``.
      dtype: compute dtype; parameters are float32.
    """

    activation: ActivationName = "silu"
    padding: Padding = "same"
    norm_momentum: float = 0.99
    norm_eps: float = 1e-3
    dtype: Any = "float32"

    def act(self, x: Array) -> Array:
        """The activation."""
        return ACTIVATIONS[self.activation](x)

    def norm(self, axis: str, name: str) -> BatchNorm:
        """A norm over channels with this logical name."""
        return BatchNorm(axis, self.norm_momentum, self.norm_eps, self.dtype, name=name)


class Convolution(nn.Module):
    """A convolution without bias: ``kernel`` (K, K, C_in, C_out), or (K, K, 1, C) a channel by itself.

    Attributes:
      features: C_out; with ``depthwise`` ignored.
      size: K.
      axes: logical names of the input and output channels.
      style: for padding and dtype.
      stride: in both directions.
      depthwise: one filter a channel.
    """

    features: int
    size: int
    axes: tuple[str | None, str]
    style: Style
    stride: int = 1
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C_in] to [B, H / stride, W / stride, C_out], rounded up."""
        groups = x.shape[-1] if self.depthwise else 1
        shape = (self.size, self.size, x.shape[-1] // groups, groups if self.depthwise else self.features)
        # Fan-out, as the authors' code has it; a filter of a depthwise kernel has one output.
        init = nn.initializers.normal(math.sqrt(2.0 / (self.size**2 * (shape[-1] // groups))))
        names = (None, None, None if self.depthwise else self.axes[0], self.axes[1])
        kernel = self.param("kernel", named(init, names), shape, jnp.float32)
        x, kernel = x.astype(self.style.dtype), kernel.astype(self.style.dtype)
        if self.size == self.stride == 1 and not self.depthwise:
            # A matrix product, which every compiler knows how to shard.
            return x @ kernel[0, 0]
        return convolve(x, kernel, self.stride, self.style.padding, groups)


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation; parameters ``conv``, ``norm``.

    Attributes:
      features, size, axes, style, stride: as in ``Convolution``.
    """

    features: int
    size: int
    axes: tuple[str | None, str]
    style: Style
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, mask: Array | None = None) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]; ``mask`` as in ``BatchNorm``."""
        x = Convolution(self.features, self.size, self.axes, self.style, self.stride, name="conv")(x)
        x = self.style.act(self.style.norm(self.axes[1], "norm")(x, train=train, mask=mask))
        return constrain(x, ("batch", None, None, self.axes[1]))


class MBConv(nn.Module):
    """Expand, depthwise, squeeze and excite, project; a residual where the shape allows it.

    Parameters: ``expand`` and ``expand_norm`` (absent for expansion 1), ``depthwise``,
    ``depthwise_norm``, ``squeeze``, ``excite`` (dense kernels and biases; absent for
    squeeze 0), ``project``, ``project_norm``.

    Attributes:
      features: channels out.
      size: side of the depthwise kernel.
      style: activation, padding, norms, dtype.
      stride: of the depthwise convolution.
      expansion: channels inside, as a multiple of those that come in.
      squeeze: width of the squeeze, as a part of the channels that come in; 0 = absent.

    Reference: MobileNetV2, arXiv:1801.04381, figure 3b; squeeze and excite,
    arXiv:1709.01507, figure 2; EfficientNet, arXiv:1905.11946, section 4.
    """

    features: int
    size: int
    style: Style
    stride: int = 1
    expansion: int = 6
    squeeze: float = 0.25

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        rng: Array | None = None,
        keep: float | Array | None = None,
    ) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features].

        Args:
          x: activations.
          train: statistics of the batch instead of the running ones.
          mask: as in ``BatchNorm``.
          rng: typed keys [B], or None for no randomness.
          keep: probability that an example keeps the residual branch; None keeps all.
        """
        act, channels = self.style.act, x.shape[-1]

        def conv(y: Array, name: str, axes: tuple[str | None, str], features: int = 0, **fields: Any) -> Array:
            y = Convolution(features, axes=axes, style=self.style, name=name, **fields)(y)
            return self.style.norm(axes[1], f"{name}_norm")(y, train=train, mask=mask)

        inside, outside = ("batch", None, None, "mlp"), ("batch", None, None, "embed")
        x = constrain(x, outside)
        y = x
        if self.expansion != 1:
            y = act(conv(y, "expand", ("embed", "mlp"), channels * self.expansion, size=1))
        y = constrain(y, inside)
        y = act(conv(y, "depthwise", (None, "mlp"), size=self.size, stride=self.stride, depthwise=True))
        y = constrain(y, inside)
        if self.squeeze:
            y = y * self._gate(y, max(1, int(channels * self.squeeze)))
        y = conv(y, "project", ("mlp", "embed"), self.features, size=1)
        if self.stride == 1 and channels == self.features:
            y = x + drop_branch(y, keep, rng, BRANCH)
        return constrain(y, outside)

    def _gate(self, y: Array, width: int) -> Array:
        """[B, H, W, C] -> [B, 1, 1, C] between 0 and 1."""
        z = y.astype(jnp.float32).mean((1, 2)).astype(self.style.dtype)

        def dense(z: Array, features: int, axes: tuple[str, str], name: str) -> Array:
            init = nn.initializers.normal(math.sqrt(2.0 / features))
            return Linear((features,), axes, self.style.dtype, init, name=name)(z)

        z = self.style.act(dense(z, width, ("mlp", "channels"), "squeeze"))
        z = dense(z, y.shape[-1], ("channels", "mlp"), "excite")
        return jax.nn.sigmoid(z)[:, None, None, :]
