"""Mixup and CutMix: whole batches on the device, before they are split.

One weight (mixup) or one box (CutMix) a batch, as big_vision and timm's batch mode have
it: a batch then mixes evenly and the box is one select. The partner of row i is row i - 1
(``jnp.roll``): batches are shuffled, so it is as random as a permutation, and on a mesh a
device hands one row to its neighbour instead of gathering the batch.

What is drawn depends on the key alone, so it is the same however the batch is sharded.
"""

import jax
import jax.numpy as jnp

from vitax.core.errors import UserError


def mix(
    images: jax.Array,
    targets: jax.Array,
    rng: jax.Array,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    probability: float = 1.0,
    switch: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """Mixes a training batch with itself, rolled by one.

    Mixup (arXiv:1710.09412): ``lam x_i + (1 - lam) x_(i-1)`` with lam from Beta(alpha,
    alpha) and, as big_vision has it, never below 1/2 (``max(lam, 1 - lam)``), so that row i
    stays mostly itself. The paper and timm leave lam as drawn; over a batch the two differ
    in which of a pair's labels is the larger alone.

    CutMix (arXiv:1905.04899): a box of ``sqrt(1 - lam)`` of each side around a point drawn
    uniformly, cut off at the border, is taken from the partner. The targets' weight is the
    share of pixels outside the box as it is after that. The box may be above half of the
    image, as in the paper.

    Args:
      images: float [B, H, W, C]. All rows must be examples: padding would be mixed in.
      targets: float [B, classes].
      rng: key of this step.
      mixup_alpha: 0 for none. AugReg's 0.2, 0.5 and 0.8 go here: its table calls them
        probabilities, its code draws with them as concentrations.
      cutmix_alpha: 0 for none.
      probability: of mixing a batch at all.
      switch: where both are on, probability of CutMix.

    Returns:
      Images and targets, in their shapes and dtypes; with both alphas 0 the very inputs.

    Raises:
      UserError: a negative alpha, a probability outside 0 to 1.
    """
    for name, value in (("mixup", mixup_alpha), ("cutmix", cutmix_alpha)):
        if not value >= 0:
            raise UserError(f"objective.{name}: expected an alpha of at least 0 (0 = off), got {value!r}.")
    for name, value in (("probability", probability), ("switch", switch)):
        if not 0 <= value <= 1:
            raise UserError(f"mixing {name}: expected from 0 to 1, got {value!r}.")
    if not (mixup_alpha or cutmix_alpha):
        return images, targets

    lam_key, box_key, switch_key, any_key = jax.random.split(rng, 4)
    height, width = images.shape[1:3]
    # Share that a pixel keeps of its own image [H, W], and its mean over the image.
    keep = jnp.ones((height, width), jnp.float32)
    share = jnp.float32(1.0)
    if mixup_alpha:
        lam = jax.random.beta(lam_key, mixup_alpha, mixup_alpha, dtype=jnp.float32)
        share = jnp.maximum(lam, 1.0 - lam)
        keep = share * keep
    if cutmix_alpha:
        outside, outside_share = _cutmix(box_key, cutmix_alpha, height, width)
        cut = jax.random.uniform(switch_key) < switch if mixup_alpha else jnp.bool_(True)
        keep, share = jnp.where(cut, outside, keep), jnp.where(cut, outside_share, share)
    if probability < 1:
        mixed = jax.random.uniform(any_key) < probability
        keep, share = jnp.where(mixed, keep, 1.0), jnp.where(mixed, share, 1.0)
    return _blend(images, keep[None, :, :, None]), _blend(targets, share)


def _cutmix(rng: jax.Array, alpha: float, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """1 outside a random box and 0 inside [H, W], and the exact share of pixels outside."""
    lam_key, y_key, x_key = jax.random.split(rng, 3)
    side = jnp.sqrt(1.0 - jax.random.beta(lam_key, alpha, alpha, dtype=jnp.float32))

    def span(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        length = jnp.round(side * size).astype(jnp.int32)
        low = jax.random.randint(key, (), 0, size) - length // 2
        inside = (jnp.arange(size) >= low) & (jnp.arange(size) < low + length)
        return inside, inside.sum()

    rows, tall = span(y_key, height)
    columns, wide = span(x_key, width)
    outside = ~(rows[:, None] & columns[None, :])
    pixels = height * width
    return outside.astype(jnp.float32), (pixels - tall * wide).astype(jnp.float32) / pixels


def _blend(x: jax.Array, own: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    return (own * wide + (1.0 - own) * jnp.roll(wide, 1, axis=0)).astype(x.dtype)
