"""Where a ViT looks: attention of the last block and attention rollout, drawn over images."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.data.image_ops import resized
from vitax.evaluators.classification import make_forward
from vitax.predict import Predictor

# Rows of the drawing: more are too small to see, and too large to look at.
MOST_DRAWN = 16

Maps = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def rollout(attention: jax.Array) -> jax.Array:
    """Attention through all blocks: the product of (A + I) / 2 over them.

    Args:
      attention: float [L, T, T], of each block, averaged over heads; rows sum to 1.

    Returns:
      float32 [T, T]: row t says how much of each input token is in token t at the end.

    Reference: Abnar and Zuidema, arXiv:2005.00928, section 3; used for Figure 6 of ViT,
      arXiv:2010.11929 (appendix D.8).
    """
    total = jnp.eye(attention.shape[-1], dtype=jnp.float32)
    for layer in attention:
        mixed = 0.5 * layer.astype(jnp.float32) + 0.5 * jnp.eye(layer.shape[-1], dtype=jnp.float32)
        total = (mixed / mixed.sum(-1, keepdims=True)) @ total
    return total


def maps_of(intermediates: Mapping[str, jax.Array], pool: str, num_patches: int) -> tuple[jax.Array, jax.Array]:
    """What the pooled token attends to: (last block, rollout), each float32 [B, patches].

    Args:
      intermediates: with ``attention_00``..., float [B, N, T, T].
      pool: ``tok``: the row of the cls token; else the mean over the patch tokens, which
        is what ``gap`` pools (for ``map`` it leaves the pooling's own weights out).
      num_patches: the last of the T tokens.
    """
    names = sorted(name for name in intermediates if name.startswith("attention_"))
    layers = jnp.stack([intermediates[name].astype(jnp.float32).mean(1) for name in names], axis=1)  # [B, L, T, T]

    def seen(weights: jax.Array) -> jax.Array:
        row = weights[:, 0] if pool == "tok" else weights[:, -num_patches:].mean(1)
        return row[:, -num_patches:]

    return seen(layers[:, -1]), seen(jax.vmap(rollout)(layers))


def make_maps(predictor: Predictor) -> Maps:
    """image uint8 [H, W, C] -> (last block, rollout), each float32 [rows, columns] of patches.

    Raises:
      UserError: a model without attention.
    """
    objective: Any = predictor.program.objective
    model = objective.model
    if not hasattr(model, "pool") or not hasattr(model, "grid"):
        raise UserError(
            f'--attention: the model kind "{predictor.recipe.config["model"]["kind"]}" has no attention to draw; '
            "expected a vit or a hybrid."
        )
    grid = model.grid(predictor.spec.size)

    def pick(output: ModelOutput) -> Any:
        return maps_of(output.intermediates, model.pool, grid[0] * grid[1])

    forward = make_forward(predictor.program, pick, return_attention=True)
    # One image at a time: the weights of L/16 at 384 px are 0.5 GB an image.
    size = predictor.program.rules.batch_ways(predictor.program.mesh)

    def maps(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        state = predictor.state
        last, rolled = forward(state.params, state.mutables, predictor.batch([image], size))
        return np.asarray(last)[0].reshape(grid), np.asarray(rolled)[0].reshape(grid)

    return maps


def draw(path: pathlib.Path, predictor: Predictor, maps: Maps, rows: Sequence[Mapping[str, Any]]) -> int:
    """Draws a row for each image: as the model sees it, and both maps over it.

    Args:
      path: of the picture.
      predictor: of the checkpoint.
      maps: from ``make_maps``.
      rows: of ``Predictor.row``; at most ``MOST_DRAWN`` are drawn.

    Returns:
      How many were drawn.
    """
    from matplotlib.figure import Figure

    rows = rows[:MOST_DRAWN]
    across = 1 if len(rows) <= 3 else 2  # images side by side
    down = -(-len(rows) // across)
    figure = Figure(figsize=(8.0 * across, 2.9 * down + 0.6), layout="constrained", dpi=100)
    panels = figure.subplots(down, 3 * across, squeeze=False)
    for axis in panels.flat:
        axis.set_axis_off()
    for row, line in zip(rows, panels.reshape(-1, 3)):
        image = predictor.prepare(row["file"])
        assert not isinstance(image, UserError)
        best = row["topk"][0]
        titles = (
            f"{_short(row['file'])}\n{_short(best['label'])} {best['probability']:.0%}",
            "last block, mean of heads\n",
            "attention rollout\n",
        )
        for axis, title, values in zip(line, titles, (None, *maps(image))):
            axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
            if values is not None:
                axis.imshow(overlay(values, (image.shape[0], image.shape[1])), cmap="inferno", alpha=0.6)
                title += f"{values.min() / values.mean():.1f} to {values.max() / values.mean():.1f} of even"
            axis.set_title(title, fontsize=10)
    pool = predictor.program.objective.model.pool  # type: ignore[attr-defined]
    query = "the class token attends" if pool == "tok" else "the patch tokens, on average, attend"
    figure.supxlabel(f"What {query} to: dark = least, bright = most of each map", fontsize=10)
    figure.savefig(path)
    return len(rows)


def overlay(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of patches at the size of the image, float32 scaled to 0..1, smoothed between patches."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-12)
    return resized(scaled.astype(np.float32)[..., None], *size, "bicubic")[..., 0].clip(0, 1)


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else "..." + text[3 - most :]
