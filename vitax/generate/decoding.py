"""Cached decoding: prompts in, continuations out, one compilation for each bucket of shapes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.generate.sampling import Sampling, sample

Array = jax.Array

SMALLEST_BUCKET = 16


class Model(NamedTuple):
    """What decoding needs of a language model.

    Attributes:
      decode: (variables, tokens [B, T], positions [B, T], cache) -> ``ModelOutput`` with
        logits [B, T, V] and cache, whose arrays have axis 0 = sequence. Of an
        encoder-decoder the first call takes the source besides.
      empty_cache: (batch size, slots) -> cache; of an encoder-decoder with the source's length.
      context: the longest sequence.
      end: the token that ends a document.
    """

    decode: Callable[..., ModelOutput]
    empty_cache: Callable[..., Any]
    context: int
    end: int


def bucket(length: int, limit: int) -> int:
    """The next power of two, at least ``SMALLEST_BUCKET`` and at most ``limit``."""
    return min(max(SMALLEST_BUCKET, 1 << (length - 1).bit_length()), limit)


def padded(model: Model, prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts int32 [B, a bucket] and their lengths int32 [B].

    Raises:
      UserError: a prompt that is empty or leaves no room in the context.
    """
    lengths = np.array([len(p) for p in prompts], np.int32)
    if not lengths.all():
        raise UserError("generate: a prompt holds no tokens.")
    longest = int(lengths.max())
    if longest >= model.context:
        raise UserError(
            f"--prompt: {longest} tokens with the mark in front, but the model has {model.context} positions "
            "(model.context). Shorten the prompt."
        )
    tokens = np.full((len(prompts), bucket(longest, model.context)), model.end, np.int32)
    for row, prompt in zip(tokens, prompts):
        row[: len(prompt)] = prompt
    return tokens, lengths


def prefill(
    model: Model, variables: Any, tokens: Array, lengths: Array, slots: int, source: tuple[Array, Array] | None
) -> tuple[Array, Any]:
    """Runs prompts: the logits [B, V] of what follows each, and the cache."""
    batch, width = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (batch, width))
    beside = () if source is None else (source,)
    cache = model.empty_cache(batch, slots, *(pair[0].shape[1] for pair in beside))
    output = model.decode(variables, tokens, positions, cache, *beside)
    assert output.logits is not None
    return output.logits[jnp.arange(batch), lengths - 1], output.cache


class Decoder:
    """Continues prompts.

    Example i of a call draws with ``fold_in(seed, i, step)``: a continuation depends
    neither on its neighbours nor on the bucket.

    Args:
      model: see ``Model``.
    """

    def __init__(self, model: Model):
        self.model = model
        self.compiled = jax.jit(self._run, static_argnames="slots")

    def __call__(
        self, variables: Any, prompts: Sequence[Sequence[int]], max_tokens: int, sampling: Sampling, seed: int = 0
    ) -> list[list[int]]:
        """Continuations, without the token that ended them.

        Args:
          variables: of the model.
          prompts: token ids, at least one each.
          max_tokens: the longest continuation; those that fill the context end there.
          sampling: how tokens are drawn.
          seed: of the draws.

        Raises:
          UserError: a prompt that is empty or leaves no room in the context.
        """
        model = self.model
        tokens, lengths = padded(model, prompts)
        slots = bucket(min(int(lengths.max()) + max_tokens, model.context), model.context)
        limits = np.minimum(max_tokens, model.context - lengths).astype(np.int32)
        key = jax.random.key(seed)
        made, counts = jax.device_get(
            self.compiled(variables, tokens, lengths, limits, key, sampling.checked(), slots=slots)
        )
        return [row[:count].tolist() for row, count in zip(made, counts)]

    def _run(
        self, variables: Any, tokens: Array, lengths: Array, limits: Array, key: Array, sampling: Sampling, slots: int
    ) -> tuple[Array, Array]:
        """Tokens int32 [B, slots] and how many of them count, int32 [B]."""
        batch = tokens.shape[0]
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch))
        logits, cache = prefill(self.model, variables, tokens, lengths, slots, None)

        def unfinished(carry: Any) -> Array:
            return carry[0] < limits.max() * jnp.any(~carry[3])

        def step(carry: Any) -> Any:
            n, made, counts, done, logits, cache = carry
            token = sample(logits, jax.vmap(jax.random.fold_in, (0, None))(keys, n), sampling)
            done = done | (token == self.model.end) | (n >= limits)
            made = made.at[:, n].set(jnp.where(done, self.model.end, token))
            output = self.model.decode(variables, token[:, None], (lengths + n)[:, None], cache)
            return n + 1, made, counts + ~done, done, output.logits[:, 0], output.cache  # type: ignore[index]

        made = jnp.full((batch, slots), self.model.end, jnp.int32)
        start = (jnp.int32(0), made, jnp.zeros_like(lengths), limits <= 0, logits, cache)
        _, made, counts, *_ = lax.while_loop(unfinished, step, start)
        return made, counts
