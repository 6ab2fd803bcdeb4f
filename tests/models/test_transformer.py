"""Laws of the encoder-decoder: nothing looks ahead, pairs are apart, one model however it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models import table
from vitax.models.transformer import Transformer

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2, "vocab_size": 13, "context": 12}
NOISE = {"dropout": 0.2, "attention_dropout": 0.2, "hidden_dropout": 0.2}
SOURCE, TOKENS = (jax.random.randint(jax.random.key(i), (3, n), 0, 13) for i, n in ((1, 9), (2, 10)))
FORMS = [{"norm": "post"}, {"norm": "pre", "positions": "learned", "decoder_depth": 1}]


@functools.cache
def start(form=0):
    """A model and parameters with every leaf away from zero."""
    model = Transformer(**SMALL, **FORMS[form])
    params = quick(lambda *x: nn.meta.unbox(model.init(jax.random.key(0), *x))["params"])(SOURCE, TOKENS)
    noise = np.random.default_rng(2)
    return model, jax.tree.map(lambda p: p + 0.1 * noise.standard_normal(p.shape, np.float32), params)


@functools.cache
def forward(form=0):
    model, params = start(form)
    return quick(
        lambda source, tokens, of_source, of_target: (
            model.apply({"params": params}, source, tokens, source_segments=of_source, segment_ids=of_target).logits
        )
    )


@pytest.mark.parametrize("form", [0, 1])
def test_no_token_sees_a_later_one_and_all_see_the_source(form):
    want = forward(form)(SOURCE, TOKENS, None, None)
    for t in (1, 5, 9):
        have = forward(form)(SOURCE, TOKENS.at[:, t:].set((TOKENS[:, t:] + 1) % 13), None, None)
        np.testing.assert_array_equal(have[:, :t], want[:, :t])
        assert float(jnp.abs(have[:, t:] - want[:, t:]).max()) > 1e-3
    have = forward(form)(SOURCE.at[:, 8].set((SOURCE[:, 8] + 1) % 13), TOKENS, None, None)
    assert (jnp.abs(have - want).max(-1) > 1e-5).all()


def test_packed_pairs_are_as_if_alone():
    of_source = jnp.repeat(jnp.array([[1] * 5 + [2] * 3 + [0]]), 3, 0)
    of_target = jnp.repeat(jnp.array([[1] * 4 + [2] * 5 + [0]]), 3, 0)
    packed = forward()(SOURCE, TOKENS, of_source, of_target)
    for (a, b), (c, d) in zip(((0, 5), (5, 8)), ((0, 4), (4, 9))):
        alone = forward()(SOURCE[:, a:b], TOKENS[:, c:d], None, None)
        np.testing.assert_allclose(packed[:, c:d], alone, atol=3e-5)
    assert float(jnp.abs(packed - forward()(SOURCE, TOKENS, None, None))[:, :9].max()) > 1e-3


def test_padding_changes_nothing():
    of_source = jnp.where(jnp.arange(9) < jnp.array([[9], [7], [4]]), 1, 0)
    of_target = jnp.where(jnp.arange(10) < jnp.array([[10], [6], [5]]), 1, 0)
    want = forward()(SOURCE, TOKENS, of_source, of_target)
    other = [jnp.where(s, x, (x + 5) % 13) for s, x in ((of_source, SOURCE), (of_target, TOKENS))]
    have = forward()(*other, of_source, of_target)
    real = np.asarray(of_target) > 0
    np.testing.assert_array_equal(np.asarray(have)[real], np.asarray(want)[real])
    # Nor where the targets have no sentences.
    want, have = (forward()(source, TOKENS, of_source, None) for source in (SOURCE, other[0]))
    np.testing.assert_array_equal(have, want)
    alone = forward()(SOURCE[2:, :4], TOKENS[2:], None, None)
    np.testing.assert_allclose(have[2:], alone, atol=3e-5)


@pytest.mark.parametrize("form", [0, 1])
def test_cached_decoding_is_the_full_forward_pass(form):
    model, params = start(form)
    valid = jnp.arange(9) < jnp.array([[9], [7], [4]])
    want = forward(form)(SOURCE, TOKENS, valid.astype(jnp.int32), jnp.ones_like(TOKENS))
    decode = quick(lambda *a: model.apply({"params": params}, *a, method="decode"))
    cache = model.empty_cache(3, 11, 9)
    output = decode(TOKENS[:, :2], jnp.broadcast_to(jnp.arange(2), (3, 2)), cache, (SOURCE, valid))
    have = [output.logits]
    for t in range(2, 10):
        output = decode(TOKENS[:, t : t + 1], jnp.full((3, 1), t), output.cache)
        have.append(output.logits)
    np.testing.assert_allclose(jnp.concatenate(have, 1), want, atol=3e-5)


def test_scan_and_remat_change_nothing():
    _, params = start()
    rng = jax.random.split(jax.random.key(3), 3)

    def loss(model, params):
        # Row b weighs differently, so that mixing up examples shows.
        logits = model.apply({"params": params}, SOURCE, TOKENS, train=True, rng=rng).logits
        return (jnp.cos(logits).sum((1, 2)) * (1.0 + jnp.arange(3))).sum()

    noisy = Transformer(**SMALL, **FORMS[0], **NOISE)
    want, want_grads = quick(jax.value_and_grad(functools.partial(loss, noisy)))(params)
    other = Transformer(**SMALL, **FORMS[0], **NOISE, unroll=False, remat="full")
    have, grads = quick(jax.value_and_grad(functools.partial(loss, other)))(params)
    np.testing.assert_allclose(have, want, rtol=1e-5)
    for (name, a), b in zip(tree.named_leaves(want_grads), jax.tree.leaves(grads)):
        if name.endswith("key/bias"):  # a constant added to all scores of a row changes nothing
            assert float(jnp.abs(a).max()) < 1e-4
            continue
        assert float(jnp.abs(a).max()) > 1e-4, name
        np.testing.assert_allclose(b, a, atol=1e-5 * float(jnp.abs(a).max()), err_msg=name)


def test_attention_is_shown_by_stack():
    model, params = start()
    shown = jax.eval_shape(
        lambda p: model.apply({"params": p}, SOURCE, TOKENS, return_attention=True).intermediates, params
    )
    assert shown["encoder_attention_01"].shape == (3, 2, 9, 9)
    assert shown["decoder_attention_01"].shape == (3, 2, 10, 10)
    assert shown["cross_attention_01"].shape == (3, 2, 10, 9)


@pytest.mark.parametrize(("name", "parameters"), [("base", 63_082_496), ("big", 214_245_376)])
def test_published_sizes_have_their_parameters(name, parameters):
    # Printed as 65M and 213M; the vocabulary is "about 37000" tokens.
    width, mlp_dim = {"base": (512, 2048), "big": (1024, 4096)}[name]
    attention, mlp, norm = 4 * (width**2 + width), 2 * width * mlp_dim + width + mlp_dim, 2 * width
    assert parameters == 37_000 * width + 6 * (attention + mlp + 2 * norm) + 6 * (2 * attention + mlp + 3 * norm)
    _, variables, _ = table.abstract(f"Transformer-{name}")
    assert tree.size(variables["params"]) == parameters


def test_sequences_that_do_not_fit_are_refused():
    model, params = start()
    with pytest.raises(UserError, match=r"source: 13 in a sequence, but the model has 12 positions \(model.context\)"):
        model.apply({"params": params}, jnp.zeros((1, 13), jnp.int32), TOKENS[:1])
    with pytest.raises(UserError, match=r"tokens: expected \[batch, length\]"):
        model.apply({"params": params}, SOURCE, jnp.zeros(4, jnp.int32))
    with pytest.raises(UserError, match="segment_ids: sentences of the target without those of the source"):
        model.apply({"params": params}, SOURCE, TOKENS, segment_ids=jnp.ones_like(TOKENS))
    with pytest.raises(UserError, match="width 15 does not divide into 2 heads"):
        Transformer(**SMALL | {"width": 15}).init(jax.random.key(0), SOURCE, TOKENS)
