"""What a ViT learned, as arrays to draw: attention, filters, positions. NumPy alone.

Reference: ViT, arXiv:2010.11929, figures 6 (attention), 7 (filters, positions, distance)
and 11 (distance by head).
"""

from collections.abc import Sequence

import numpy as np


def token_attention(weights: np.ndarray, grid: tuple[int, int], front: int) -> np.ndarray:
    """How much each patch is looked at by the token that is classified.

    Args:
      weights: float [T, T], queries by keys: one block's, averaged over heads, or a rollout.
      grid: (rows, columns) of patches, the last tokens.
      front: tokens before them; with none, the mean over all queries (pooling by mean).

    Returns:
      float [rows, columns].
    """
    row = weights[0] if front else weights.mean(0)
    return row[front:].reshape(grid)


def rollout(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Attention followed through all blocks, residual connections counted as attending to oneself.

    Args:
      weights: of each block, float [N, T, T].

    Returns:
      float [T, T]; each row sums to 1.

    Reference: Abnar and Zuidema, arXiv:2005.00928, section 3; heads are averaged, as in
    ViT's figure 6.
    """
    total = np.eye(weights[0].shape[-1])
    for block in weights:
        mixed = 0.5 * block.astype(np.float64).mean(0) + 0.5 * np.eye(block.shape[-1])
        total = mixed / mixed.sum(-1, keepdims=True) @ total
    return total


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
