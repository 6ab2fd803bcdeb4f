"""What a ViT learned, as arrays to draw: how far heads look, filters, positions. NumPy alone.

Where it looks is in ``vitax.attention_map``.

Reference: ViT, arXiv:2010.11929, figures 7 (filters, positions, distance) and 11 (distance
by head).
"""

import numpy as np


def attention_distance(weights: np.ndarray, grid: tuple[int, int], patch: tuple[int, int]) -> np.ndarray:
    """Mean distance over which each head attends, in pixels, between centres of patches.

    Args:
      weights: float [B, N, T, T]; the patches are the last tokens, others are left out.
      grid: (rows, columns) of patches.
      patch: (height, width) of a patch in pixels.

    Returns:
      float [N].
    """
    count = grid[0] * grid[1]
    at = np.stack(np.meshgrid(*(np.arange(n) for n in grid), indexing="ij"), -1).reshape(-1, 2) * np.asarray(patch)
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1)
    between = weights[..., -count:, -count:].astype(np.float64)
    between = between / np.maximum(between.sum(-1, keepdims=True), 1e-12)
    return (between * distance).sum(-1).mean((0, 2))


def patch_filters(kernel: np.ndarray, shown: int = 28) -> np.ndarray:
    """Principal components of the filters of the patch embedding.

    Args:
      kernel: float (P, Q, C, D).
      shown: how many.

    Returns:
      float [shown or fewer, P, Q, C], largest variance first.
    """
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    _, _, components = np.linalg.svd(filters - filters.mean(0), full_matrices=False)
    return components[:shown].reshape(-1, *kernel.shape[:3])


def position_similarity(positions: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cosine similarity of every patch's position embedding with every other's.

    Args:
      positions: float [1, slots, D]; the patches are the last slots.
      grid: (rows, columns).

    Returns:
      float [rows, columns, rows, columns].
    """
    table = positions[0, -grid[0] * grid[1] :].astype(np.float64)
    table = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    return (table @ table.T).reshape(*grid, *grid)
