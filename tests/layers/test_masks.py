"""Masks pair by pair, and attention through a cache against attention in one go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.layers.attention import Attention
from vitax.layers.cache import KVCache
from vitax.layers.masks import Mask, positions_in_segments

T = 6
INDEX = jnp.arange(T)[None]
LENGTHS = jnp.array([2, 4])
VALID = jnp.arange(T) < jnp.array([5, 3])[:, None]
SEGMENTS = jnp.array([[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 4, 4]])
# name -> (mask, the same for one pair: example, query, memory)
CASES = {
    "causal": (Mask.causal(), lambda b, q, m: m <= q),
    "prefix": (Mask.prefix(LENGTHS), lambda b, q, m: m <= q or m < LENGTHS[b]),
    "padding": (Mask.padding(VALID), lambda b, q, m: VALID[b, m]),
    "segments": (Mask.segments(SEGMENTS), lambda b, q, m: SEGMENTS[b, q] == SEGMENTS[b, m]),
}


def by_hand(*pairs):
    return np.array([[[[all(p(b, q, m) for p in pairs) for m in range(T)] for q in range(T)]] for b in range(2)])


@pytest.mark.parametrize("name", CASES)
def test_each_condition_pair_by_pair(name):
    mask, pair = CASES[name]
    have = np.broadcast_to(mask.dense(INDEX, INDEX), (2, 1, T, T))
    np.testing.assert_array_equal(have, by_hand(pair))


def test_conditions_compose():
    masks, pairs = zip(*CASES.values())
    whole = masks[0] & masks[1] & masks[2] & masks[3]
    np.testing.assert_array_equal(jax.jit(lambda m: m.dense(INDEX, INDEX))(whole), by_hand(*pairs))
    assert Mask().dense(INDEX, INDEX) is None


def test_segments_of_another_memory():
    mask = Mask.segments(SEGMENTS[:, :2], SEGMENTS).dense(INDEX[:, :2], INDEX)
    np.testing.assert_array_equal(mask, by_hand(CASES["segments"][1])[:, :, :2])


def test_positions_start_again_with_each_segment():
    np.testing.assert_array_equal(positions_in_segments(SEGMENTS), [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 1]])


def test_attention_through_a_cache_is_attention_in_one_go():
    model = Attention(2)
    x = jax.random.normal(jax.random.key(0), (2, T, 8))
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(1), x, x))
    want, _ = model.apply(variables, x, x, mask=Mask.causal().dense(INDEX, INDEX))
    # Garbage in what was not written yet must not be seen.
    cache = jax.tree.map(lambda a: a + 7.0, KVCache.zeros(2, T + 2, 2, 4, "float32"))
    have, slots = [], jnp.arange(T + 2)[None]
    for start, stop in ((0, 3), (3, 4), (4, 6)):
        new = jnp.broadcast_to(jnp.arange(start, stop), (2, stop - start))
        mask = Mask.causal().dense(new, slots)
        y, cache = model.apply(variables, x[:, start:stop], x[:, start:stop], mask=mask, cache=cache, slots=new)
        have.append(y)
    np.testing.assert_allclose(jnp.concatenate(have, 1), want, atol=1e-6)
