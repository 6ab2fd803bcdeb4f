"""Published sizes of ViT, as data. Imports neither JAX nor Flax."""

import re
from typing import Any, NamedTuple

from vitax.core.errors import UserError, pick


class Size(NamedTuple):
    """Shape of a ViT.

    Attributes:
      width: D.
      depth: blocks.
      mlp_dim: M.
      num_heads: N.
      source: paper and table.
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    source: str


VIT = "ViT, arXiv:2010.11929, table 1"
SCALING = "Scaling Vision Transformers, arXiv:2106.04560, table 2"
DEIT = "DeiT, arXiv:2012.12877, table 1"

SIZES: dict[str, Size] = {
    "Ti": Size(192, 12, 768, 3, DEIT),
    "S": Size(384, 12, 1536, 6, DEIT),
    "M": Size(512, 12, 2048, 8, SCALING),
    "B": Size(768, 12, 3072, 12, VIT),
    "L": Size(1024, 24, 4096, 16, VIT),
    "H": Size(1280, 32, 5120, 16, VIT),
    "g": Size(1408, 40, 6144, 16, SCALING),
    "G": Size(1664, 48, 8192, 16, SCALING),
    "e": Size(1792, 56, 15360, 16, "PaLI, arXiv:2209.06794, table 7"),
    "So400m": Size(1152, 27, 4304, 16, "SoViT, arXiv:2305.13035, section 4"),
}


class Stem(NamedTuple):
    """What a hybrid has in front of its encoder.

    Attributes:
      blocks: units in each stage of a ResNet; none for its root alone.
      patch_size: side of a patch in the feature maps.
    """

    blocks: tuple[int, ...]
    patch_size: int


# R50+*/16 moves the units of the fourth stage into the third: ViT, section 4.1.
HYBRIDS: dict[str, Stem] = {
    "R50+ViT-B/16": Stem((3, 4, 9), 1),
    "R50+ViT-B/32": Stem((3, 4, 6, 3), 1),
    "R50+ViT-L/16": Stem((3, 4, 9), 1),
    "R50+ViT-L/32": Stem((3, 4, 6, 3), 1),
    "R26+ViT-S/32": Stem((2, 2, 2, 2), 1),
    "R+ViT-Ti/16": Stem((), 8),
}


def stem_reduction(blocks: tuple[int, ...]) -> int:
    """Pixels, in each direction, that make one place of a hybrid's feature maps."""
    return 4 * 2 ** max(len(blocks) - 1, 0)


def hybrid_fields(name: str) -> dict[str, Any]:
    """Constructor fields of a hybrid: those of ``fields``, and ``stem_blocks``.

    Raises:
      UserError: not in ``HYBRIDS``.
    """
    stem = pick(HYBRIDS, name, "hybrid")
    size = name.partition("+")[2]
    return {**fields(size), "patch_size": stem.patch_size, "stem_blocks": stem.blocks}


def fields(name: str) -> dict[str, int]:
    """Constructor fields of a size with any patch size.

    Args:
      name: ``"L/16"`` or ``"ViT-L/16"``.

    Returns:
      ``width, depth, mlp_dim, num_heads, patch_size``.

    Raises:
      UserError: not ``SIZE/PATCH``, or an unknown size (with the nearest names).
    """
    match = re.fullmatch(r"(?:ViT-)?([^/]+)/([1-9]\d*)", name)
    if match is None:
        raise UserError(f'ViT size: expected SIZE/PATCH such as "L/16", got "{name}". Sizes: {", ".join(SIZES)}.')
    size = pick(SIZES, match[1], f'ViT size in "{name}"')
    return {
        "width": size.width,
        "depth": size.depth,
        "mlp_dim": size.mlp_dim,
        "num_heads": size.num_heads,
        "patch_size": int(match[2]),
    }
