"""Cached decoding: prompts in, continuations out, one compilation for each bucket of shapes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.generate.sampling import Sampling, sample

Array = jax.Array

SMALLEST_BUCKET = 16
# Tokens between two looks of the host at what is made, where it wants any.
WATCH_EVERY = 16
# Why a text ends: the model ended it, the limit that was asked for, or the end of the context.
Why = Literal["ended", "limit", "context"]


class Model(NamedTuple):
    """What decoding needs of a language model.

    Attributes:
      decode: (variables, tokens [B, T], positions [B, T], cache) -> ``ModelOutput`` with
        logits [B, T, V] and cache, whose arrays have axis 0 = sequence. Of an
        encoder-decoder the first call takes the source besides. With ``last`` int32 [B]
        logits [B, 1, V] of that token alone.
      empty_cache: (batch size, slots) -> cache; of an encoder-decoder with the source's length.
      context: the longest sequence.
      end: the token that ends a document.
      whole: sharding of results, under which every process has all of them; None where
        there is no mesh.
    """

    decode: Callable[..., ModelOutput]
    empty_cache: Callable[..., Any]
    context: int
    end: int
    whole: Any = None


class Continuation(NamedTuple):
    """What a prompt was continued with.

    Attributes:
      tokens: without the prompt and the token that ended them.
      why: they end; ``ended`` also where somebody who watched stopped them.
    """

    tokens: list[int]
    why: Why


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
            f"{longest} tokens with the mark in front, but the model has {model.context} positions "
            "(model.context). Shorten the prompt."
        )
    tokens = np.full((len(prompts), bucket(longest, model.context)), model.end, np.int32)
    for row, prompt in zip(tokens, prompts):
        row[: len(prompt)] = prompt
    return tokens, lengths


def reason(count: int, limit: int, asked: int) -> Why:
    """Why a text of ``count`` tokens ends, of which ``limit`` fit and ``asked`` were asked for."""
    return "ended" if count < limit else "limit" if limit == asked else "context"


def prefill(
    model: Model, variables: Any, tokens: Array, lengths: Array, slots: int, source: tuple[Array, Array] | None
) -> tuple[Array, Any]:
    """Runs prompts: the logits [B, V] of what follows each, and the cache."""
    batch, width = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (batch, width))
    beside = () if source is None else (source,)
    cache = model.empty_cache(batch, slots, *(pair[0].shape[1] for pair in beside))
    output = model.decode(variables, tokens, positions, cache, *beside, last=lengths - 1)
    assert output.logits is not None
    return output.logits[:, 0], output.cache


@flax.struct.dataclass
class State:
    """Continuations under way.

    Attributes:
      step: int32, tokens drawn so far.
      made: int32 [B, slots], ``end`` where nothing was drawn.
      counts: int32 [B], how many of ``made`` count.
      done: bool [B].
      logits: [B, V], of the next token.
      cache: of the model.
      lengths: int32 [B], of the prompts.
      limits: int32 [B], the longest continuations.
      keys: [B], of the draws.
    """

    step: Array
    made: Array
    counts: Array
    done: Array
    logits: Array
    cache: Any
    lengths: Array
    limits: Array
    keys: Array


class Decoder:
    """Continues prompts.

    Example i of a call draws with ``fold_in(seed, i, step)``: a continuation depends
    neither on its neighbours nor on the bucket, nor on how often it is watched.

    Args:
      model: see ``Model``.
    """

    def __init__(self, model: Model):
        self.model = model
        # What the host looks at; the rest lies as it is computed.
        looked_at: Any = dict.fromkeys(("step", "made", "counts", "done"), model.whole)
        shardings = State(**{field.name: looked_at.get(field.name) for field in dataclasses.fields(State)})
        self.start = jax.jit(self._start, static_argnames="slots", out_shardings=shardings)
        self.advance = jax.jit(self._advance, donate_argnames="state", out_shardings=shardings)

    def __call__(
        self,
        variables: Any,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        watch: Callable[[list[list[int]]], Sequence[bool]] | None = None,
    ) -> list[Continuation]:
        """A continuation of each prompt.

        Args:
          variables: of the model.
          prompts: token ids, at least one each.
          max_tokens: the longest continuation; those that fill the context end there.
          sampling: how tokens are drawn.
          seed: of the draws.
          watch: sees the continuations so far every ``WATCH_EVERY`` tokens, and says which
            are to stop.

        Raises:
          UserError: a prompt that is empty or leaves no room in the context.
        """
        model = self.model
        tokens, lengths = padded(model, prompts)
        slots = bucket(min(int(lengths.max()) + max_tokens, model.context), model.context)
        limits = np.minimum(max_tokens, model.context - lengths).astype(np.int32)
        state = self.start(variables, tokens, lengths, limits, jax.random.key(seed), slots=slots)
        sampling.check()
        until = WATCH_EVERY if watch else slots
        while True:
            state = self.advance(variables, state, sampling, np.int32(until))
            step, made, counts, done = jax.device_get((state.step, state.made, state.counts, state.done))
            rows = [row[:count].tolist() for row, count in zip(made, counts)]
            if watch is not None:
                done = done | np.array(watch(rows), bool)
                state = dataclasses.replace(state, done=done)
            if done.all() or step >= limits.max():
                return [Continuation(row, reason(len(row), limit, max_tokens)) for row, limit in zip(rows, limits)]
            until = int(step) + WATCH_EVERY

    def _start(self, variables: Any, tokens: Array, lengths: Array, limits: Array, key: Array, slots: int) -> State:
        batch = tokens.shape[0]
        logits, cache = prefill(self.model, variables, tokens, lengths, slots, None)
        return State(
            step=jnp.int32(0),
            made=jnp.full((batch, slots), self.model.end, jnp.int32),
            counts=jnp.zeros_like(lengths),
            done=limits <= 0,
            logits=logits,
            cache=cache,
            lengths=lengths,
            limits=limits,
            keys=jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch)),
        )

    def _advance(self, variables: Any, state: State, sampling: Sampling, until: Array) -> State:
        """Draws tokens until all are done, or ``until`` have been drawn of each."""

        def unfinished(state: State) -> Array:
            return (state.step < jnp.minimum(until, state.limits.max())) & jnp.any(~state.done)

        def step(state: State) -> State:
            n = state.step
            token = sample(state.logits, jax.vmap(jax.random.fold_in, (0, None))(state.keys, n), sampling)
            done = state.done | (token == self.model.end) | (n >= state.limits)
            output = self.model.decode(variables, token[:, None], (state.lengths + n)[:, None], state.cache)
            assert output.logits is not None
            return dataclasses.replace(
                state,
                step=n + 1,
                made=state.made.at[:, n].set(jnp.where(done, self.model.end, token)),
                counts=state.counts + ~done,
                done=done,
                logits=output.logits[:, 0],
                cache=output.cache,
            )

        return lax.while_loop(unfinished, step, state)
