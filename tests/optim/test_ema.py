import jax
import jax.numpy as jnp
import numpy as np

from vitax.optim.ema import ema_update


def run(decay, steps, **kw):
    average = {"w": jnp.array([1.0, -2.0], jnp.float32)}
    for t in range(steps):
        average = ema_update(average, {"w": jnp.array([t + 2.0, 0.5 * t], jnp.float32)}, decay, jnp.int32(t), **kw)
    return np.asarray(average["w"])


def by_hand(decays):
    average = np.array([1.0, -2.0])
    for t, d in enumerate(decays):
        average = d * average + (1 - d) * np.array([t + 2.0, 0.5 * t])
    return average


def test_formula():
    np.testing.assert_allclose(run(0.9, 20), by_hand([0.9] * 20), rtol=1e-6)
    np.testing.assert_allclose(run(0.9999, 50), by_hand([0.9999] * 50), rtol=1e-6)


def test_warmup_formula():
    decays = [min(0.9, (1 + t) / (10 + t)) for t in range(100)]
    assert decays[0] == 0.1
    assert decays[-1] == 0.9
    np.testing.assert_allclose(run(0.9, 100, warmup=True), by_hand(decays), rtol=1e-6)


def test_an_average_that_equals_the_parameters_stays():
    p = {"w": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    np.testing.assert_array_equal(ema_update(p, p, 0.9999, 3)["w"], p["w"])


def test_no_memory():
    np.testing.assert_allclose(run(0.0, 3), [4.0, 1.0])


def test_keeps_structure_and_dtype_under_jit():
    ema = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3)}
    out = jax.jit(lambda e, p: ema_update(e, p, 0.5, 0))(ema, jax.tree.map(jnp.zeros_like, ema))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), out) == jax.tree.map(lambda x: (x.shape, x.dtype), ema)
