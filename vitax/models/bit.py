"""BiT: ResNet-V2 with group normalisation and weight standardisation."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.layers.conv import Conv
from vitax.layers.head import Head
from vitax.layers.norm import GroupNorm
from vitax.layers.remat import RematName
from vitax.layers.residual import PreActivationUnit, Stage

Array = jax.Array


class BiT(nn.Module):
    """The residual network of "Big Transfer".

    A 7x7 convolution of stride 2, max-pooling of 3x3 and stride 2 over a border of
    zeros, stages of bottleneck units (each but the first halves the resolution), norm,
    ReLU, the mean over pixels, a linear head. Each stage puts out 4, 8, 16, 32 ... times
    the channels of the root.

    Parameters (float32, one leaf a unit): ``root/kernel``, ``block_1/unit_01/{conv_1,
    conv_2, conv_3, proj}/kernel``, ``block_1/unit_01/{norm_1, norm_2, norm_3}/{scale,
    bias}``, ..., ``norm``, ``head``.

    Attributes:
      blocks: units in each stage: (3, 4, 6, 3) is R50.
      width_factor: multiplies all channels: the 4 of R152x4.
      root_width: channels of the root at width factor 1.
      num_groups: groups of the norms.
      num_classes: classes of the linear head; 0 = no head, logits None.
      head_bias_init: start value of the head's bias.
      zero_head: start the head's kernel at zero.
      norm_eps: epsilon of the group norms.
      std_eps: epsilon of weight standardisation, added to the variance: 1e-10 in the
        authors' code, 1e-8 in torch ports.
      dtype: compute dtype; parameters, statistics and logits are float32 in any case.
      remat: what the forward pass keeps of a unit, a name of ``layers.remat.REMAT_POLICIES``.
      unroll: a Python loop over the units of a stage instead of a scan over the equal
        ones; no change to parameters or results.

    Reference: Kolesnikov et al., arXiv:1912.11370, and their published code.
    """

    blocks: tuple[int, ...]
    width_factor: int = 1
    root_width: int = 64
    num_groups: int = 32
    num_classes: int = 0
    head_bias_init: float = 0.0
    zero_head: bool = True
    norm_eps: float = 1e-5
    std_eps: float = 1e-10
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: RematName = "none"
    unroll: bool = True

    @nn.compact
    def __call__(
        self,
        images: Array,
        *,
        train: bool = False,
        rng: Array | None = None,
        return_intermediates: bool = False,
    ) -> ModelOutput:
        """Classifies images.

        Args:
          images: float [B, H, W, C], already scaled (the original: to [-1, 1]).
          train: no effect: nothing here is random.
          rng: no effect.
          return_intermediates: also return ``root`` (what enters the first stage,
            [B, H/4, W/4, channels]), ``block_1``... (output of each stage) and ``maps``
            (behind the final norm and ReLU).

        Returns:
          logits float32 [B, num_classes] (None without a head), features [B, D] as the
          head sees them, intermediates by name.

        Raises:
          UserError: no images, or channels that do not divide into groups.
        """
        if len(images.shape) != 4:
            raise UserError(f"images: expected [batch, height, width, channels], got shape {tuple(images.shape)}.")
        if not self.blocks or min(self.blocks) < 1:
            raise UserError(f"model.blocks: expected units a stage, such as (3, 4, 6, 3), got {self.blocks}.")
        make_conv = functools.partial(Conv, std_eps=self.std_eps, dtype=self.dtype)
        make_norm = functools.partial(GroupNorm, self.norm_eps, self.num_groups, self.dtype)
        width = self.root_width * self.width_factor
        x = make_conv(width, 7, 2, name="root")(images)
        # Zeros take part in the maximum: this is not the padding of a pooling layer.
        x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))
        intermediates = {"root": x}
        for i, depth in enumerate(self.blocks):
            make_unit = functools.partial(PreActivationUnit, 4 * width * 2**i, make_conv=make_conv, make_norm=make_norm)
            name = f"block_{i + 1}"
            x = Stage(depth, make_unit, 2 if i else 1, self.remat, self.unroll, name=name)(x)
            intermediates[name] = x
        x = nn.relu(make_norm(name="norm")(x))
        intermediates["maps"] = x
        features = x.astype(jnp.float32).mean((1, 2)).astype(x.dtype)
        logits = None
        if self.num_classes:
            head = Head(self.num_classes, self.head_bias_init, self.zero_head, False, self.dtype, name="head")
            logits = head(features)
        return ModelOutput(
            logits=logits, features=features, intermediates=intermediates if return_intermediates else {}
        )
