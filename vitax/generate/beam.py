"""Beam search with a length penalty, over the same cached decoding as sampling."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vitax.generate.decoding import Model, Why, bucket, padded, prefill, reason

Array = jax.Array

# Candidates and alpha: Vaswani et al., arXiv:1706.03762, section 6.1.
BEAMS, LENGTH_PENALTY = 4, 0.6
NEVER = -1e9


class Best(NamedTuple):
    """What a search found for one prompt.

    Attributes:
      tokens: without the prompt and the token that ended them.
      score: log probability over the length penalty.
      why: they end.
    """

    tokens: list[int]
    score: float
    why: Why


def penalty(length: Array, alpha: Array) -> Array:
    """((5 + length) / 6)^alpha, which log probabilities are divided by.

    Args:
      length: tokens, the end token among them.
      alpha: 0 compares bare log probabilities, which favours short texts.

    Reference: Wu et al., arXiv:1609.08144, equation 14.
    """
    return ((5.0 + length) / 6.0) ** alpha


class BeamSearch:
    """Continues prompts by the likeliest texts that a beam of candidates finds.

    Candidates are extended by one token at a time; those that end leave the beam, and the
    search of a prompt stops when no open candidate can beat the worst of as many ended
    ones as the beam is wide.

    Args:
      model: see ``generate.decoding.Model``.
      beams: candidates a prompt, at least 1 (1 is greedy decoding).

    Reference: Wu et al., arXiv:1609.08144, section 7; Vaswani et al., arXiv:1706.03762,
      section 6.1.
    """

    def __init__(self, model: Model, beams: int = BEAMS):
        self.model, self.beams = model, beams
        self.compiled = jax.jit(self._run, static_argnames="slots", out_shardings=model.whole)

    def __call__(
        self,
        variables: Any,
        prompts: Sequence[Sequence[int]],
        max_tokens: int | Sequence[int],
        alpha: float = LENGTH_PENALTY,
        source: tuple[np.ndarray, np.ndarray] | None = None,
        min_tokens: int = 0,
    ) -> list[Best]:
        """The best continuation of each prompt.

        Args:
          variables: of the model.
          prompts: token ids, at least one each.
          max_tokens: the longest continuation, of all or of each.
          alpha: see ``penalty``.
          source: of an encoder-decoder: int32 [B, S], and bool [B, S] that is False at padding.
          min_tokens: the shortest continuation.

        Raises:
          UserError: a prompt that is empty or leaves no room in the context.
        """
        tokens, lengths = padded(self.model, prompts)
        asked = np.broadcast_to(max_tokens, lengths.shape)
        limits = np.minimum(asked, self.model.context - lengths).astype(np.int32)
        slots = bucket(min(int((lengths + limits).max()), self.model.context), self.model.context)
        made, counts, scores = jax.device_get(
            self.compiled(
                variables, tokens, lengths, limits, np.float32(alpha), source, np.int32(min_tokens), slots=slots
            )
        )
        return [
            Best(row[:count].tolist(), float(score), reason(count, limit, most))
            for row, count, score, limit, most in zip(made, counts, scores, limits, asked)
        ]

    def _run(
        self,
        variables: Any,
        tokens: Array,
        lengths: Array,
        limits: Array,
        alpha: Array,
        source: tuple[Array, Array] | None,
        min_tokens: Array,
        slots: int,
    ) -> tuple[Array, Array, Array]:
        """Tokens int32 [B, slots], how many count int32 [B], scores float32 [B]."""
        batch, beams, end = tokens.shape[0], self.beams, self.model.end
        logits, cache = prefill(self.model, variables, tokens, lengths, slots, source)
        logits, cache, starts = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), (logits, cache, lengths))
        longest = penalty(limits.astype(jnp.float32), alpha)[:, None]

        def unfinished(carry: Any) -> Array:
            n, _, scores, _, done_scores, *_ = carry
            # The best that an open candidate can become: no token raises a log probability.
            open_ = (scores / longest).max(1) > done_scores.min(1)
            return jnp.any(open_ & (n < limits))

        def step(carry: Any) -> Any:
            n, made, scores, done, done_scores, done_counts, logits, cache = carry
            log_p = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch, beams, -1)
            log_p = log_p.at[:, :, end].add(jnp.where(n < min_tokens, 2 * NEVER, 0.0))
            vocab = log_p.shape[-1]
            # Twice as many as stay: at most one of a candidate's extensions ends it.
            total, index = lax.top_k((scores[:, :, None] + log_p).reshape(batch, -1), 2 * beams)
            parent, token = index // vocab, (index % vocab).astype(jnp.int32)
            extended = jnp.take_along_axis(made, parent[:, :, None], 1).at[:, :, n].set(token)
            alive, ends = (n < limits)[:, None], token == end
            # At the limit every candidate is as long as it may be, ended or not.
            last = (n + 1 == limits)[:, None]
            finished = jnp.where(ends & alive, total / penalty(n + 1.0, alpha), NEVER)
            cut = jnp.where(~ends & last & alive, total / penalty(n + 1.0, alpha), NEVER)
            # Unfinished texts count only where there are not enough finished ones.
            cut = jnp.where((jnp.maximum(done_scores.max(1), finished.max(1)) > NEVER)[:, None], NEVER, cut)
            candidate = jnp.maximum(finished, cut)
            count = jnp.where(ends, n, n + 1)
            done_scores, best = lax.top_k(jnp.concatenate([done_scores, candidate], 1), beams)
            done = jnp.take_along_axis(jnp.concatenate([done, extended], 1), best[:, :, None], 1)
            done_counts = jnp.take_along_axis(jnp.concatenate([done_counts, count], 1), best, 1)
            scores, stay = lax.top_k(jnp.where(ends | ~alive, NEVER, total), beams)
            made = jnp.take_along_axis(extended, stay[:, :, None], 1)
            parent, token = (jnp.take_along_axis(x, stay, 1) for x in (parent, token))
            cache = _of_parents(cache, parent)
            position = (starts + n)[:, None]
            output = self.model.decode(variables, token.reshape(-1, 1), position, cache)
            assert output.logits is not None
            return n + 1, made, scores, done, done_scores, done_counts, output.logits[:, 0], output.cache

        blank = jnp.full((batch, beams, slots), end, jnp.int32)
        scores = jnp.full((batch, beams), NEVER).at[:, 0].set(0.0)  # all beams begin as one
        none = jnp.full((batch, beams), NEVER)
        counts = jnp.zeros((batch, beams), jnp.int32)
        start = (jnp.int32(0), blank, scores, blank, none, counts, logits, cache)
        _, _, _, done, done_scores, done_counts, *_ = lax.while_loop(unfinished, step, start)
        return done[:, 0], done_counts[:, 0], done_scores[:, 0]


def _of_parents(cache: Any, parent: Array) -> Any:
    """The cache of the candidates that stay, ``parent`` int32 [B, beams] theirs."""

    def of(x: Array) -> Array:
        # Within a prompt, so that the partitioner sees that no row leaves its device.
        index = parent.reshape(*parent.shape, *(1,) * (x.ndim - 1))
        return jnp.take_along_axis(x.reshape(*parent.shape, *x.shape[1:]), index, 1).reshape(x.shape)

    return cache.map_written(of) if hasattr(cache, "map_written") else jax.tree.map(of, cache)
