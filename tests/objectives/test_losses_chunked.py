"""Chunked cross-entropy: the plain loss and its gradients, on any mesh, and never all logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax.core import axes
from vitax.objectives import losses_chunked
from vitax.objectives.losses_chunked import number_of_chunks, token_cross_entropy
from vitax.parallel.mesh import MeshSpec, build_mesh
from vitax.parallel.rules import Rules

B, T, D, V = 4, 11, 8, 48
RNG = np.random.default_rng(0)
FEATURES, TABLE = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((B, T, D), (V, D)))
BIAS = jnp.asarray(RNG.normal(size=V), jnp.float32)
TARGETS = RNG.integers(0, V, (B, T))
TARGETS[:2] = (FEATURES @ TABLE.T).argmax(-1)[:2]
TARGETS = jnp.asarray(TARGETS, jnp.int32)
# Every target weighs differently, some nothing.
WEIGHTS = jnp.asarray(RNG.uniform(size=(B, T)) * (RNG.uniform(size=(B, T)) > 0.2), jnp.float32)


def measured(smoothing, bias, resolver=None):
    """Loss, nats, correct, and gradients by features, table and bias."""

    @jax.jit
    def of(features, table, bias):
        def total(features, table, bias):
            nats, correct = token_cross_entropy(features, table, bias, TARGETS, smoothing)
            return (WEIGHTS * nats).sum(), (nats, correct)

        wanted = (0, 1) if bias is None else (0, 1, 2)
        return jax.value_and_grad(total, wanted, has_aux=True)(features, table, bias)

    if resolver is None:
        return jax.device_get(of(FEATURES, TABLE, bias))
    with axes.resolving(resolver):
        return jax.device_get(of(FEATURES, TABLE, bias))


def same(have, want):
    (loss, (nats, correct)), grads = have
    (want_loss, (want_nats, want_correct)), want_grads = want
    np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
    np.testing.assert_allclose(nats, want_nats, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(correct, want_correct)
    for a, b in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@functools.cache
def plain(smoothing, with_bias):
    return measured(smoothing, BIAS if with_bias else None)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chunks_change_neither_values_nor_gradients(monkeypatch, smoothing, with_bias):
    want = plain(smoothing, with_bias)
    assert 0 < want[0][1][1].sum() < B * T
    # 11 chunks of 4; 5 of 9, the last one padded; one target a chunk.
    for targets in (7, 9, 1):
        monkeypatch.setattr(losses_chunked, "CHUNK_BYTES", 4 * V * targets)
        same(measured(smoothing, BIAS if with_bias else None), want)


@pytest.mark.parametrize("spec", [MeshSpec(data=2, fsdp=2, tensor=2), MeshSpec(data=1, tensor=8)])
def test_on_a_mesh_too(monkeypatch, spec):
    want = plain(0.1, True)
    # Two targets at a time with the whole vocabulary, four with half of it.
    monkeypatch.setattr(losses_chunked, "CHUNK_BYTES", 4 * V * 2)
    resolver = Rules.build().resolver(build_mesh(spec))
    assert "scan" in lowered(resolver)
    same(measured(0.1, BIAS, resolver), want)


def lowered(resolver):
    with axes.resolving(resolver):
        return str(jax.make_jaxpr(lambda x: token_cross_entropy(x, TABLE, None, TARGETS))(FEATURES))


def test_no_array_holds_the_logits_of_the_batch(monkeypatch):
    # At most 7 targets of 44 at a time: 11 chunks of 4.
    monkeypatch.setattr(losses_chunked, "CHUNK_BYTES", 4 * V * 7)

    def total(features, table):
        return token_cross_entropy(features, table, None, TARGETS)[0].sum()

    text = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(FEATURES, TABLE))
    assert f"f32[{B},{T},{V}]" not in text
    assert f"f32[1,4,{V}]" in text


def test_small_vocabularies_are_not_cut():
    # 64 windows of 1024 bytes; GPT-2's vocabulary at 8 x 1024, 1 x 1024 and 64 x 1024 targets; a prime number of them.
    assert [number_of_chunks(n, v) for n, v in ((65_536, 257), (8192, 50_257), (1024, 50_257))] == [1, 8, 1]
    assert number_of_chunks(65_536, 50_257) == 64
    assert number_of_chunks(8191, 50_257) == 7
    text = str(jax.make_jaxpr(lambda x: token_cross_entropy(x, TABLE, None, TARGETS))(FEATURES))
    assert "scan" not in text
