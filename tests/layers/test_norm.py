"""LayerNorm and Linear: constants that parity alone would not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.layers.linear import Linear
from vitax.layers.norm import LayerNorm, normalise


def test_norm_by_hand_and_far_from_zero():
    x = np.random.default_rng(0).standard_normal((3, 64)) + 3000.0
    x32 = jnp.asarray(x, jnp.float32)
    exact = np.asarray(x32, np.float64)
    want = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    model = LayerNorm()
    have = model.apply(model.init(jax.random.key(0), x32), x32)
    # float32 keeps the mean of 3000 to 1e-4 of the deviation; E[x^2] - E[x]^2 would be off by more than 0.1.
    np.testing.assert_allclose(have, want, atol=1e-3)


def test_epsilon_is_added_to_the_variance():
    x = jnp.asarray([[1e-3, -1e-3]])
    for epsilon in (1e-6, 1e-2):
        model = LayerNorm(epsilon)
        have = model.apply(model.init(jax.random.key(0), x), x)
        np.testing.assert_allclose(have[0, 0], 1e-3 / np.sqrt(1e-6 + epsilon), rtol=1e-5)


def test_bfloat16_norm_has_float32_statistics():
    x = (jax.random.normal(jax.random.key(0), (4, 4096)) + 8).astype(jnp.bfloat16)
    model = LayerNorm(dtype="bfloat16")
    variables = nn.meta.unbox(model.init(jax.random.key(0), x))
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    have = model.apply(variables, x)
    assert have.dtype == jnp.bfloat16
    want = LayerNorm().apply(variables, x.astype(jnp.float32))
    np.testing.assert_allclose(have.astype(jnp.float32), want, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2**-6)])
def test_norm_differentiates_like_its_definition(dtype, tolerance):
    keys = jax.random.split(jax.random.key(0), 4)
    x = (3 * jax.random.normal(keys[0], (2, 5, 64)) + 1).astype(dtype)
    scale, bias = jax.random.normal(keys[1], (64,)), jax.random.normal(keys[2], (64,))
    out = jax.random.normal(keys[3], x.shape).astype(dtype)

    def definition(x, scale, bias):
        x = x.astype(jnp.float32)
        y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)
        return ((y * scale + bias) * out.astype(jnp.float32)).sum()

    def ours(x, scale, bias):
        return (normalise(x, scale, bias, 1e-3, dtype) * out).astype(jnp.float32).sum()

    want, have = (jax.grad(f, argnums=(0, 1, 2))(x, scale, bias) for f in (definition, ours))
    for w, h in zip(want, have):
        assert h.dtype == w.dtype
        w, h = np.asarray(w, np.float32), np.asarray(h, np.float32)
        assert np.abs(h - w).max() <= tolerance * np.abs(w).max()


def test_bfloat16_statistics_of_one_pass_lose_less_than_the_rounding_of_x():
    x = np.random.default_rng(0).standard_normal((64, 768))
    for mean in (0.0, 30.0, 300.0):
        shifted = jnp.asarray(x + mean, jnp.bfloat16)
        rounded = np.asarray(shifted, np.float64)
        want = (rounded - rounded.mean(-1, keepdims=True)) / np.sqrt(rounded.var(-1, keepdims=True) + 1e-6)
        exact = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
        have = np.asarray(normalise(shifted, jnp.ones(768), jnp.zeros(768), 1e-6, "float32"), np.float64)
        lost_by_rounding = np.abs(want - exact).mean()
        assert np.abs(have - want).mean() < 0.2 * lost_by_rounding


def test_kernels_start_with_the_fans_of_the_flat_matrix():
    model = Linear((8, 16), ("embed", "heads", "head_dim"))
    kernel = nn.meta.unbox(model.init(jax.random.key(0), jnp.ones((1, 128))))["params"]["kernel"]
    assert kernel.shape == (128, 8, 16)
    # Xavier, uniform: within sqrt(6 / (128 + 128)).
    limit = (6 / 256) ** 0.5
    assert 0.98 * limit < float(jnp.abs(kernel).max()) <= limit


def test_linear_contracts_all_its_inputs():
    model = Linear((6,), ("heads", "head_dim", "embed"))
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
    params = nn.meta.unbox(model.init(jax.random.key(1), x))["params"]
    want = jnp.einsum("btnk,nkd->btd", x, params["kernel"]) + params["bias"]
    np.testing.assert_allclose(model.apply({"params": params}, x), want, atol=1e-5)
