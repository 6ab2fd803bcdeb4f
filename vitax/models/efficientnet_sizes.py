"""Published sizes of EfficientNet, as data. Imports neither JAX nor Flax."""

import math
from typing import Any, NamedTuple

from vitax.core.errors import pick

PAPER = "EfficientNet, arXiv:1905.11946"
NOISY_STUDENT = "Noisy Student, arXiv:1911.04252"

# B0 before scaling: side of the kernel, stride, expansion, channels, blocks.
# Reference: arXiv:1905.11946, table 1; strides as in the authors' code, where each
# stands one row above the resolutions that the table prints.
STAGES: tuple[tuple[int, ...], ...] = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class Size(NamedTuple):
    """Scaling of an EfficientNet.

    Attributes:
      width_factor: of the channels of every layer.
      depth_factor: of the blocks of every stage.
      image_size: side of the training images in pixels.
      dropout: before the head.
      source: paper and section; the factors are in the authors' code.
    """

    width_factor: float
    depth_factor: float
    image_size: int
    dropout: float
    source: str


SIZES: dict[str, Size] = {
    "B0": Size(1.0, 1.0, 224, 0.2, f"{PAPER}, table 1"),
    "B1": Size(1.0, 1.1, 240, 0.2, f"{PAPER}, section 5.2"),
    "B2": Size(1.1, 1.2, 260, 0.3, f"{PAPER}, section 5.2"),
    "B3": Size(1.2, 1.4, 300, 0.3, f"{PAPER}, section 5.2"),
    "B4": Size(1.4, 1.8, 380, 0.4, f"{PAPER}, section 5.2"),
    "B5": Size(1.6, 2.2, 456, 0.4, f"{PAPER}, section 5.2"),
    "B6": Size(1.8, 2.6, 528, 0.5, f"{PAPER}, section 5.2"),
    "B7": Size(2.0, 3.1, 600, 0.5, f"{PAPER}, section 5.2"),
    "L2": Size(4.3, 5.3, 475, 0.5, f"{NOISY_STUDENT}, appendix A.1"),
}


def fields(name: str) -> dict[str, Any]:
    """Constructor fields of a size, without regularisation.

    Args:
      name: ``"B0"`` or ``"EfficientNet-B0"``.

    Returns:
      ``width_factor, depth_factor``.

    Raises:
      UserError: an unknown size, with the nearest names.
    """
    size = pick(SIZES, name.removeprefix("EfficientNet-"), "EfficientNet size")
    return {"width_factor": size.width_factor, "depth_factor": size.depth_factor}


def scaled_channels(channels: int, factor: float, divisor: int = 8) -> int:
    """Channels times a factor, to the nearest multiple of ``divisor`` that keeps at least 90% of them.

    Reference: the authors' code; the paper does not say how it rounds.
    """
    wanted = channels * factor
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def scaled_blocks(blocks: int, factor: float) -> int:
    """Blocks times a factor, rounded up."""
    return math.ceil(blocks * factor)
