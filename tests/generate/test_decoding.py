"""Decoding against the full forward pass, sampling against its definition, and what is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core.errors import UserError
from vitax.generate import sampling as sampling_module
from vitax.generate.decoding import WATCH_EVERY, Decoder, Model, bucket
from vitax.generate.sampling import Sampling, sample
from vitax.models.gpt import GPT

END = 12
GREEDY = Sampling(temperature=0.0)
PROMPTS = [[12, 3], [12, 1, 4, 1, 5], [12]]


@pytest.fixture(scope="module")
def gpt():
    model = GPT(width=16, depth=1, mlp_dim=24, num_heads=2, vocab_size=13, context=40)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32)))["params"]
    noise = np.random.default_rng(5)
    variables = {"params": jax.tree.map(lambda p: p + 0.3 * noise.standard_normal(p.shape, np.float32), params)}
    decode = lambda *a, **k: model.apply(*a, method="decode", **k)  # noqa: E731
    forward = jax.jit(lambda tokens: model.apply(variables, tokens).logits)
    return Decoder(Model(decode, model.empty_cache, model.context, END)), variables, forward


def tokens_of(made):
    return [one.tokens for one in made]


def by_hand(forward, prompt, count):
    """Greedy, by the full forward pass of a padded row."""
    tokens = list(prompt)
    for _ in range(count):
        row = np.zeros((1, 40), np.int32)
        row[0, : len(tokens)] = tokens
        tokens.append(int(forward(row)[0, len(tokens) - 1].argmax()))
        if tokens[-1] == END:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


def test_greedy_decoding_is_the_full_forward_pass(gpt):
    decoder, variables, forward = gpt
    made = decoder(variables, PROMPTS, 9, GREEDY)
    assert tokens_of(made) == [by_hand(forward, p, 9) for p in PROMPTS]
    assert max(map(len, tokens_of(made))) == 9
    assert [one.why for one in made] == ["limit" if len(one.tokens) == 9 else "ended" for one in made]
    assert decoder(variables, PROMPTS, 9, Sampling(top_k=1)) == made
    assert decoder(variables, PROMPTS, 9, Sampling(top_p=1e-6)) == made


def test_draws_depend_on_the_seed_and_not_on_neighbours(gpt):
    decoder, variables, _ = gpt
    made = decoder(variables, PROMPTS, 9, Sampling(), seed=1)
    assert decoder(variables, PROMPTS, 9, Sampling(), seed=1) == made
    assert decoder(variables, PROMPTS, 9, Sampling(), seed=2) != made
    other = [PROMPTS[0], [12, 7, 7, 7], [12, 9]]
    assert decoder(variables, other, 9, Sampling(), seed=1)[0] == made[0]


def test_it_stops_at_the_end_of_a_document_and_of_the_context(gpt):
    decoder, variables, _ = gpt
    # With a flat distribution the mark comes soon, and nothing after it.
    made = decoder(variables, [[12]] * 16, 30, Sampling(temperature=1e4), seed=3)
    shortest = min(made, key=lambda one: len(one.tokens))
    assert len(shortest.tokens) < 30
    assert shortest.why == "ended"
    assert all(END not in one.tokens for one in made)
    # Logits that differ by less than a rounding: never the mark, which is the highest id.
    flat = jax.tree.map(jnp.zeros_like, variables)
    [long] = decoder(flat, [[12] * 38], 100, GREEDY)
    assert (len(long.tokens), long.why) == (2, "context")
    [long] = decoder(flat, [[12] * 38], 2, GREEDY)
    assert (len(long.tokens), long.why) == (2, "limit")
    with pytest.raises(UserError, match=r"40 tokens with the mark in front, but the model has 40 positions"):
        decoder(variables, [[12] * 40], 1, GREEDY)


def test_it_stops_where_who_watches_says_so(gpt):
    decoder, variables, _ = gpt
    want = decoder(variables, PROMPTS, 30, Sampling(top_k=3), seed=1)
    seen = []

    def watch(rows):
        seen.append([len(row) for row in rows])
        return [False, len(seen) > 0, False]

    made = decoder(variables, PROMPTS, 30, Sampling(top_k=3), seed=1, watch=watch)
    assert made[0] == want[0]
    assert made[1].tokens == want[1].tokens[:WATCH_EVERY]
    assert max(seen[0]) <= WATCH_EVERY < max(map(len, tokens_of(made)))


def test_one_compilation_for_each_bucket(gpt):
    _, variables, _ = gpt
    decoder = Decoder(gpt[0].model)
    for prompt, count in (([12], 3), ([12, 1, 2], 9), ([12] * 5, 2)):
        decoder(variables, [prompt], count, Sampling(temperature=0.5 + count, top_k=count))
    assert decoder.start._cache_size() == 1
    decoder(variables, [[12] * 17], 3, GREEDY)
    assert decoder.start._cache_size() == 2
    assert [bucket(n, 40) for n in (1, 16, 17, 33)] == [16, 16, 32, 40]


def test_sampling_follows_its_definition():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(lambda s: jnp.bincount(sample(jnp.tile(logits, (4000, 1)), keys, s), length=4) / 4000)
    for sampling, want in (
        (Sampling(), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(temperature=0.5), np.array([0.01, 0.16, 0.04, 0.09]) / 0.3),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Sampling(top_k=3, top_p=0.5), [0, 4 / 7, 0, 3 / 7]),
    ):
        np.testing.assert_allclose(draw(sampling), want, atol=0.03)
        assert not np.asarray(draw(sampling))[np.array(want) == 0].any()


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": -2}, {"top_p": 0.0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong)).replace('_', '-')}: expected"):
        Sampling(**wrong).check()


def test_how_many_are_ranked_at_first_changes_no_draw(monkeypatch):
    logits = 2.0 * jax.random.normal(jax.random.key(1), (64, 40))
    keys = jax.random.split(jax.random.key(2), 64)
    # Within three candidates; beyond them by mass; beyond them by number.
    for sampling in (Sampling(top_k=3), Sampling(top_p=0.9), Sampling(top_k=9, top_p=0.99)):
        want = sample(logits, keys, sampling)
        monkeypatch.setattr(sampling_module, "CANDIDATES", 3)
        np.testing.assert_array_equal(sample(logits, keys, sampling), want)
        monkeypatch.undo()


def test_a_nucleus_is_a_share_of_the_likeliest_k_though_few_are_ranked_at_first(monkeypatch):
    # The first three hold half: a share of 0.3 is one token of these, and two of all nine.
    logits = jnp.log(jnp.array([0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]))
    keys = jax.random.split(jax.random.key(0), 400)
    sampling = Sampling(top_k=9, top_p=0.3)
    want = sample(jnp.tile(logits, (400, 1)), keys, sampling)
    assert set(np.asarray(want)) == {0, 1}
    monkeypatch.setattr(sampling_module, "CANDIDATES", 3)
    np.testing.assert_array_equal(sample(jnp.tile(logits, (400, 1)), keys, sampling), want)


def test_no_row_depends_on_its_neighbours(monkeypatch):
    monkeypatch.setattr(sampling_module, "CANDIDATES", 3)
    peaked, flat = jnp.log(jnp.array([[0.5, 0.3, 0.1, 0.05, 0.05], [0.2] * 5]))
    keys = jax.random.split(jax.random.key(0), 64)
    for sampling in (
        Sampling(top_k=5, top_p=0.3),
        Sampling(top_k=2),
        Sampling(top_p=0.6),
        Sampling(top_k=4, top_p=0.9),
    ):
        alone = sample(jnp.tile(peaked, (64, 1)), keys, sampling)
        beside = sample(jnp.concatenate([jnp.tile(peaked, (32, 1)), jnp.tile(flat, (32, 1))]), keys, sampling)
        np.testing.assert_array_equal(beside[:32], alone[:32])


def test_a_prompt_makes_the_logits_of_its_last_token_alone(gpt):
    decoder, variables, _ = gpt
    tokens, lengths = np.full((3, 16), END), np.array([2, 5, 1])
    made = jax.make_jaxpr(lambda v: decoder._start(v, tokens, lengths, lengths, jax.random.key(0), 16))(variables)
    assert "f32[3,1,13]" in str(made)
    assert "f32[3,16,13]" not in str(made)
