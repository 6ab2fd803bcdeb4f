"""What every model keeps to: shapes, dtypes, finite values, named errors."""

import functools
import inspect
import typing

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.core.types import ModelOutput
from vitax.models.table import MODELS, published

# Fields that shrink each model to a test's size.
TINY = {
    "vit": {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2, "patch_size": 8, "num_classes": 3},
    "hybrid": {
        "width": 16,
        "depth": 1,
        "mlp_dim": 32,
        "num_heads": 2,
        "patch_size": 2,
        "num_classes": 3,
        "stem_blocks": (1,),
        "stem_width": 8,
        "stem_groups": 4,
    },
    "bit": {"blocks": (1, 2), "root_width": 8, "num_groups": 4, "num_classes": 3},
    "efficientnet": {
        "stages": ((3, 1, 1, 8, 1), (3, 2, 2, 16, 3)),
        "stem_channels": 8,
        "top_channels": 32,
        "num_classes": 3,
    },
    "gpt": {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2, "vocab_size": 11, "context": 7},
    "bert": {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2, "vocab_size": 11, "context": 7},
    "transformer": {"width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2, "vocab_size": 11, "context": 7},
}
# Collections that a model may have beside its parameters, with the names of their leaves.
STATISTICS = {"batch_stats": {"mean", "var"}}
# Models of token ids; the others take images.
TEXT = {"gpt", "bert", "transformer"}
# Those of a source and a target.
PAIRS = {"transformer"}
FLAGS = {"name", "parent"}


def test_every_model_is_shrunk_here():
    assert TINY.keys() == MODELS.keys()


def start(name):
    model = MODELS[name](**TINY[name])
    inputs = (jnp.ones((2, 7), jnp.int32) if name in TEXT else jnp.ones((2, 16, 24, 3)),) * (1 + (name in PAIRS))
    return model, nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), *inputs)), inputs


@pytest.mark.parametrize("name", MODELS)
def test_output(name):
    model, variables, inputs = start(name)
    statistics = sorted(variables.keys() - {"params"})
    for train in (False, True):
        rng = jax.random.split(jax.random.key(1), 2)
        apply = functools.partial(model.apply, train=train, mutable=statistics if train else False)
        output = jax.jit(apply)(variables, *inputs, rng=rng)
        if train:
            output, changed = output
            assert tree.difference({k: variables[k] for k in statistics}, changed) == []
            assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(changed))
        assert isinstance(output, ModelOutput)
        assert output.logits.shape == ((2, 7, 11) if name in TEXT else (2, 3))
        assert output.logits.dtype == jnp.float32
        assert output.features.shape[0] == 2
        assert jnp.isfinite(output.logits).all()
        assert jnp.isfinite(output.features).all()


@pytest.mark.parametrize("name", MODELS)
def test_variables_are_float32_parameters_and_known_statistics_beside_them(name):
    _, variables, _ = start(name)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {"float32"}
    modules = {n.rpartition("/")[0] for n, _ in tree.named_leaves(variables["params"])}
    for collection in variables.keys() - {"params"}:
        for n, _ in tree.named_leaves(variables[collection]):
            module, _, leaf = n.rpartition("/")
            assert leaf in STATISTICS[collection], n
            assert module in modules, n


@pytest.mark.parametrize("name", MODELS)
def test_every_field_is_typed_and_documented(name):
    cls = MODELS[name]
    docs = "".join(c.__doc__ for c in cls.__mro__ if c.__module__.startswith("vitax."))
    hints = typing.get_type_hints(cls.__init__)
    for field in inspect.signature(cls).parameters:
        if field not in FLAGS:
            assert field in hints, field
            assert f"\n      {field}:" in docs, f"{field} is not in the docstring"


@pytest.mark.parametrize("name", published())
def test_published_fields_build(name):
    fields = dict(published()[name])
    MODELS[fields.pop("kind")](**fields)
