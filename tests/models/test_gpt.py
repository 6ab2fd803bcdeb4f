"""Laws of the GPT: nothing looks ahead, documents are apart, one model however it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models.gpt import GPT

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2, "vocab_size": 13, "context": 12}
NOISE = {"dropout": 0.2, "attention_dropout": 0.2}
TOKENS = jax.random.randint(jax.random.key(1), (3, 10), 0, 13)


@functools.cache
def start(norm="pre"):
    """A model and parameters with every leaf away from zero."""
    model = GPT(**SMALL, norm=norm)
    params = quick(lambda x: nn.meta.unbox(model.init(jax.random.key(0), x))["params"])(TOKENS)
    noise = np.random.default_rng(2)
    return model, jax.tree.map(lambda p: p + 0.1 * noise.standard_normal(p.shape, np.float32), params)


@functools.cache
def forward(norm="pre"):
    model, _ = start(norm)
    return quick(lambda p, tokens, segments: model.apply({"params": p}, tokens, segment_ids=segments).logits)


def loss(model, params, rng=None):
    # Row b weighs differently, so that mixing up examples shows.
    logits = model.apply({"params": params}, TOKENS, train=rng is not None, rng=rng).logits
    return (jnp.cos(logits).sum((1, 2)) * (1.0 + jnp.arange(3))).sum()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_no_token_sees_a_later_one(norm):
    _, params = start(norm)
    want = forward(norm)(params, TOKENS, None)
    for t in (1, 5, 9):
        changed = TOKENS.at[:, t:].set((TOKENS[:, t:] + 1) % 13)
        have = forward(norm)(params, changed, None)
        np.testing.assert_array_equal(have[:, :t], want[:, :t])
        assert float(jnp.abs(have[:, t:] - want[:, t:]).max()) > 1e-3


def test_packed_documents_are_as_if_alone():
    _, params = start()
    segments = jnp.repeat(jnp.array([[1] * 4 + [2] * 5 + [0]]), 3, 0)
    packed = forward()(params, TOKENS, segments)
    for first, last in ((0, 4), (4, 9)):
        alone = forward()(params, TOKENS[:, first:last], None)
        np.testing.assert_allclose(packed[:, first:last], alone, atol=2e-5)
    assert float(jnp.abs(packed - forward()(params, TOKENS, None))[:, 4:9].max()) > 1e-3


def test_padding_changes_nothing():
    _, params = start()
    segments = jnp.where(jnp.arange(10) < jnp.array([[10], [7], [4]]), 1, 0)
    want = forward()(params, TOKENS, segments)
    have = forward()(params, jnp.where(segments, TOKENS, (TOKENS + 5) % 13), segments)
    real = segments > 0
    np.testing.assert_array_equal(np.asarray(have)[real], np.asarray(want)[real])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cached_decoding_is_the_full_forward_pass(norm):
    model, params = start(norm)
    want = forward(norm)(params, TOKENS, None)
    # Prompts of 4, 3 and 2 tokens in one call: what is behind them is written and then overwritten.
    lengths, cache = np.array([4, 3, 2]), model.empty_cache(3, 11)
    decode = quick(
        lambda tokens, positions, cache: model.apply({"params": params}, tokens, positions, cache, method="decode")
    )
    prompt = jnp.where(jnp.arange(4) < lengths[:, None], TOKENS[:, :4], 12)
    output = decode(prompt, jnp.broadcast_to(jnp.arange(4), (3, 4)), cache)
    have = [np.asarray(output.logits)[np.arange(3), lengths - 1]]
    for step in range(5):
        at = lengths + step
        output = decode(TOKENS[np.arange(3), at][:, None], jnp.asarray(at)[:, None], output.cache)
        have.append(np.asarray(output.logits)[:, 0])
    for step, logits in enumerate(have):
        np.testing.assert_allclose(logits, np.asarray(want)[np.arange(3), lengths - 1 + step], atol=2e-5)


def test_scan_and_remat_change_nothing():
    _, params = start()
    noisy, rng = GPT(**SMALL, **NOISE), jax.random.split(jax.random.key(3), 3)
    want, want_grads = quick(jax.value_and_grad(lambda p: loss(noisy, p, rng)))(params)
    other = GPT(**SMALL, **NOISE, unroll=False, remat="full")
    have, grads = quick(jax.value_and_grad(lambda p: loss(other, p, rng)))(params)
    np.testing.assert_allclose(have, want, rtol=1e-5)
    for (name, a), b in zip(tree.named_leaves(want_grads), jax.tree.leaves(grads)):
        np.testing.assert_allclose(b, a, atol=1e-5 * float(jnp.abs(a).max()) + 1e-6, err_msg=name)


def test_every_parameter_has_a_gradient():
    model, params = start()
    for name, grad in tree.named_leaves(quick(jax.grad(lambda p: loss(model, p)))(params)):
        # A constant added to all scores of a row changes nothing.
        assert name.endswith("key/bias") or float(jnp.abs(grad).max()) > 1e-4, name


def test_initialisation_is_the_published_one():
    model = GPT(width=128, depth=2, mlp_dim=512, num_heads=4, vocab_size=512, context=256)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), TOKENS))["params"]
    deviations = {name: float(p.std()) for name, p in tree.named_leaves(params)}
    assert deviations["embedding"] == pytest.approx(0.02, rel=0.05)
    assert deviations["pos_embedding"] == pytest.approx(0.01, rel=0.05)
    for name in ("attention/query", "attention/key", "attention/value", "mlp/in"):
        assert deviations[f"encoder/block_01/{name}/kernel"] == pytest.approx(0.02, rel=0.05)
    for name in ("attention/out", "mlp/out"):
        assert deviations[f"encoder/block_01/{name}/kernel"] == pytest.approx(0.02 / 4**0.5, rel=0.05)
    assert all(d == 0 for n, d in deviations.items() if n.endswith(("bias", "scale")))


def test_sequences_that_do_not_fit_are_refused():
    model, params = start()
    with pytest.raises(UserError, match=r"13 in a sequence, but the model has 12 positions \(model.context\)"):
        model.apply({"params": params}, jnp.zeros((1, 13), jnp.int32))
    with pytest.raises(UserError, match=r"expected \[batch, length\]"):
        model.apply({"params": params}, jnp.zeros(4, jnp.int32))
    with pytest.raises(UserError, match="width 15 does not divide into 2 heads"):
        GPT(**SMALL | {"width": 15}).init(jax.random.key(0), TOKENS)


def test_features_and_table_make_the_logits():
    model, params = start()
    output = model.apply({"params": params}, TOKENS, return_logits=False)
    assert output.logits is None
    logits = output.features @ model.output_table({"params": params}).T
    np.testing.assert_allclose(logits, forward()(params, TOKENS, None), atol=2e-5)
