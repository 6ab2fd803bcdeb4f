"""Losses and their measures: arrays -> one float32 number an example.

All of them take logits in any float dtype, compute in float32, and leave averaging to
``Mean``. Labels are trusted: a label outside 0..classes-1 (hosts check labels where data
enters) counts as no class at all, which is finite and never correct.
"""

import jax
import jax.numpy as jnp


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """``-sum_c q_c log softmax(logits)_c`` with ``q = (1 - s) target + s / classes``.

    Args:
      logits: float [..., C].
      targets: int labels [...], or probabilities [..., C].
      label_smoothing: s, from 0 to 1; the uniform part covers all classes, the right one
        included (Szegedy et al., arXiv:1512.00567, section 7).

    Returns:
      float32 [...].
    """
    logits = logits.astype(jnp.float32)
    # Shifted by the maximum before anything is subtracted, so that large logits lose no digits.
    shifted = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    log_sum = jnp.log(jnp.exp(shifted).sum(axis=-1))
    if targets.ndim == logits.ndim:
        targets = targets.astype(jnp.float32)
        weight = targets.sum(axis=-1)
        # A class of probability 0 may have a logit of -inf (a masked one).
        picked = jnp.where(targets == 0, 0.0, targets * shifted).sum(axis=-1)
    else:
        weight = jnp.float32(1.0)
        picked = _of_label(shifted, targets)
    if not label_smoothing:
        return weight * log_sum - picked
    keep = 1.0 - label_smoothing
    return (keep * weight + label_smoothing) * log_sum - keep * picked - label_smoothing * shifted.mean(axis=-1)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """One binary decision a class, summed (not averaged) over classes.

    ``-sum_c [t_c log sigmoid(x_c) + (1 - t_c) log sigmoid(-x_c)]``. The loss of ViT's
    pre-training; the sum keeps the gradient of a class independent of their number, and
    makes the head's initial bias of -10 matter.

    Args:
      logits: float [..., C].
      targets: int labels [...], or values from 0 to 1 [..., C], several of which may be 1.

    Returns:
      float32 [...].

    Reference: ViT's authors on public threads; Beyer et al., arXiv:2006.07159.
    """
    logits = logits.astype(jnp.float32)
    # log(1 + exp(x)) without overflow; the classes that are off cost this, those on minus x.
    off = jax.nn.softplus(logits).sum(axis=-1)
    if targets.ndim == logits.ndim:
        return off - (targets.astype(jnp.float32) * logits).sum(axis=-1)
    return off - _of_label(logits, targets)


def topk_correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """1 where the label is among the k largest logits, else 0.

    Equal logits rank by class, the lower first, as ``argmax`` and ``lax.top_k`` rank them:
    a model whose logits are all equal is right on the k first classes alone. A row with a
    NaN is never right.

    Args:
      logits: float [..., C].
      labels: int [...].
      k: at least 1; from the number of classes on, every row without a NaN is right.

    Returns:
      float32 [...], 0 or 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}.")
    classes = _classes(logits)
    label = labels[..., None]
    own = jnp.where(classes == label, logits, 0).sum(axis=-1, keepdims=True)
    ahead = (logits > own) | ((logits == own) & (classes < label))
    valid = (labels >= 0) & (labels < logits.shape[-1]) & ~jnp.isnan(logits).any(axis=-1)
    return (valid & (ahead.sum(axis=-1) < k)).astype(jnp.float32)


def _classes(logits: jax.Array) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def _of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """values [..., C] at labels [...]; a selection, which unlike a gather shards over classes."""
    return jnp.where(_classes(values) == labels[..., None], values, 0.0).sum(axis=-1)
