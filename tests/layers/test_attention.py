"""Attention against the formula in NumPy, its mask and its noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.layers.attention import WEIGHTS, Attention, attend
from vitax.layers.dropout import dropout

X = jax.random.normal(jax.random.key(0), (2, 5, 8))
MEMORY = jax.random.normal(jax.random.key(1), (2, 7, 8))


def init(model, memory=MEMORY):
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(2), X, memory))["params"]
    return jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size, dtype=jnp.float32)).reshape(p.shape), params)


def reference(params, x, memory, mask=None):
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x, memory = np.asarray(x, np.float64), np.asarray(memory, np.float64)
    q, k, v = (
        np.einsum("btd,dnk->bntk", a, params[name]["kernel"]) + params[name]["bias"][None, :, None]
        for a, name in ((x, "query"), (memory, "key"), (memory, "value"))
    )
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights if mask is None else weights * np.asarray(mask)
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bntk,nkd->btd", weights @ v, params["out"]["kernel"]) + params["out"]["bias"], weights


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_formula(masked):
    model = Attention(2)
    params = init(model)
    mask = jax.random.bernoulli(jax.random.key(3), 0.6, (2, 1, 5, 7)).at[..., 0].set(True) if masked else None
    want, want_weights = reference(params, X, MEMORY, mask)
    have, weights = model.apply({"params": params}, X, MEMORY, mask=mask, return_weights=True)
    np.testing.assert_allclose(have, want, atol=2e-6)
    np.testing.assert_allclose(weights, want_weights, atol=1e-6)
    assert model.apply({"params": params}, X, MEMORY)[1] is None


def test_masked_memory_has_no_effect_and_no_gradient():
    model = Attention(2)
    params = init(model)
    mask = (jnp.arange(7) < 4)[None, None, None]
    cut = model.apply({"params": params}, X, MEMORY[:, :4])[0]
    loss = lambda memory: jnp.cos(model.apply({"params": params}, X, memory, mask=mask)[0]).sum()  # noqa: E731
    np.testing.assert_allclose(model.apply({"params": params}, X, MEMORY, mask=mask)[0], cut, atol=1e-6)
    grad = jax.grad(loss)(MEMORY)
    assert (grad[:, 4:] == 0).all()
    assert (jnp.abs(grad[:, :4]).max(-1) > 1e-5).all()


def test_a_row_without_anything_to_attend_stays_finite():
    model = Attention(2)
    params = init(model)
    mask = jnp.ones((2, 1, 5, 7), bool).at[0, 0, 2].set(False)
    loss = lambda p: jnp.cos(model.apply({"params": p}, X, MEMORY, mask=mask)[0]).sum()  # noqa: E731
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(jax.grad(loss)(params)))


def test_large_scores_do_not_overflow():
    model = Attention(2)
    params = init(model)
    want, _ = reference(params, 300 * X, MEMORY)
    np.testing.assert_allclose(model.apply({"params": params}, 300 * X, MEMORY)[0], want, rtol=2e-4, atol=2e-4)


def test_dropout_has_the_right_mean():
    model, plain = Attention(2, dropout=0.5), Attention(2)
    params = init(plain)
    many = 2000
    x, memory = (jnp.broadcast_to(a[:1], (many, *a.shape[1:])) for a in (X, MEMORY))
    rng = jax.random.split(jax.random.key(4), many)
    noisy = model.apply({"params": params}, x, memory, rng=rng)[0]
    want = plain.apply({"params": params}, X[:1], MEMORY[:1])[0][0]
    np.testing.assert_allclose(noisy.mean(0), want, atol=4 * float(noisy.std(0).max()) / many**0.5)
    assert float(noisy.std(0).min()) > 1e-3


def test_bfloat16_statistics_are_float32():
    # 4096 equal weights: a bfloat16 sum would stop growing at 256.
    model = Attention(1, dtype="bfloat16")
    ones = jnp.ones((1, 4096, 4))
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), ones[:, :1], ones))["params"]
    have, weights = model.apply({"params": params}, ones[:, :1], ones, return_weights=True)
    want, _ = Attention(1).apply({"params": params}, ones[:, :1], ones)
    assert have.dtype == jnp.bfloat16
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=0.01)
    np.testing.assert_allclose(have.astype(jnp.float32), want, atol=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_the_formula(rate, masked):
    query, key, value = (jax.random.normal(jax.random.key(i), (2, n, 3, 4)) for i, n in enumerate((5, 7, 7)))
    mask = jax.random.bernoulli(jax.random.key(3), 0.6, (2, 1, 5, 7)).at[..., 0].set(True) if masked else None
    rng = jax.random.split(jax.random.key(4), 2)

    def plain(query, key, value):
        scores = jnp.einsum("btnk,bsnk->bnts", query, key) / 2.0
        weights = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -1e30))
        return jnp.einsum("bnts,bsnk->btnk", dropout(weights, rate, rng, WEIGHTS), value)

    def ours(query, key, value):
        return attend(query, key, value, mask=mask, dropout_rate=rate, rng=rng)[0]

    want, have = (
        jax.jit(jax.grad(lambda *a, f=f: jnp.cos(3 * f(*a)).sum(), (0, 1, 2)))(query, key, value) for f in (plain, ours)
    )
    for a, b in zip(want, have):
        np.testing.assert_allclose(b, a, atol=1e-5 * float(jnp.abs(a).max()))
