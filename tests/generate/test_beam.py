"""Beam search against all texts there are, against greedy decoding, and against its own limits."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.test_decoding import GREEDY, PROMPTS, gpt  # noqa: F401
from vitax.core.types import ModelOutput
from vitax.generate.beam import BeamSearch, penalty
from vitax.generate.decoding import Model
from vitax.layers.vocabulary import only

VOCAB, STOP = 4, 3


def chain(seed):
    """A model whose next token depends on the last one and the position: small enough to enumerate."""
    table = 2.0 * np.random.default_rng(seed).standard_normal((16, VOCAB, VOCAB)).astype(np.float32)

    def decode(variables, tokens, positions, cache, last=None):
        return ModelOutput(logits=only(jnp.asarray(table)[positions, tokens], last), cache=cache)

    return Model(decode, lambda batch, slots: jnp.zeros((batch, 1)), 16, STOP), table


def every_text(table, prompt, limit, alpha):
    """(score, tokens) of all texts of up to ``limit`` tokens that end."""
    log_p = np.asarray(jax.nn.log_softmax(table))
    for count in range(limit):
        for tokens in itertools.product(range(STOP), repeat=count):
            steps = zip([prompt[-1], *tokens], [*tokens, STOP], itertools.count(len(prompt) - 1))
            total = sum(float(log_p[at, before, after]) for before, after, at in steps)
            yield total / ((5 + count + 1) / 6) ** alpha, list(tokens)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all_texts(alpha):
    for seed in range(4):
        model, table = chain(seed)
        search = BeamSearch(model, beams=VOCAB**3)
        found = search({}, [[STOP], [STOP, 1]], 5, alpha)
        for prompt, best in zip(([STOP], [STOP, 1]), found):
            score, tokens = max(every_text(table, prompt, 5, alpha))
            assert best.tokens == tokens
            assert best.why == "ended"
            assert best.score == pytest.approx(score, abs=1e-4)


def test_no_text_is_shorter_than_asked():
    for seed in range(4):
        model, table = chain(seed)
        for least in (1, 3):
            [best] = BeamSearch(model, beams=VOCAB**3)({}, [[STOP]], 5, 0.6, min_tokens=least)
            score, tokens = max(text for text in every_text(table, [STOP], 5, 0.6) if len(text[1]) >= least)
            assert best.tokens == tokens
            assert best.score == pytest.approx(score, abs=1e-4)


def test_a_wider_beam_is_at_least_as_good_and_batches_change_nothing():
    model, _ = chain(5)
    scores = [BeamSearch(model, beams)({}, [[STOP]], 6, 0.6)[0].score for beams in (1, 2, 8)]
    assert scores == sorted(scores)
    together = BeamSearch(model, 2)({}, [[STOP], [STOP, 2], [STOP, 0, 1]], [6, 3, 5], 0.6)
    apart = [BeamSearch(model, 2)({}, [p], n, 0.6)[0] for p, n in (([STOP], 6), ([STOP, 2], 3), ([STOP, 0, 1], 5))]
    assert [b.tokens for b in together] == [b.tokens for b in apart]


def test_one_beam_is_greedy_decoding(gpt):  # noqa: F811
    decoder, variables, _ = gpt
    greedy = decoder(variables, PROMPTS, 9, GREEDY)
    found = BeamSearch(decoder.model, 1)(variables, PROMPTS, 9)
    assert [(b.tokens, b.why) for b in found] == [tuple(one) for one in greedy]


def test_a_text_that_never_ends_is_cut_at_the_limit():
    table = np.zeros((VOCAB,), np.float32)
    table[STOP] = -np.inf

    def decode(variables, tokens, positions, cache, last=None):
        return ModelOutput(logits=only(jnp.broadcast_to(table, (*tokens.shape, VOCAB)), last), cache=cache)

    model = Model(decode, lambda batch, slots: jnp.zeros((batch, 1)), 16, STOP)
    [best, none] = BeamSearch(model, 3)({}, [[STOP], [STOP]], [4, 0])
    assert len(best.tokens) == 4
    assert best.why == "limit"
    assert best.score == pytest.approx(4 * math.log(1 / 3) / float(penalty(4.0, 0.6)), rel=1e-5)
    assert none.tokens == []
    [best] = BeamSearch(model, 3)({}, [[STOP]], [99])
    assert (len(best.tokens), best.why) == (15, "context")
