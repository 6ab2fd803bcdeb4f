"""Logits and gradients of transformers' GPT-1 and GPT-2, to 1e-5 in float32.

The files come from scripts/make_gpt_golden.py, where torch computes in float64.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.timm_weights import TOLERANCE, error, gradient_errors, load, section
from vitax.checkpoint import convert
from vitax.checkpoint.names import gpt as names
from vitax.core import tree
from vitax.models import gpt_sizes
from vitax.models.gpt import GPT

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {"gpt1": (names.gpt1_table(), "GPT-1"), "gpt2": (names.gpt2_table(), "GPT-2-small")}


def read(kind):
    golden = load(GOLDEN / f"gpt_hf_{kind}.npz")
    config = json.loads(str(golden["config"]))
    published = gpt_sizes.fields(KINDS[kind][1])
    shape = {
        "width": config["n_embd"],
        "depth": config["n_layer"],
        "mlp_dim": 4 * config["n_embd"],
        "num_heads": config["n_head"],
        "vocab_size": config["vocab_size"],
        "context": config["n_positions"],
    }
    model = GPT(**published | shape)
    assert model.norm_eps == config["layer_norm_epsilon"]
    return golden, model, {"num_heads": config["n_head"]}


def ours(model, table, theirs, sizes):
    found = convert.to_ours(table, theirs, sizes)
    assert (found.unexpected, found.incomplete) == ([], [])
    abstract = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"])
    wanted = [name for name, _ in tree.named_leaves(abstract)]
    assert sorted(wanted) == sorted(found.arrays)
    params = jax.tree.unflatten(jax.tree.structure(abstract), [jnp.asarray(found.arrays[n]) for n in wanted])
    assert tree.difference(abstract, params) == []
    return params


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind):
    golden, model, sizes = read(kind)
    table = KINDS[kind][0]
    params = ours(model, table, section(golden, "weight/"), sizes)

    def loss(params):
        logits = model.apply({"params": params}, golden["tokens"]).logits
        return (jnp.cos(logits) * golden["direction"]).sum(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert error(logits, golden["logits"]) <= TOLERANCE
    want = dict(tree.named_leaves(ours(model, table, section(golden, "gradient/"), sizes)))
    errors = gradient_errors(tree.named_leaves(grads), want)
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("kind", KINDS)
def test_names_convert_there_and_back(kind):
    golden, _, sizes = read(kind)
    weights = section(golden, "weight/")
    back = convert.to_theirs(KINDS[kind][0], convert.to_ours(KINDS[kind][0], weights, sizes).arrays, sizes)
    assert back.arrays.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(back.arrays[name], weight)
