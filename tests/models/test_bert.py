"""Laws of the BERT: padding and neighbours change nothing, one model however it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models.bert import BERT

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2, "vocab_size": 13, "context": 12}
NOISE = {"dropout": 0.2, "attention_dropout": 0.2}
TOKENS = jax.random.randint(jax.random.key(1), (3, 10), 0, 13)
TYPES = jnp.asarray([[0] * 5 + [1] * 5] * 3)
HEADS = {"pretraining": 0, "mlm": 0, "classification": 3, "span": 0, "none": 0}
SHAPES = {"pretraining": (3, 10, 13), "mlm": (3, 10, 13), "classification": (3, 3), "span": (3, 10, 2), "none": None}


def build(head="pretraining", **fields):
    return BERT(**SMALL, head=head, num_classes=HEADS[head], **fields)


@functools.cache
def start(head="pretraining"):
    """A model and parameters with every leaf away from zero."""
    model = build(head)
    params = quick(lambda x: nn.meta.unbox(model.init(jax.random.key(0), x))["params"])(TOKENS)
    noise = np.random.default_rng(2)
    return model, jax.tree.map(lambda p: p + 0.1 * noise.standard_normal(p.shape, np.float32), params)


@functools.cache
def forward():
    model, _ = start()
    return quick(lambda p, tokens, **others: model.apply({"params": p}, tokens, **others))


def loss(model, params, rng=None):
    # Row b weighs differently, so that mixing up examples shows.
    output = model.apply({"params": params}, TOKENS, token_types=TYPES, train=rng is not None, rng=rng)
    seen = [output.logits, output.intermediates.get("next_sentence")]
    if output.logits is None:
        seen = [output.features, output.intermediates["pooled"]]
    rows = sum(jnp.cos(x.reshape(3, -1)).sum(1) for x in seen if x is not None)
    return (rows * (1.0 + jnp.arange(3))).sum()


def test_every_token_sees_every_other():
    _, params = start()
    want = forward()(params, TOKENS).logits
    changed = forward()(params, TOKENS.at[:, 9].set((TOKENS[:, 9] + 1) % 13)).logits
    assert float(jnp.abs(changed - want).max(-1).min()) > 1e-4


def test_what_stands_in_padding_changes_nothing():
    _, params = start()
    segments = jnp.where(jnp.arange(10) < jnp.array([[10], [7], [4]]), 1, 0)
    want = forward()(params, TOKENS, segment_ids=segments, token_types=TYPES)
    real = segments > 0
    tokens, types = (jnp.where(real, x, (x + 1) % n) for x, n in ((TOKENS, 13), (TYPES, 2)))
    have = forward()(params, tokens, segment_ids=segments, token_types=types)
    np.testing.assert_array_equal(have.logits[real], want.logits[real])
    for name in ("pooled", "next_sentence"):
        np.testing.assert_array_equal(have.intermediates[name], want.intermediates[name])
    alone = forward()(params, TOKENS[1:2, :7], token_types=TYPES[1:2, :7])
    np.testing.assert_allclose(want.logits[1, :7], alone.logits[0], atol=2e-5)


def test_packed_sequences_are_as_if_alone():
    _, params = start()
    segments = jnp.repeat(jnp.array([[1] * 4 + [2] * 5 + [0]]), 3, 0)
    packed = forward()(params, TOKENS, segment_ids=segments).logits
    for first, last in ((0, 4), (4, 9)):
        alone = forward()(params, TOKENS[:, first:last]).logits
        np.testing.assert_allclose(packed[:, first:last], alone, atol=2e-5)
    assert float(jnp.abs(packed - forward()(params, TOKENS).logits)[:, 4:9].max()) > 1e-3


def test_masked_positions_are_those_of_all():
    _, params = start()
    positions = jnp.array([[7, 0, 0], [1, 9, 3], [4, 4, 8]])
    want = forward()(params, TOKENS).logits
    have = forward()(params, TOKENS, masked_positions=positions).logits
    np.testing.assert_allclose(have, want[jnp.arange(3)[:, None], positions], atol=1e-5)


def test_types_and_positions_are_seen():
    _, params = start()
    want = forward()(params, TOKENS).logits
    assert float(jnp.abs(forward()(params, TOKENS, token_types=TYPES).logits - want).max()) > 1e-3
    turned = forward()(params, TOKENS[:, ::-1]).logits[:, ::-1]
    assert float(jnp.abs(turned - want).max()) > 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_heads(head):
    model, params = start(head)
    output = jax.eval_shape(lambda p: model.apply({"params": p}, TOKENS), params)
    assert (None if output.logits is None else output.logits.shape) == SHAPES[head]
    assert output.features.shape == (3, 10, 16)
    pooled = head in ("pretraining", "classification", "none")
    assert ("pooled" in output.intermediates, "pooler" in params) == (pooled, pooled)
    for name, grad in tree.named_leaves(quick(jax.grad(lambda p: loss(model, p)))(params)):
        # A constant added to all scores of a row changes nothing.
        assert name.endswith("key/bias") or float(jnp.abs(grad).max()) > 1e-4, name


def test_scan_and_remat_change_nothing():
    _, params = start("classification")
    rng = jax.random.split(jax.random.key(3), 3)
    noisy = build("classification", **NOISE)
    want, want_grads = quick(jax.value_and_grad(lambda p: loss(noisy, p, rng)))(params)
    other = build("classification", **NOISE, unroll=False, remat="full")
    have, grads = quick(jax.value_and_grad(lambda p: loss(other, p, rng)))(params)
    np.testing.assert_allclose(have, want, rtol=1e-5)
    for (name, a), b in zip(tree.named_leaves(want_grads), jax.tree.leaves(grads)):
        np.testing.assert_allclose(b, a, atol=1e-5 * float(jnp.abs(a).max()) + 1e-6, err_msg=name)


def test_initialisation_is_the_published_one():
    model = BERT(width=128, depth=2, mlp_dim=512, num_heads=4, vocab_size=512, context=256)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), TOKENS))["params"]
    cut = 0.02 * 0.8796  # of a normal distribution without what lies beyond two deviations
    for name, p in tree.named_leaves(params):
        if name.endswith("scale"):
            np.testing.assert_array_equal(p, 1.0)
        elif name.endswith("bias"):
            np.testing.assert_array_equal(p, 0.0)
        else:
            assert float(p.std()) == pytest.approx(cut, rel=0.1), name
            assert float(jnp.abs(p).max()) <= 0.04, name


def test_what_does_not_fit_is_refused():
    model, params = start("span")
    apply = functools.partial(model.apply, {"params": params})
    with pytest.raises(UserError, match=r"13 in a sequence, but the model has 12 positions \(model.context\)"):
        apply(jnp.zeros((1, 13), jnp.int32))
    with pytest.raises(UserError, match=r"expected \[batch, length\]"):
        apply(jnp.zeros(4, jnp.int32))
    with pytest.raises(UserError, match='head "span" predicts no masked tokens'):
        apply(TOKENS, masked_positions=TOKENS[:, :2])
    for wrong, message in (
        ({"width": 15}, "width 15 does not divide into 2 heads"),
        ({"head": "classification"}, 'model.num_classes: 0 with model.head "classification"'),
        ({"num_classes": 2}, 'model.num_classes: 2 with model.head "pretraining"'),
        ({"head": "nsp"}, 'expected one of pretraining, mlm, classification, span, none, got "nsp"'),
    ):
        with pytest.raises(UserError, match=message):
            BERT(**SMALL | wrong).init(jax.random.key(0), TOKENS)
