"""Published sizes of BiT, as data. Imports neither JAX nor Flax."""

import re
from typing import Any

from vitax.core.errors import UserError, pick

# Layers -> units in each stage. He et al., arXiv:1512.03385, table 1; 200: arXiv:1603.05027, table 4.
BLOCKS: dict[str, tuple[int, ...]] = {
    "R26": (2, 2, 2, 2),
    "R50": (3, 4, 6, 3),
    "R101": (3, 4, 23, 3),
    "R152": (3, 8, 36, 3),
    "R200": (3, 24, 36, 3),
}
# BiT, arXiv:1912.11370: published weights; then the baselines of ViT,
# arXiv:2010.11929, table 6 (ResNet50x1 ... ResNet200x3), as far as they are others.
NAMES = (
    *("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4"),
    *("R50x2", "R152x1", "R200x3"),
)


def fields(name: str) -> dict[str, Any]:
    """Constructor fields of a size with any width factor.

    Args:
      name: ``"R152x4"`` or ``"BiT-R152x4"``.

    Returns:
      ``blocks, width_factor``.

    Raises:
      UserError: not ``DEPTHxFACTOR``, or an unknown depth.
    """
    match = re.fullmatch(r"(?:BiT-)?(R\d+)x([1-9]\d*)", name)
    if match is None:
        raise UserError(f'BiT size: expected DEPTHxFACTOR such as "R152x4", got "{name}". Depths: {", ".join(BLOCKS)}.')
    return {"blocks": pick(BLOCKS, match[1], f'BiT size in "{name}"'), "width_factor": int(match[2])}
