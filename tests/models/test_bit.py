"""Laws of BiT: one model however it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models.bit import BiT

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"blocks": (3,), "root_width": 8, "num_groups": 4, "num_classes": 5, "zero_head": False}


def images(batch=2, size=(24, 16)):
    return jax.random.normal(jax.random.key(1), (batch, *size, 3))


@functools.cache
def init():
    """Parameters with every leaf away from zero, so that no gradient hides behind a zero."""
    params = quick(lambda x: nn.meta.unbox(BiT(**SMALL).init(jax.random.key(0), x))["params"])(images(1))
    noise = np.random.default_rng(2)
    return jax.tree.map(lambda p: p + 0.05 * noise.standard_normal(p.shape, np.float32), params)


def loss(model, params, x):
    # Row b weighs differently, so that mixing up examples shows.
    logits = model.apply({"params": params}, x).logits
    return (jnp.cos(logits).sum(-1) * (1.0 + jnp.arange(x.shape[0]))).sum()


def gradients(**fields):
    model = BiT(**SMALL, **fields)
    return quick(jax.grad(lambda p: loss(model, p, images())))(init())


def closest(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda p, q: float(jnp.abs(p - q).max()), a, b)))


def largest(a):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(a))


@functools.cache
def plain():
    return gradients()


@pytest.mark.parametrize(
    "how",
    [{"unroll": False}, {"remat": "full"}, {"remat": "dots"}, {"unroll": False, "remat": "dots"}],
)
def test_scan_and_remat_change_nothing(how):
    assert closest(gradients(**how), plain()) < 1e-5 * largest(plain())


@pytest.mark.parametrize("how", [{"unroll": False}, {"remat": "full"}, {"unroll": False, "remat": "full"}])
def test_scan_and_remat_are_in_the_program(how):
    text = str(jax.make_jaxpr(lambda p: BiT(**SMALL, **how).apply({"params": p}, images()).logits)(init()))
    assert ("scan[" in text) == ("unroll" in how)
    assert ("remat" in text) == ("remat" in how)


def test_each_policy_keeps_what_its_name_says():
    def kept(remat):
        model, x = BiT(**SMALL, remat=remat), images(size=(96, 96))
        saved = jax.eval_shape(lambda p: jax.vjp(lambda p: model.apply({"params": p}, x).logits, p)[1], init())
        return sum(leaf.size for leaf in jax.tree.leaves(saved))

    none, dots, full = kept("none"), kept("dots"), kept("full")
    assert none > 1.3 * dots
    # The bottlenecks' two convolutions of 8 channels, 3 units, 24x24 pixels, 2 images; nobody reads the sums' parts.
    assert dots - full == 2 * 8 * 3 * 24 * 24 * 2
    assert kept("dots_with_no_batch_dims") == dots


def test_parameters_are_the_same_scanned_or_not():
    shapes = [jax.eval_shape(BiT(**SMALL, unroll=u).init, jax.random.key(0), images(1)) for u in (True, False)]
    assert tree.difference(*map(nn.meta.unbox, shapes)) == []


def test_parameters_are_float32_and_named():
    boxed = jax.eval_shape(BiT(**SMALL, dtype="bfloat16").init, jax.random.key(0), images())["params"]
    specs = dict(tree.named_leaves(nn.get_partition_spec(boxed)))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(boxed))
    convolutions, norms = ("conv_1", "conv_2", "conv_3"), ("norm_1", "norm_2", "norm_3")
    units = [f"block_1/unit_{i:02d}" for i in (1, 2, 3)]
    names = {"root/kernel", "norm/scale", "norm/bias", "head/kernel", "head/bias"}
    names |= {f"{u}/{c}/kernel" for u in units for c in convolutions}
    names |= {f"{u}/{n}/{leaf}" for u in units for n in norms for leaf in ("scale", "bias")}
    assert set(specs) == names | {"block_1/unit_01/proj/kernel"}
    assert tuple(specs["block_1/unit_03/conv_2/kernel"]) == (None, None, "channels", "embed")
    assert tuple(specs["head/kernel"]) == ("embed", "classes")


def test_every_parameter_gets_a_gradient():
    for name, g in tree.named_leaves(plain()):
        assert np.isfinite(g).all(), name
        assert float(jnp.abs(g).max()) > 1e-5, name


def test_examples_do_not_see_each_other():
    model, x = BiT(**SMALL), images(4)
    apply = quick(lambda x: model.apply({"params": init()}, x).logits)
    np.testing.assert_allclose(apply(x), jnp.concatenate([apply(x[:2]), apply(x[2:])]), atol=1e-5)


def intermediates(model, params, x):
    return quick(lambda p, x: model.apply({"params": p}, x, return_intermediates=True).intermediates)(params, x)


def test_the_stem_pads_with_zeros_that_take_part_in_the_maximum():
    model = BiT(**SMALL)
    # A root of nothing but negative numbers: the border's zeros win where they are seen.
    params = init() | {"root": {"kernel": jnp.zeros((7, 7, 3, 8)).at[3, 3].set(-1.0).at[3, 2].set(-0.5)}}
    x = intermediates(model, params, jnp.ones((1, 32, 32, 3)))["root"][0]
    assert x.shape == (8, 8, 8)
    assert (x[0] == 0).all()
    assert (x[:, 0] == 0).all()


def test_intermediates_and_features():
    model = BiT(**SMALL | {"blocks": (1, 1)})
    run = functools.partial(model.apply, return_intermediates=True)
    shapes = jax.eval_shape(run, jax.eval_shape(model.init, jax.random.key(0), images()), images()).intermediates
    assert {name: value.shape for name, value in shapes.items()} == {
        "root": (2, 6, 4, 8),
        "block_1": (2, 6, 4, 32),
        "block_2": (2, 3, 2, 64),
        "maps": (2, 3, 2, 64),
    }
    output = quick(lambda p, x: BiT(**SMALL).apply({"params": p}, x, return_intermediates=True))(init(), images())
    np.testing.assert_allclose(output.features, output.intermediates["maps"].mean((1, 2)), rtol=1e-6)
    assert float(output.features.min()) >= 0


def test_bfloat16_stays_near_float32():
    x = images(8)
    want = quick(lambda p, x: BiT(**SMALL).apply({"params": p}, x).logits)(init(), x)
    model = BiT(**SMALL, dtype="bfloat16", unroll=False)
    output = quick(lambda p, x: model.apply({"params": p}, x))(init(), x)
    assert (output.logits.dtype, output.features.dtype) == (jnp.float32, jnp.bfloat16)
    error = jnp.sqrt(((output.logits - want) ** 2).mean()) / want.std()
    assert 1e-4 < float(error) < 0.05


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"num_groups": 3}, "8 channels do not divide into 3 groups"),
        ({"remat": "dot"}, 'model.remat.*Did you mean "dots"'),
        ({"blocks": ()}, "model.blocks: expected units a stage"),
    ],
)
def test_wrong_fields_are_named(extra, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(BiT(**SMALL | extra).apply, {"params": init()}, images())
