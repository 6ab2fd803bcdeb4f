"""What the model looks at and what it learned: attention, distances, filters, positions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vitax import attention_map, inspection
from vitax.core import axes, tree
from vitax.core.types import TrainState
from vitax.recipe import Recipe
from vitax.report import page
from vitax.report.page import Section
from vitax.train.program import Program

# Images drawn, and images that distances are averaged over (the paper: 128).
_SHOWN, _AVERAGED = 6, 32
# Attention of all blocks for so many tokens squared, heads and blocks, at most, in elements.
_MOST_ELEMENTS = 64_000_000


def sections(
    recipe: Recipe, program: Program, state: TrainState, images: np.ndarray, figures: Path
) -> Iterator[Section]:
    """Figures of a ViT; nothing for other families.

    Args:
      recipe, program, state: of the checkpoint.
      images: uint8 [B, H, W, C], as evaluation sees them.
      figures: folder for the PNGs.
    """
    model: Any = recipe.model()
    if not hasattr(model, "grid"):
        return
    grid = model.grid(recipe.data.size)
    params = dict(tree.named_leaves(state.params))
    weights = _attention(recipe, program, state, images)
    if weights is not None:
        yield "Attention", _maps(weights, images, grid, model.pool, figures)
        patch = tuple(s // g for s, g in zip(recipe.data.size, grid))
        yield "Attention distance", _distances(weights, grid, patch, figures)
    kernel = np.asarray(params["embedding/kernel"])
    if kernel.shape[2] == recipe.data.channels:  # a hybrid's patches are of feature maps, which are no pictures
        yield "Patch filters", _filters(kernel, figures)
    if "pos_embedding" in params:
        yield "Position embeddings", _positions(np.asarray(params["pos_embedding"]), grid, figures)


def _attention(recipe: Recipe, program: Program, state: TrainState, images: np.ndarray) -> list[np.ndarray] | None:
    """float32 [B, N, T, T] of each block, of a few images; None where that would be too large."""
    model: Any = recipe.model()
    tokens = model.num_tokens(recipe.data.size)
    count = min(_AVERAGED, len(images), _MOST_ELEMENTS // (tokens**2 * model.num_heads * model.depth))
    if count < 1:
        return None
    ways = program.rules.batch_ways(program.mesh)
    padded = -(-count // ways) * ways
    local = {
        "image": np.resize(images[:count], (padded, *images.shape[1:])),
        "label": np.zeros(padded, np.int32),
        "mask": np.ones(padded, bool),
        "index": np.zeros(padded, np.int32),
    }

    @jax.jit
    def look(params: Any, mutables: Any, batch: Any) -> Mapping[str, jax.Array]:
        objective: Any = program.objective
        with axes.resolving(program.rules.resolver(program.mesh)):
            prepared = objective.prepare(batch, jax.random.key(0), train=False)
            found = objective.forward({"params": params, **mutables}, prepared, return_attention=True)
        return {k: v for k, v in found.intermediates.items() if k.startswith("attention_")}

    found = jax.device_get(look(state.params, state.mutables, program.put(local)))
    return [found[name][:count] for name in sorted(found)]


def _maps(weights: list[np.ndarray], images: np.ndarray, grid: tuple[int, int], pool: str, figures: Path) -> str:
    count = min(_SHOWN, len(weights[0]))
    named: dict[str, Any] = {f"attention_{i:02d}": block[:count] for i, block in enumerate(weights)}
    last, through = (np.asarray(m).reshape(-1, *grid) for m in attention_map.maps_of(named, pool, grid[0] * grid[1]))
    drawn = page.new_figure(1.75 * count, 5.4)
    lines = drawn.subplots(3, count, squeeze=False)
    for i in range(count):
        image = page.pixels(images[i])
        for axis, seen in zip(lines[:, i], (None, last[i], through[i])):
            axis.axis("off")
            axis.imshow(image, cmap="gray")
            if seen is not None:
                axis.imshow(attention_map.overlay(seen, image.shape[:2]), cmap="inferno", alpha=0.55)
    for axis, text in zip(lines[:, 0], ("image", "last block", "rollout")):
        axis.set_title(text, fontsize=9, loc="left")
    who = "the class token" if pool == "tok" else "the mean over tokens"
    note = f"Where {who} attends: the last block, heads averaged, and rollout through all blocks (ViT, figure 6)."
    return page.figure(drawn, figures / "attention.png", "Attention on sample images", note)


def _distances(weights: list[np.ndarray], grid: tuple[int, int], patch: tuple[int, int], figures: Path) -> str:
    drawn = page.new_figure(7, 3.2)
    axis = drawn.subplots()
    for depth, block in enumerate(weights):
        distance = np.sort(inspection.attention_distance(block, grid, patch))
        axis.scatter([depth] * len(distance), distance, s=14, color="#4c78a8", alpha=0.8)
    axis.set(xlabel="block", ylabel="mean distance, pixels", xticks=range(len(weights)))
    axis.set_ylim(0, 1.08 * axis.get_ylim()[1])
    axis.grid(alpha=0.3)
    note = f"One point a head, mean over {len(weights[0])} images (ViT, figures 7 right and 11)."
    return page.figure(drawn, figures / "attention_distance.png", "Attention distance by head and depth", note)


def _filters(kernel: np.ndarray, figures: Path) -> str:
    found = inspection.patch_filters(kernel)
    columns = 7
    drawn = page.new_figure(6, 0.9 * -(-len(found) // columns))
    page.gallery(drawn.subplots(-(-len(found) // columns), columns, squeeze=False), list(found), [""] * len(found))
    note = "Principal components of the patch embedding's filters, each scaled to its own range (ViT, figure 7 left)."
    return page.figure(drawn, figures / "filters.png", "Filters of the patch embedding", note)


def _positions(positions: np.ndarray, grid: tuple[int, int], figures: Path) -> str:
    similar = inspection.position_similarity(positions, grid)
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, 7)).round().astype(int)) for n in grid)
    drawn = page.new_figure(0.8 * len(columns) + 0.8, 0.8 * len(rows) + 0.3)
    lines = drawn.subplots(len(rows), len(columns), squeeze=False)
    for axis, (r, c) in zip(lines.flat, ((r, c) for r in rows for c in columns)):
        shown = axis.imshow(similar[r, c], vmin=-1, vmax=1, cmap="viridis")
        axis.set_xticks([])
        axis.set_yticks([])
    drawn.colorbar(shown, ax=lines, shrink=0.8)
    note = (
        "Cosine similarity of one patch's position embedding (its place in the grid) with all (ViT, figure 7 centre)."
    )
    return page.figure(drawn, figures / "positions.png", "Similarity of position embeddings", note)
