"""ViT's hybrids: a Vision Transformer over the feature maps of a small residual network."""

import functools
from typing import Literal

import jax

from vitax.layers.conv import Conv
from vitax.layers.norm import GroupNorm
from vitax.layers.residual import ResidualStem
from vitax.models.vit import ViT
from vitax.models.vit_sizes import stem_reduction

Array = jax.Array


class Hybrid(ViT):
    """A ViT whose patches are cut from the feature maps of a ResNet-V1.

    Parameters: ``stem/root/kernel``, ``stem/root_norm/{scale,bias}``,
    ``stem/block_1/unit_01/{conv_1,conv_2,conv_3,proj}/kernel``,
    ``stem/block_1/unit_01/{norm_1,norm_2,norm_3,proj_norm}/{scale,bias}``, ..., and those of
    ``ViT``, whose fields it has too. ``patch_size`` counts positions of the maps, each of
    which stands for 4 pixels (root alone) to 32 (four stages). ``remat`` and ``unroll``
    act in the stem as in the encoder.

    Attributes:
      stem_blocks: units in each stage: (3, 4, 9) in front of R50+ViT-B/16, none for the
        root alone (R+Ti/16).
      stem_width: channels of the root.
      stem_groups: groups of the stem's norms.
      stem_norm_eps: epsilon of the stem's norms.
      stem_std_eps: epsilon of the stem's weight standardisation.
      stem_std_eps_added_to: what it is added to: the ``deviation`` in the authors' code,
        the ``variance`` in torch ports.

    Reference: ViT, arXiv:2010.11929, sections 3.1 and 4.1; R26+S/32 and R+Ti/16:
    arXiv:2106.10270, section 3.2.
    """

    stem_blocks: tuple[int, ...] = ()
    stem_width: int = 64
    stem_groups: int = 32
    stem_norm_eps: float = 1e-6
    stem_std_eps: float = 1e-5
    stem_std_eps_added_to: Literal["deviation", "variance"] = "deviation"

    def setup(self) -> None:
        super().setup()
        make_conv = functools.partial(
            Conv,
            padding="same",
            std_eps=self.stem_std_eps,
            std_eps_added_to=self.stem_std_eps_added_to,
            dtype=self.dtype,
        )
        make_norm = functools.partial(GroupNorm, self.stem_norm_eps, self.stem_groups, self.dtype)
        self.stem = ResidualStem(self.stem_blocks, make_conv, make_norm, self.stem_width, self.remat, self.unroll)

    def maps(self, images: Array) -> Array:
        """Feature maps [B, h, w, C] of the stem."""
        return self.stem(images)

    def stride(self) -> tuple[int, int]:
        """(height, width) in pixels of what makes one token."""
        height, width = super().stride()
        reduction = stem_reduction(self.stem_blocks)
        return reduction * height, reduction * width
