"""EfficientNet: ways of running agree, examples stay apart, options do what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.layers.mbconv import Convolution, Style
from vitax.models.efficientnet import EfficientNet
from vitax.parallel.rules import DEFAULT_RULES

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {
    "stages": ((3, 1, 1, 8, 1), (3, 2, 2, 8, 3)),
    "stem_channels": 8,
    "top_channels": 16,
    "num_classes": 3,
    "dropout": 0.2,
    "stochastic_depth": 0.5,
}
X = jax.random.normal(jax.random.key(3), (5, 15, 16, 3))
RNG = jax.random.split(jax.random.key(1), 5)


@functools.cache
def variables(**changes):
    """With every leaf away from zero, so that nothing hides behind a zero."""
    start = nn.meta.unbox(quick(EfficientNet(**SMALL | changes).init)(jax.random.key(0), X))
    noise = np.random.default_rng(2)
    return jax.tree.map(lambda p: p + 0.05 * np.abs(noise.standard_normal(p.shape, np.float32)), start)


def apply(model, start=None, x=X, **kwargs):
    return quick(lambda v, x: model.apply(v, x, **kwargs))(start or variables(), x)


def forward(model, x=X, rng=RNG):
    """(logits, statistics) in training."""
    output, changed = apply(model, x=x, train=True, rng=rng, mutable=["batch_stats"])
    return output.logits, changed


def train(model):
    """((loss, (logits, statistics)), gradients)."""
    start = variables()

    def loss(params):
        output, changed = model.apply({**start, "params": params}, X, train=True, rng=RNG, mutable=["batch_stats"])
        return jnp.sin(output.logits).sum(), (output.logits, changed)

    return quick(jax.value_and_grad(loss, has_aux=True))(start["params"])


@pytest.fixture(scope="module")
def plain():
    return train(EfficientNet(**SMALL))


@pytest.mark.parametrize("fields", [{"unroll": False, "remat": "full"}, {"remat": "dots"}], ids=str)
def test_ways_of_running_agree_in_logits_statistics_and_gradients(plain, fields):
    got = train(EfficientNet(**SMALL, **fields))
    assert tree.difference(plain, got) == []
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(plain[1]))
    for (name, want), have in zip(tree.named_leaves(plain), jax.tree.leaves(got)):
        # The gradient of a bias that the next norm takes away is zero: rounding has no scale of its own.
        scale = largest if name.endswith("project_norm/bias") else float(jnp.abs(want).max())
        assert float(jnp.abs(want - have).max()) <= 1e-5 * scale, name


def test_every_parameter_gets_a_gradient_and_every_statistic_moves(plain):
    for name, leaf in tree.named_leaves(plain[1]):
        assert float(jnp.abs(leaf).max()) > 0, name
    before, after = variables()["batch_stats"], plain[0][1][1]["batch_stats"]
    for (name, old), new in zip(tree.named_leaves(before), jax.tree.leaves(after)):
        assert float(jnp.abs(old - new).min()) > 0, name


def test_evaluation_sees_each_example_alone_and_no_randomness():
    model = EfficientNet(**SMALL)
    logits = quick(lambda x, rng: model.apply(variables(), x, rng=rng).logits)
    whole = logits(X, RNG)
    other = logits(X.at[1:].set(9.0), RNG[::-1])
    np.testing.assert_allclose(whole[0], other[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(apply(model, x=X[:1]).logits[0], whole[0], rtol=1e-5, atol=1e-6)


def test_noise_follows_the_key_of_the_example(plain):
    """Rows in another order: the statistics are the same, so only keys could tell them apart."""
    order = np.array([3, 1, 4, 0, 2])
    logits, changed = forward(EfficientNet(**SMALL), X[order], RNG[order])
    np.testing.assert_allclose(logits, plain[0][1][0][order], rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(plain[0][1][1])):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    quiet, _ = forward(EfficientNet(**SMALL), X, None)
    assert np.abs(quiet - plain[0][1][0]).max() > 1e-3


def test_survival_falls_linearly_by_block_from_one():
    keep = EfficientNet(**SMALL).keep_probabilities()
    np.testing.assert_allclose(keep, [1.0, 0.875, 0.75, 0.625])
    b0 = EfficientNet(stochastic_depth=0.2)
    assert sum(b0.blocks) == 16
    assert b0.keep_probabilities()[-1] == pytest.approx(1 - 0.2 * 15 / 16)
    assert EfficientNet().keep_probabilities() is None


def test_a_branch_is_dropped_for_whole_examples():
    """One residual block whose branch is all but always dropped: what is left is its input."""
    one = {**SMALL, "stages": ((3, 1, 2, 8, 2),), "dropout": 0.0, "stochastic_depth": 2 * (1 - 1e-6)}
    model = EfficientNet(**one)
    start = nn.meta.unbox(quick(model.init)(jax.random.key(0), X))
    output, _ = apply(model, start, train=True, rng=RNG, return_intermediates=True, mutable=["batch_stats"])
    # Block 0 is kept for certain; with block 1 dropped the stage's result is block 0's.
    alone = EfficientNet(**{**one, "stages": ((3, 1, 2, 8, 1),), "stochastic_depth": 0.0})
    stage = {"block_01": start["params"]["stage_1"]["block_01"]}
    statistics = {"block_01": start["batch_stats"]["stage_1"]["block_01"]}
    cut = {
        "params": {**start["params"], "stage_1": stage},
        "batch_stats": {**start["batch_stats"], "stage_1": statistics},
    }
    want, _ = apply(alone, cut, train=True, return_intermediates=True, mutable=["batch_stats"])
    np.testing.assert_allclose(output.intermediates["stage_1"], want.intermediates["stage_1"], rtol=1e-5, atol=1e-5)


def test_intermediates_and_features():
    output = apply(EfficientNet(**SMALL), return_intermediates=True)
    shapes = {name: x.shape for name, x in output.intermediates.items()}
    assert shapes == {
        "stem": (5, 8, 8, 8),
        "stage_1": (5, 8, 8, 8),
        "stage_2": (5, 4, 4, 8),
        "top": (5, 4, 4, 16),
    }
    np.testing.assert_allclose(output.features, output.intermediates["top"].mean((1, 2)), rtol=1e-5, atol=1e-6)
    start = variables(num_classes=0)
    headless = EfficientNet(**SMALL | {"num_classes": 0})
    assert jax.eval_shape(lambda: headless.apply(start, X)).logits is None


def test_names():
    block = {"expand", "expand_norm", "depthwise", "depthwise_norm", "squeeze", "excite", "project", "project_norm"}
    params, statistics = variables()["params"], variables()["batch_stats"]
    assert set(params) == {"stem", "stage_1", "stage_2", "top", "head"}
    assert set(params["stage_2"]) == {"block_01", "block_02", "block_03"}
    assert set(params["stage_2"]["block_02"]) == block
    assert set(params["stage_1"]["block_01"]) == block - {"expand", "expand_norm"}
    assert set(statistics) == {"stem", "stage_1", "stage_2", "top"}
    shapes = {n: x.shape for n, x in tree.named_leaves(params["stage_2"]["block_01"])}
    assert shapes["expand/kernel"] == (1, 1, 8, 16)
    assert shapes["depthwise/kernel"] == (3, 3, 1, 16)
    assert shapes["squeeze/kernel"] == (16, 2)  # a quarter of the 8 that come in
    assert shapes["excite/bias"] == (16,)
    assert "head" not in variables(num_classes=0)["params"]


def test_logical_names_are_in_the_table():
    boxed = jax.eval_shape(EfficientNet(**SMALL).init, jax.random.key(0), X)
    leaves = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))
    assert {name for leaf in leaves for name in leaf.names} - {None} <= DEFAULT_RULES.keys()
    assert all(len(leaf.names) == leaf.value.ndim for leaf in leaves)


@pytest.mark.parametrize(("side", "stride", "before"), [(8, 2, 0), (9, 2, 1), (8, 1, 1)])
def test_same_padding_is_tensorflows(side, stride, before):
    """An impulse kernel shows where the window begins: stride 2 on even sides pads after alone."""
    x = jnp.arange(1.0, side * side + 1).reshape(1, side, side, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)
    for padding, expected in (("same", before), ("symmetric", 1)):
        conv = Convolution(1, 3, (None, "embed"), Style(padding=padding), stride, depthwise=True)
        y = conv.apply({"params": {"kernel": kernel}}, x)
        assert y.shape[1] == -(-side // stride)
        want = np.pad(np.asarray(x), ((0, 0), (expected, 3), (expected, 3), (0, 0)))
        np.testing.assert_array_equal(y, want[:, : stride * y.shape[1] : stride, : stride * y.shape[1] : stride])


def test_bfloat16_stays_near_float32():
    wide = apply(EfficientNet(**SMALL))
    narrow = apply(EfficientNet(**SMALL, dtype="bfloat16"))
    assert (narrow.logits.dtype, narrow.features.dtype) == (jnp.float32, jnp.bfloat16)
    scale = float(jnp.abs(wide.logits).max())
    assert float(jnp.abs(wide.logits - narrow.logits).max()) < 0.03 * scale


def test_images_of_another_rank_are_an_error():
    with pytest.raises(UserError, match="expected \\[batch, height, width, channels\\]"):
        EfficientNet(**SMALL).apply(variables(), X[0])
