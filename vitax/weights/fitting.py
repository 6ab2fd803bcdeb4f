"""Parameters of one size into a model of another: positions, slots of cls, patch kernels; contexts of text."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.layers.embed import resample_kernel, resample_positions
from vitax.models.vit_sizes import stem_reduction

Size = int | tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Fit:
    """How arrays of a source become those of a model.

    Models without positions need none of it.

    Attributes:
      model: a ViT, or a model of text.
      image_size: (height, width) of its images; None for text.
      source_cls: whether the source has a cls token, and so a slot for it.
      source_grid: (rows, columns) of its patches; None where nothing says it.
      positions: method of ``resample_positions``.
      patches: method of ``resample_kernel``.
    """

    model: Any
    image_size: tuple[int, int] | None
    source_cls: bool
    source_grid: tuple[int, int] | None = None
    positions: Any = "corner_linear"
    patches: Any = "bilinear"

    def table(self) -> Mapping[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]]:
        """Name of a parameter -> function of its array and the shape wanted."""
        if self.image_size is None:
            return {"pos_embedding": first_positions, "embedding/position": first_positions}
        return {"pos_embedding": self.position_table, "embedding/kernel": self.kernel}

    def position_table(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Positions for the grid of the model, with a slot for cls where it has one.

        A slot that the model lacks is dropped; one that the source lacks is zeros.
        """
        slots = int(self.source_cls)
        assert self.image_size is not None
        target = self.model.grid(self.image_size)
        source = self._source_grid(array.shape[1] - slots, target)
        wants = shape[1] - target[0] * target[1]
        if source == target and wants == slots:
            return array
        array = np.asarray(array)
        table = resample_positions(array[:, slots:], source, target, self.positions)
        if not wants:
            return table
        first = array[:, :1] if slots else np.zeros_like(array[:, :1])
        return np.concatenate([first, table], 1)

    def kernel(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The kernel of the patch embedding for the patch size of the model."""
        if array.shape[:2] == shape[:2]:
            return array
        return resample_kernel(np.asarray(array), (shape[0], shape[1]), self.patches)

    def _source_grid(self, patches: int, target: tuple[int, int]) -> tuple[int, int]:
        if self.source_grid is not None and self.source_grid[0] * self.source_grid[1] == patches:
            return self.source_grid
        if patches == target[0] * target[1]:
            return target
        side = math.isqrt(patches)
        if side * side != patches:
            raise UserError(
                f"init_from: {patches} position embeddings are no square grid; start them afresh with "
                '--config.init_from.reset=\'("^head/", "pos_embedding")\'.'
            )
        return side, side


def first_positions(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The positions of a shorter context: float [longer, D] -> [shape[0], D]; one that is longer stays as it is."""
    return array if len(array) <= shape[0] else array[: shape[0]]


def stored_grid(recipe: Mapping[str, Any]) -> tuple[int, int] | None:
    """(rows, columns) of the patches of a recipe's images, where it says so."""
    model = recipe.get("model", {})
    size, patch = recipe.get("data", {}).get("image_size"), model.get("patch_size")
    if size is None or patch is None:
        return None
    (height, width), (p, q) = ((x, x) if isinstance(x, int) else tuple(x) for x in (size, patch))
    # A hybrid's patches count places of its stem's maps.
    each = stem_reduction(model.get("stem_blocks") or ()) if model.get("kind") == "hybrid" else 1
    return height // (p * each), width // (q * each)
