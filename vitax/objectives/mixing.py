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

    # All that is random, in one draw: each draw costs compilation.
    lam, cut_lam, row, column, which, whether = jnp.split(jax.random.uniform(rng, (8,)), (2, 4, 5, 6, 7))
    height, width = images.shape[1:3]
    # Share that a pixel keeps of its own image [H, W], and its mean over the image.
    keep = jnp.ones((height, width), jnp.float32)
    share = jnp.float32(1.0)
    if mixup_alpha:
        share = symmetric_beta(lam, mixup_alpha)
        share = jnp.maximum(share, 1.0 - share)
        keep = share * keep
    if cutmix_alpha:
        side = jnp.sqrt(1.0 - symmetric_beta(cut_lam, cutmix_alpha))
        outside, outside_share = _outside(side, row, column, height, width)
        cut = which[0] < switch if mixup_alpha else jnp.bool_(True)
        keep, share = jnp.where(cut, outside, keep), jnp.where(cut, outside_share, share)
    if probability < 1:
        mixed = whether[0] < probability
        keep, share = jnp.where(mixed, keep, 1.0), jnp.where(mixed, share, 1.0)
    return _blend(images, keep[None, :, :, None]), _blend(targets, share)


def symmetric_beta(uniform: jax.Array, alpha: float) -> jax.Array:
    """Two uniform numbers [2] from [0, 1) -> one of Beta(alpha, alpha), float32.

    ``(1 + t / sqrt(2 alpha + t^2)) / 2`` with t from Student's distribution of 2 alpha
    degrees of freedom, by its polar method. ``jax.random.beta`` draws with rejection loops,
    which take about two seconds to compile.

    Reference: Bailey, Mathematics of Computation 62 (1994), 779-781.
    """
    log_w = jnp.log(uniform[0]) / alpha
    cosine = jnp.cos(2 * jnp.pi * uniform[1])
    # t^2 / (2 alpha) = far / near, never as a quotient that could overflow.
    near, far = jnp.exp(log_w), -jnp.expm1(log_w) * cosine**2
    return 0.5 * (1.0 + jnp.sign(cosine) * jnp.sqrt(far / (near + far)))


def _outside(
    side: jax.Array, row: jax.Array, column: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """1 outside the box and 0 inside [H, W], and the exact share of pixels outside.

    Args:
      side: of the box, over that of the image; scalar.
      row: centre, from 0 to below 1 of the height; [1].
      column: likewise of the width.
      height: pixels.
      width: pixels.
    """

    def span(centre: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        length = jnp.round(side * size).astype(jnp.int32)
        low = jnp.floor(centre * size).astype(jnp.int32) - length // 2
        inside = (jnp.arange(size) >= low) & (jnp.arange(size) < low + length)
        return inside, inside.sum()

    rows, tall = span(row, height)
    columns, wide = span(column, width)
    outside = ~(rows[:, None] & columns[None, :])
    pixels = height * width
    return outside.astype(jnp.float32), (pixels - tall * wide).astype(jnp.float32) / pixels


def _blend(x: jax.Array, own: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    return (own * wide + (1.0 - own) * jnp.roll(wide, 1, axis=0)).astype(x.dtype)
