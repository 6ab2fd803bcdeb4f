"""Bottleneck units of residual networks, and a stage of them: unrolled or scanned, one layout of parameters."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.core.errors import pick
from vitax.layers.remat import REMAT_POLICIES, RematName

Array = jax.Array

# Axes of feature maps.
MAPS = ("batch", None, None, "embed")
# The bottleneck is a quarter as wide as what goes in and out.
_EXPANSION = 4


class PreActivationUnit(nn.Module):
    """x + conv(norm(conv(norm(conv(norm(x)))))), ReLU after each norm (ResNet-V2).

    Parameters: ``conv_1`` (1x1), ``conv_2`` (3x3, strided), ``conv_3`` (1x1),
    ``norm_1``, ``norm_2``, ``norm_3``, and ``proj`` (1x1, strided) of the first unit of a
    stage, which projects the shortcut behind the first norm and ReLU.

    Attributes:
      features: output channels.
      stride: of the 3x3 convolution (the original has it on the first 1x1).
      project: whether the shortcut is projected.
      make_conv: ``Conv`` with all but ``features, size, stride, name`` bound.
      make_norm: ``GroupNorm`` likewise with all but ``name``.

    Reference: He et al., arXiv:1603.05027; BiT, arXiv:1912.11370.
    """

    features: int
    stride: int
    project: bool
    make_conv: Callable[..., nn.Module]
    make_norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        x = constrain(x, MAPS)
        inner = self.features // _EXPANSION
        y = nn.relu(self.make_norm(name="norm_1")(x))
        if self.project:
            x = self.make_conv(self.features, 1, self.stride, name="proj")(y)
        y = self.make_conv(inner, 1, name="conv_1")(y)
        y = nn.relu(self.make_norm(name="norm_2")(y))
        y = self.make_conv(inner, 3, self.stride, name="conv_2")(y)
        y = nn.relu(self.make_norm(name="norm_3")(y))
        return constrain(x + self.make_conv(self.features, 1, name="conv_3")(y), MAPS)


class PostActivationUnit(nn.Module):
    """relu(x + norm(conv(norm(conv(norm(conv(x))))))), ReLU between (ResNet-V1).

    Parameters: as ``PreActivationUnit``, and ``proj_norm`` beside ``proj``. The scale of
    ``norm_3`` starts at zero: a unit starts as its shortcut.

    Attributes: as ``PreActivationUnit``.

    Reference: He et al., arXiv:1512.03385; the zero scale: Goyal et al., arXiv:1706.02677.
    """

    features: int
    stride: int
    project: bool
    make_conv: Callable[..., nn.Module]
    make_norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        x = constrain(x, MAPS)
        inner = self.features // _EXPANSION
        y = nn.relu(self.make_norm(name="norm_1")(self.make_conv(inner, 1, name="conv_1")(x)))
        y = nn.relu(self.make_norm(name="norm_2")(self.make_conv(inner, 3, self.stride, name="conv_2")(y)))
        y = self.make_norm(scale_init=0.0, name="norm_3")(self.make_conv(self.features, 1, name="conv_3")(y))
        if self.project:
            x = self.make_norm(name="proj_norm")(self.make_conv(self.features, 1, self.stride, name="proj")(x))
        return constrain(nn.relu(x + y), MAPS)


class Stage(nn.Module):
    """Units at one resolution: ``unit_01`` strides and projects, the others are equal.

    Parameters are one leaf a unit whichever way the stage runs: ``unroll=False`` stacks
    those of the equal units inside the computation and scans over the stack.

    Attributes:
      depth: number of units.
      make_unit: constructor of a unit (all but ``stride, project, name, parent`` bound).
      stride: of the first unit.
      remat: a name of ``REMAT_POLICIES``, around each unit.
      unroll: a Python loop over the units instead of ``jax.lax.scan``.
    """

    depth: int
    make_unit: Callable[..., nn.Module]
    stride: int
    remat: RematName = "none"
    unroll: bool = True

    def setup(self) -> None:
        self.units = [self._unit(i, name=f"unit_{i + 1:02d}") for i in range(self.depth)]

    def _unit(self, i: int, **options: Any) -> nn.Module:
        return self.make_unit(stride=1 if i else self.stride, project=not i, **options)

    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        if self.is_initializing():
            # Creates the parameters, whichever way the stage will run.
            for unit in self.units:
                x = unit(x)
            return x
        stored = nn.meta.unbox(self.variables["params"])
        params = [stored[f"unit_{i + 1:02d}"] for i in range(self.depth)]
        first, equal = self._body(0), self._body(1)
        with jax.named_scope("unit_01"):
            x = first(x, params[0])
        if self.unroll or self.depth <= 2:
            for i, layer in enumerate(params[1:], start=2):
                with jax.named_scope(f"unit_{i:02d}"):
                    x = equal(x, layer)
            return x
        # In float32, also where the units compute in bfloat16: kernels are standardised first.
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params[1:])
        return jax.lax.scan(lambda x, layer: (equal(x, layer), None), x, stacked)[0]

    def _body(self, i: int) -> Callable[[Array, Any], Array]:
        # Unbound: pure in its parameters, so that one body serves the loop, the scan and the remat.
        unit = self._unit(i, parent=None)

        def body(x: Array, params: Any) -> Array:
            return unit.apply({"params": params}, x)  # type: ignore[return-value]

        policy = pick(REMAT_POLICIES, self.remat, "model.remat")
        if policy is None:
            return body
        # Inside a scan nothing can merge across the loop, so the barriers would only cost.
        return jax.checkpoint(body, policy=policy, prevent_cse=self.unroll or not i)


class ResidualStem(nn.Module):
    """A ResNet-V1 without its head, in front of something else: images to feature maps.

    Parameters: ``root/kernel`` (7x7, stride 2), ``root_norm``, ``block_1/unit_01/...`` of
    ``PostActivationUnit``. Max-pooling of stride 2 follows the root. Windows are padded as
    TensorFlow does.

    Attributes:
      blocks: units in each stage; none for the root alone.
      make_conv: as in ``PostActivationUnit``.
      make_norm: likewise.
      width: channels of the root.
      remat: as in ``Stage``.
      unroll: likewise.
    """

    blocks: tuple[int, ...]
    make_conv: Callable[..., nn.Module]
    make_norm: Callable[..., nn.Module]
    width: int = 64
    remat: RematName = "none"
    unroll: bool = True

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps [B, H, W, C] to [B, h, w, features]: a quarter of the sides, halved by each stage after the first."""
        x = nn.relu(self.make_norm(name="root_norm")(self.make_conv(self.width, 7, 2, name="root")(images)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for i, depth in enumerate(self.blocks):
            make_unit = functools.partial(
                PostActivationUnit, 4 * self.width * 2**i, make_conv=self.make_conv, make_norm=self.make_norm
            )
            x = Stage(depth, make_unit, 2 if i else 1, self.remat, self.unroll, name=f"block_{i + 1}")(x)
        return x
