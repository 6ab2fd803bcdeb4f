"""Convolutions: standardisation, padding; group norms against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax.layers.conv import Conv, standardise
from vitax.layers.norm import GroupNorm, normalise


@pytest.mark.parametrize("added_to", ["variance", "deviation"])
def test_standardisation_by_hand(added_to):
    kernel = 1e-3 * np.random.default_rng(0).standard_normal((3, 3, 4, 5)) + 7.0
    stored = jnp.asarray(kernel, jnp.float32)
    exact = np.asarray(stored, np.float64).reshape(-1, 5)
    for epsilon in (1e-10, 1e-5):
        deviation = np.sqrt(exact.var(0) + epsilon) if added_to == "variance" else exact.std(0) + epsilon
        want = ((exact - exact.mean(0)) / deviation).reshape(kernel.shape)
        # float32 keeps 7 to 5e-7: a thousandth of the deviation.
        np.testing.assert_allclose(standardise(stored, epsilon, added_to), want, atol=2e-3)


@pytest.mark.parametrize("added_to", ["variance", "deviation"])
def test_a_constant_kernel_stays_finite(added_to):
    value, grad = jax.value_and_grad(lambda k: standardise(k, 1e-5, added_to).sum())(jnp.ones((3, 3, 2, 2)))
    assert value == 0
    assert jnp.isfinite(grad).all()


def test_kernels_are_standardised_in_float32():
    model, x = Conv(4, 1, dtype="bfloat16"), jnp.ones((1, 2, 2, 64), jnp.bfloat16)
    kernel = 1e-2 * jax.random.normal(jax.random.key(0), (1, 1, 64, 4)) + 1.0
    have = model.apply({"params": {"kernel": kernel}}, x * jnp.arange(64.0))
    assert have.dtype == jnp.bfloat16
    want = jnp.einsum("c,ck->k", jnp.arange(64.0), standardise(kernel, 1e-10, "variance")[0, 0])
    # bfloat16 cannot tell 1.00 from 1.003: standardised there, nothing of the kernel is left.
    assert float(jnp.abs(have[0, 0, 0] - want).max()) < 0.02 * float(jnp.abs(want).max())


def test_padding():
    x = jnp.zeros((1, 8, 8, 1)).at[0, 0, 0, 0].set(1.0)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    flat = standardise(kernel, 1e-10, "variance").reshape(3, 3)
    # The first window starts one pixel before the image, or at it: an even size needs one row, at the end.
    for padding, seen in (("symmetric", flat[1, 1]), ("same", flat[0, 0])):
        y = Conv(1, 3, 2, padding).apply({"params": {"kernel": kernel}}, x)
        assert y.shape == (1, 4, 4, 1)
        np.testing.assert_allclose(y[0, 0, 0, 0], seen, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2**-6)])
def test_group_norm_and_its_gradient_follow_the_definition(dtype, tolerance):
    keys = jax.random.split(jax.random.key(0), 4)
    x = (3 * jax.random.normal(keys[0], (2, 5, 3, 12)) + 1).astype(dtype)
    scale, bias = jax.random.normal(keys[1], (12,)), jax.random.normal(keys[2], (12,))
    out = jax.random.normal(keys[3], x.shape).astype(dtype)

    def definition(x, scale, bias):
        x = x.astype(jnp.float32).reshape(2, 5, 3, 4, 3)
        mean, variance = (f((1, 2, 4), keepdims=True) for f in (x.mean, x.var))
        y = ((x - mean) / jnp.sqrt(variance + 1e-3)).reshape(2, 5, 3, 12)
        return ((y * scale + bias) * out.astype(jnp.float32)).sum()

    def ours(x, scale, bias):
        return (normalise(x, scale, bias, 1e-3, dtype, 4) * out).astype(jnp.float32).sum()

    want, have = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(x, scale, bias) for f in (definition, ours))
    for w, h in zip(jax.tree.leaves(want), jax.tree.leaves(have)):
        w, h = np.asarray(w, np.float32), np.asarray(h, np.float32)
        assert np.abs(h - w).max() <= tolerance * np.abs(w).max()


def test_group_norm_far_from_zero():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 32)) + 3000.0, jnp.float32)
    exact = np.asarray(x, np.float64).reshape(2, 4, 4, 8, 4)
    mean, variance = (f((1, 2, 4), keepdims=True) for f in (exact.mean, exact.var))
    want = ((exact - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    model = GroupNorm(num_groups=8)
    params = {"scale": jnp.ones(32), "bias": jnp.zeros(32)}
    np.testing.assert_allclose(jax.jit(model.apply)({"params": params}, x), want, atol=2e-3)
