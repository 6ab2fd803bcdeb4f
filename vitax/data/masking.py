"""Which tokens a masked language model predicts, and what it sees in their place."""

from typing import NamedTuple

import numpy as np

from vitax.data import order

# Of the chosen tokens: hidden behind [MASK], left as they are; the rest become random ones.
HIDDEN, KEPT = 0.8, 0.1


class Masked(NamedTuple):
    """Masked examples.

    Attributes:
      tokens: int32 [B, T], what the model sees.
      positions: int32 [B, M], the chosen places in rising order, 0 where none is left.
      targets: int32 [B, M], the tokens that stood there.
      weights: float32 [B, M], 1 for a chosen place, 0 where none is left.
    """

    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def mask(
    tokens: np.ndarray,
    maskable: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    positions: np.ndarray,
    *,
    seed: int,
    rate: float,
    most: int,
    mask_id: int,
    vocab_size: int,
) -> Masked:
    """Chooses ``round(rate * lengths)`` tokens, from one to ``most``, and hides them.

    Args:
      tokens: int32 [B, T].
      maskable: bool [B, T], False for special tokens and padding.
      starts: bool [B, T], where what is chosen together begins: every token, or the first
        piece of every word. A word is taken whole or not at all; one that would be too
        much is passed over.
      lengths: int64 [B], tokens of each example; special ones count, as in the authors' code.
      positions: int64 [B], global positions that key the draws.
      seed: of the run.
      rate: share of the tokens.
      most: M, at most so many.
      mask_id: of ``[MASK]``.
      vocab_size: random tokens are any of these, as in the authors' code.

    Reference: Devlin et al., arXiv:1810.04805, section 3.1 (80% masks, 10% random, 10%
    kept); whole words as in their repository's later models.
    """
    rows, length = tokens.shape
    wanted = np.clip(np.round(rate * lengths).astype(np.int64), 1, most)
    chosen = _choose(maskable, starts & maskable, order.uniforms(seed, "masked", positions, length), wanted)
    at = np.zeros((rows, most), np.int64)
    row, place = np.nonzero(chosen)
    slot = (np.cumsum(chosen, 1) - 1)[row, place]
    at[row, slot] = place
    weights = np.zeros((rows, most), np.float32)
    weights[row, slot] = 1
    targets = np.where(weights > 0, np.take_along_axis(tokens, at, 1), 0)
    u = order.uniforms(seed, "replaced", positions, 2 * length)
    what, token = u[row, place], (u[row, length + place] * vocab_size).astype(np.int32)
    seen = tokens.copy()
    seen[row, place] = np.where(
        what < HIDDEN, np.int32(mask_id), np.where(what < HIDDEN + KEPT, tokens[row, place], token)
    )
    return Masked(seen, at.astype(np.int32), targets.astype(np.int32), weights)


def _choose(maskable: np.ndarray, starts: np.ndarray, scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """bool [B, T]: words in the order of their scores, as long as they fit."""
    chosen = np.zeros(maskable.shape, bool)
    if (starts == maskable).all():  # words of one token all fit: take the lowest scores
        rank = np.argsort(np.argsort(np.where(maskable, scores, 2.0), 1, kind="stable"), 1)
        return (rank < wanted[:, None]) & maskable
    for row, most in enumerate(wanted):
        places = np.flatnonzero(maskable[row])
        words = np.cumsum(starts[row, places]) - 1
        sizes = np.bincount(words)
        left = int(most)
        for word in np.argsort(scores[row, places[starts[row, places]]], kind="stable"):
            if sizes[word] <= left:
                chosen[row, places[words == word]] = True
                left -= sizes[word]
            if not left:
                break
    return chosen
