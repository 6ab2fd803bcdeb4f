"""Laws of the ViT: one model however it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.layers.kernels import interpreting
from vitax.layers.remat import REMAT_POLICIES
from vitax.models.vit import ViT

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2, "patch_size": 4, "num_classes": 5, "zero_head": False}
NOISE = {"dropout": 0.2, "attention_dropout": 0.2, "stochastic_depth": 0.5}


def images(batch=4, size=(16, 16), seed=1):
    return jax.random.normal(jax.random.key(seed), (batch, *size, 3))


def init(model, size=(16, 16)):
    """Parameters with every leaf away from zero, so that no gradient hides behind a zero."""
    params = quick(lambda x: nn.meta.unbox(model.init(jax.random.key(0), x))["params"])(images(1, size))
    noise = np.random.default_rng(2)
    return jax.tree.map(lambda p: p + 0.05 * noise.standard_normal(p.shape, np.float32), params)


def apply(model, params, x, **kwargs):
    """``model.apply`` compiled; an rng is an argument, the rest is static."""
    rng = kwargs.pop("rng", None)
    return quick(lambda p, x, rng: model.apply({"params": p}, x, rng=rng, **kwargs))(params, x, rng)


def loss(model, params, x, rng=None):
    # Row b weighs differently, so that mixing up examples shows.
    logits = model.apply({"params": params}, x, train=rng is not None, rng=rng).logits
    return (jnp.cos(logits).sum(-1) * (1.0 + jnp.arange(x.shape[0]))).sum()


def closest(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda p, q: float(jnp.abs(p - q).max()), a, b)))


def largest(a):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(a))


@pytest.mark.parametrize("pool", ["tok", "gap", "map"])
def test_scan_equals_unrolled_with_noise(pool):
    fields = {**SMALL, **NOISE, "pool": pool, "layer_scale": 0.1, "num_registers": 2}
    unrolled, scanned = ViT(**fields), ViT(**fields, unroll=False)
    params, x, rng = init(unrolled), images(), jax.random.split(jax.random.key(3), 4)
    assert tree.difference(params, nn.meta.unbox(scanned.init(jax.random.key(0), x))["params"]) == []
    one, grads_one = quick(jax.value_and_grad(lambda p: loss(unrolled, p, x, rng)))(params)
    two, grads_two = quick(jax.value_and_grad(lambda p: loss(scanned, p, x, rng)))(params)
    assert one == pytest.approx(float(two), abs=2e-5)
    assert closest(grads_one, grads_two) < 1e-5 * largest(grads_one)
    # The noise is on: without it the answer is another one.
    assert abs(float(one) - float(quick(lambda p: loss(unrolled, p, x))(params))) > 1e-2


def test_init_is_the_same_scanned_or_not():
    assert closest(*(init(ViT(**SMALL, unroll=unroll)) for unroll in (True, False))) == 0.0


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("remat", [name for name in REMAT_POLICIES if name != "none"])
def test_remat_changes_nothing(remat, unroll):
    fields = {**SMALL, **NOISE, "unroll": unroll}
    plain, model = ViT(**fields), ViT(**fields, remat=remat)
    params, x, rng = init(plain), images(), jax.random.split(jax.random.key(3), 4)
    want = quick(jax.grad(lambda p: loss(plain, p, x, rng)))(params)
    have = quick(jax.grad(lambda p: loss(model, p, x, rng)))(params)
    assert closest(want, have) < 1e-5 * largest(want)


def test_noise_does_not_depend_on_how_the_batch_is_split():
    model = ViT(**SMALL, **NOISE)
    params, x, rng = init(model), images(6), jax.random.split(jax.random.key(3), 6)

    def logits(part, keys=rng):
        return apply(model, params, x[part], train=True, rng=keys[part]).logits

    whole = logits(slice(0, 6))
    halves = jnp.concatenate([logits(slice(0, 2)), logits(slice(2, 6))])
    np.testing.assert_allclose(whole, halves, atol=2e-6)
    other = logits(slice(0, 6), jax.random.split(jax.random.key(4), 6))
    assert float(jnp.abs(whole - other).max()) > 1e-2


@pytest.mark.parametrize("field", ["dropout", "attention_dropout", "stochastic_depth"])
def test_each_noise_acts_only_in_training_with_keys(field):
    model = ViT(**SMALL, **{field: 0.5})
    params, x, rng = init(model), images(), jax.random.split(jax.random.key(3), 4)
    plain = apply(ViT(**SMALL), params, x).logits
    assert closest(plain, apply(model, params, x, train=True).logits) == 0.0
    assert closest(plain, apply(model, params, x, train=False, rng=rng).logits) == 0.0
    assert closest(plain, apply(model, params, x, train=True, rng=rng).logits) > 1e-3


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"num_registers": 2, "layer_scale": 0.1, "pre_logits": True, "gelu": "erf"},
        {"pool": "gap", "position": "sincos2d"},
        {"pool": "gap", "norm_after_pool": True},
        {"pool": "map", "pre_logits": 7, "unroll": False, "remat": "full"},
    ],
)
def test_every_parameter_gets_a_gradient(extra):
    model = ViT(**SMALL | extra)
    params = init(model)
    grads = quick(jax.grad(lambda p: loss(model, p, images())))(params)
    for name, g in tree.named_leaves(grads):
        assert np.isfinite(g).all(), name
        if name.endswith("key/bias"):
            # A constant added to every score of a row: softmax does not see it.
            assert float(jnp.abs(g).max()) < 1e-4, name
        else:
            assert float(jnp.abs(g).max()) > 1e-5, name


def test_logits_start_at_the_bias_of_the_head():
    model = ViT(**SMALL | {"zero_head": True}, head_bias_init=-10.0)
    params = quick(model.init)(jax.random.key(0), images())["params"]
    output = apply(model, params, images())
    assert output.logits.dtype == jnp.float32
    assert (output.logits == -10.0).all()
    assert output.features.shape == (4, 16)


def test_no_head_gives_features_alone():
    model = ViT(**SMALL | {"num_classes": 0}, pre_logits=7)
    output = apply(model, init(model), images())
    assert output.logits is None
    assert output.features.shape == (4, 7)
    assert float(jnp.abs(output.features).max()) <= 1.0


@pytest.mark.parametrize("unroll", [True, False])
def test_intermediates_by_name(unroll):
    model = ViT(**SMALL, num_registers=2, unroll=unroll)
    params, x = init(model), images()
    plain = apply(model, params, x)
    assert plain.intermediates == {}
    output = apply(model, params, x, return_intermediates=True, return_attention=True)
    shapes = {name: value.shape for name, value in output.intermediates.items()}
    assert shapes == {
        "embedding": (4, 19, 16),
        **{f"block_{i:02d}": (4, 19, 16) for i in range(2)},
        **{f"attention_{i:02d}": (4, 2, 19, 19) for i in range(2)},
        "patch_tokens": (4, 16, 16),
    }
    np.testing.assert_allclose(output.logits, plain.logits, atol=1e-6)
    np.testing.assert_allclose(output.intermediates["attention_01"].sum(-1), 1.0, atol=1e-5)
    # The last block and the patch tokens differ by the final norm alone.
    last = output.intermediates["block_01"][:, 3:]
    normed = (last - last.mean(-1, keepdims=True)) / jnp.sqrt(last.var(-1, keepdims=True) + model.norm_eps)
    norm = params["encoder"]["norm"]
    np.testing.assert_allclose(output.intermediates["patch_tokens"], normed * norm["scale"] + norm["bias"], atol=1e-5)


def test_images_and_patches_need_not_be_square():
    model = ViT(**SMALL | {"patch_size": (4, 2)})
    params = init(model, (8, 12))
    assert params["pos_embedding"].shape == (1, 2 * 6 + 1, 16)
    assert params["embedding"]["kernel"].shape == (4, 2, 3, 16)
    # Pixels of one patch reach that patch's token: (row 1, column 4) of 6 columns.
    x = jnp.zeros((1, 8, 12, 3)).at[0, 5, 9].set(1.0)
    tokens = [apply(model, params, y, return_intermediates=True).intermediates["embedding"] for y in (x, 0 * x)]
    moved = jnp.abs(tokens[0] - tokens[1]).max(-1)[0]
    assert [int(i) for i in jnp.flatnonzero(moved)] == [1 + 6 + 4]


def test_another_image_size_is_refused_with_both_sizes():
    model = ViT(**SMALL)
    params = init(model)
    with pytest.raises(UserError, match=r"images of 24x24 px make 36 patches.* 16 \(16x16 px if square\).*resample"):
        model.apply({"params": params}, images(1, (24, 24)))
    with pytest.raises(UserError, match="images of 18x16 px do not divide into patches of 4x4"):
        model.apply({"params": params}, images(1, (18, 16)))


def test_image_size_tells_arrangements_apart():
    model = ViT(**SMALL, image_size=(8, 32))
    params = init(model, (8, 32))
    with pytest.raises(UserError, match="images of 32x8 px, .* for 8x32 px"):
        model.apply({"params": params}, images(1, (32, 8)))


@pytest.mark.parametrize("how", [{}, {"unroll": False}, {"remat": "full"}, {"remat": "dots", "unroll": False}])
def test_the_pallas_kernel_changes_nothing(how):
    fields = {**SMALL, "dropout": 0.2, "stochastic_depth": 0.5}
    xla, pallas = ViT(**fields), ViT(**fields, **how, attention_kernel="pallas")
    params, x, rng = init(xla), images(), jax.random.split(jax.random.key(3), 4)
    one, grads_one = quick(jax.value_and_grad(lambda p: loss(xla, p, x, rng)))(params)
    with interpreting():
        text = str(jax.make_jaxpr(lambda p: loss(pallas, p, x, rng))(params))
        two, grads_two = quick(jax.value_and_grad(lambda p: loss(pallas, p, x, rng)))(params)
        shown = apply(pallas, params, x, return_attention=True).intermediates
    assert "flat_attention_forward" in text
    np.testing.assert_allclose(two, one, rtol=1e-5)
    assert closest(grads_one, grads_two) < 1e-5 * largest(grads_one)
    for name, weights in apply(xla, params, x, return_attention=True).intermediates.items():
        np.testing.assert_allclose(shown[name], weights, atol=1e-5)


def test_sincos_positions_take_any_size():
    model = ViT(**SMALL | {"pool": "gap"}, position="sincos2d")
    params = init(model)
    assert "pos_embedding" not in params
    assert apply(model, params, images(1, (24, 8))).logits.shape == (1, 5)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"num_heads": 3}, "width 16 does not divide into 3 heads"),
        ({"pool": "avg"}, "model.pool: expected one of tok, gap, map"),
        ({"remat": "dot"}, 'model.remat.*Did you mean "dots"'),
        ({"norm_after_pool": True}, "only for pool"),
        ({"attention_kernel": "flash"}, "model.attention_kernel: expected one of xla, pallas"),
        ({"attention_kernel": "pallas", "attention_dropout": 0.1}, r"cannot take attention_dropout 0\.1"),
    ],
)
def test_wrong_fields_are_named(extra, message):
    model = ViT(**SMALL | extra)
    with pytest.raises(UserError, match=message):
        apply(model, init(model), images())


def test_bfloat16_stays_near_float32():
    fields = {**SMALL, "width": 64, "depth": 6, "mlp_dim": 256, "num_heads": 4}
    params, x = init(ViT(**fields)), images(8)
    want = apply(ViT(**fields), params, x).logits
    for unroll in (True, False):
        output = apply(ViT(**fields, dtype="bfloat16", unroll=unroll), params, x)
        assert output.logits.dtype == jnp.float32
        assert output.features.dtype == jnp.bfloat16
        # bfloat16 has 8 bits: some 0.4% a rounding, less than 3% of the spread of the logits after 6 blocks.
        error = jnp.sqrt(((output.logits - want) ** 2).mean()) / want.std()
        assert 1e-4 < float(error) < 0.03


def test_parameters_are_float32_and_named():
    model = ViT(**SMALL, num_registers=1, layer_scale=0.1, pre_logits=True, dtype="bfloat16")
    boxed = jax.eval_shape(model.init, jax.random.key(0), images())["params"]
    specs = dict(tree.named_leaves(nn.get_partition_spec(boxed)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(boxed))
    assert tuple(specs["encoder/block_00/attention/query/kernel"]) == ("embed", "heads", "head_dim")
    assert tuple(specs["encoder/block_01/attention/out/kernel"]) == ("heads", "head_dim", "embed")
    assert tuple(specs["encoder/block_01/mlp/in/kernel"]) == ("embed", "mlp")
    assert len(specs) == 5 + 2 + 4 + 2 * 18
