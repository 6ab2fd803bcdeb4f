"""Batch normalisation against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.layers.batch_norm import BatchNorm, moments

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (6, 5, 4, 3))
SCALE, BIAS = RNG.normal(size=3), RNG.normal(size=3)
MEAN, VAR = RNG.normal(size=3), RNG.uniform(0.5, 2.0, 3)
VARIABLES = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.float32),
    {"params": {"scale": SCALE, "bias": BIAS}, "batch_stats": {"mean": MEAN, "var": VAR}},
)


def by_hand(x, mean, var, epsilon=1e-3):
    return (x - mean) / np.sqrt(var + epsilon) * SCALE + BIAS


def train(x, mask=None, dtype="float32", **fields):
    layer = BatchNorm("embed", dtype=dtype, **fields)
    y, changed = layer.apply(VARIABLES, jnp.asarray(x, dtype), train=True, mask=mask, mutable=["batch_stats"])
    return y, changed["batch_stats"]


def test_defaults_are_tensorflows():
    layer = BatchNorm("embed")
    assert (layer.momentum, layer.epsilon) == (0.99, 1e-3)
    fresh = layer.init(jax.random.key(0), jnp.ones((1, 2, 2, 3)))
    assert jax.tree.map(
        lambda b: (b.names, float(b.value.sum())), fresh, is_leaf=lambda x: isinstance(x, nn.Partitioned)
    ) == {
        "params": {"scale": (("embed",), 3.0), "bias": (("embed",), 0.0)},
        "batch_stats": {"mean": (("embed",), 0.0), "var": (("embed",), 3.0)},
    }


@pytest.mark.parametrize("count", [6, 4])
def test_training_takes_the_rows_that_count(count):
    x, mask = X.copy(), jnp.arange(6) < count
    x[count:] = np.nan
    y, running = train(x, mask if count < 6 else None, momentum=0.9)
    mean, var = X[:count].mean((0, 1, 2)), X[:count].var((0, 1, 2))
    np.testing.assert_allclose(y[:count], by_hand(X[:count], mean, var), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(running["mean"], 0.9 * MEAN + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 * VAR + 0.1 * var, rtol=1e-5)


def test_all_rows_counted_is_no_mask():
    a, b = train(X), train(X, jnp.ones(6, bool))
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-6, atol=1e-6), a, b)


def test_padding_alone_moves_nothing_and_stays_finite():
    y, running = train(X, jnp.zeros(6, bool))
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(running["mean"], VARIABLES["batch_stats"]["mean"])
    np.testing.assert_array_equal(running["var"], VARIABLES["batch_stats"]["var"])


def test_evaluation_takes_the_running_statistics_and_each_example_alone():
    layer = BatchNorm("embed", epsilon=0.1)
    y = layer.apply(VARIABLES, jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(y, by_hand(X, MEAN, VAR, 0.1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y[2:3], layer.apply(VARIABLES, jnp.asarray(X[2:3], jnp.float32)))


def test_training_without_a_place_for_the_statistics_is_an_error():
    with pytest.raises(Exception, match="immutable"):
        BatchNorm("embed").apply(VARIABLES, jnp.asarray(X, jnp.float32), train=True)


def test_gradients_go_through_the_statistics():
    x, out = jnp.asarray(X, jnp.float32), jnp.asarray(RNG.normal(size=X.shape), jnp.float32)
    got = jax.grad(lambda x: (train(x)[0] * out).sum())(x)
    n, mean, var = X[..., 0].size, X.mean((0, 1, 2)), X.var((0, 1, 2))
    z, g = (X - mean) / np.sqrt(var + 1e-3), np.asarray(out, np.float64) * SCALE
    want = (g - g.sum((0, 1, 2)) / n - z * (g * z).sum((0, 1, 2)) / n) / np.sqrt(var + 1e-3)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_bfloat16_has_float32_statistics():
    x = jnp.asarray(X, jnp.bfloat16)
    y, running = train(X, dtype="bfloat16")
    assert (y.dtype, running["mean"].dtype) == (jnp.bfloat16, jnp.float32)
    exact = np.asarray(x, np.float64)
    mean, var = moments(x)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-4)


def test_a_large_mean_costs_no_digits():
    x = 1000.0 + X
    np.testing.assert_allclose(moments(jnp.asarray(x, jnp.float32))[1], x.var((0, 1, 2)), rtol=1e-4)
