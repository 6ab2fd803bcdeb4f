"""Laws of the hybrids: one model however it is run, and a ViT behind its stem."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.layers.conv import Conv
from vitax.layers.norm import GroupNorm
from vitax.layers.residual import PostActivationUnit
from vitax.models.hybrid import Hybrid
from vitax.optim.leaves import layer_ids

# Programs that run once: the compiler's optimiser would be most of the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {
    "width": 16,
    "depth": 1,
    "mlp_dim": 24,
    "num_heads": 2,
    "patch_size": 1,
    "num_classes": 5,
    "zero_head": False,
    "stem_blocks": (3,),
    "stem_width": 8,
    "stem_groups": 4,
}


def images(batch=2, size=(12, 16)):
    return jax.random.normal(jax.random.key(1), (batch, *size, 3))


@functools.cache
def init():
    """Parameters with every leaf away from zero, so that no gradient hides behind a zero."""
    shapes = jax.eval_shape(Hybrid(**SMALL).init, jax.random.key(0), images(1))["params"]
    noise = np.random.default_rng(2)
    return jax.tree.map(lambda p: jnp.asarray(0.3 * noise.standard_normal(p.shape, np.float32)), nn.meta.unbox(shapes))


def gradients(**fields):
    model = Hybrid(**SMALL, **fields)

    def loss(params):
        logits = model.apply({"params": params}, images()).logits
        return (jnp.cos(logits).sum(-1) * (1.0 + jnp.arange(2))).sum()

    return quick(jax.grad(loss))(init())


@functools.cache
def plain():
    return gradients()


def test_scan_and_remat_change_nothing():
    how = {"unroll": False, "remat": "full"}
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(plain()))
    for (name, have), want in zip(tree.named_leaves(gradients(**how)), jax.tree.leaves(plain())):
        assert float(jnp.abs(have - want).max()) < 1e-5 * largest, name


def test_every_parameter_gets_a_gradient_and_has_its_name():
    names = dict(tree.named_leaves(plain()))
    for name, g in names.items():
        assert np.isfinite(g).all(), name
        if not name.endswith("key/bias"):
            assert float(jnp.abs(g).max()) > 1e-6, name
    stem = {name.removeprefix("stem/") for name in names if name.startswith("stem/")}
    units = [f"block_1/unit_{i:02d}" for i in (1, 2, 3)]
    norms = ["root_norm", "block_1/unit_01/proj_norm", *(f"{u}/norm_{k}" for u in units for k in (1, 2, 3))]
    assert stem == {
        *("root/kernel", "block_1/unit_01/proj/kernel"),
        *(f"{u}/conv_{k}/kernel" for u in units for k in (1, 2, 3)),
        *(f"{n}/{leaf}" for n in norms for leaf in ("scale", "bias")),
    }
    # Of the stem's blocks none is the encoder's.
    assert {i for name, i in layer_ids(list(names)).items() if name.startswith("stem/")} == {0}


def test_units_start_as_their_shortcuts():
    unit = PostActivationUnit(16, 1, False, Conv, functools.partial(GroupNorm, num_groups=4))
    x = jax.random.normal(jax.random.key(1), (1, 3, 3, 16))
    output, variables = quick(unit.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(output, jnp.maximum(x, 0))
    assert float(nn.meta.unbox(variables)["params"]["norm_2"]["scale"].min()) == 1


@pytest.mark.parametrize(("blocks", "patch", "pixels"), [((), 2, 8), ((1,), 1, 4), ((1, 1), 1, 8), ((1, 1, 1), 2, 32)])
def test_tokens_follow_the_stem(blocks, patch, pixels):
    model = Hybrid(**SMALL | {"stem_blocks": blocks, "patch_size": patch})
    x = images(1, (2 * pixels, 3 * pixels))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert nn.meta.unbox(shapes)["pos_embedding"].shape == (1, 2 * 3 + 1, 16)
    assert (model.grid(x.shape[1:3]), model.num_tokens(x.shape[1:3])) == ((2, 3), 7)
    with pytest.raises(UserError, match=f"do not divide into patches of {pixels}x{pixels} px"):
        model.grid((2 * pixels, 3 * pixels - 2))
