"""Outputs and gradients of transformers' BERTs, to 1e-5 in float32.

The files come from scripts/make_bert_golden.py, where torch computes in float64.
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
from vitax.checkpoint.names import bert as names
from vitax.core import tree
from vitax.models.bert import BERT

GOLDEN = Path(__file__).parents[1] / "golden"
# File -> our head, its classes, and the table of names.
KINDS = {
    "pretraining": ("pretraining", 0, names.table("bert.")),
    "model": ("none", 0, names.table("")),
    "classification": ("classification", 3, names.table("bert.")),
    "span": ("span", 0, names.table("bert.", "qa_outputs")),
}


def read(kind):
    golden = load(GOLDEN / f"bert_hf_{kind}.npz")
    config = json.loads(str(golden["config"]))
    head, classes, table = KINDS[kind]
    model = BERT(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        mlp_dim=config["intermediate_size"],
        num_heads=config["num_attention_heads"],
        vocab_size=config["vocab_size"],
        context=config["max_position_embeddings"],
        num_types=config["type_vocab_size"],
        head=head,
        num_classes=classes,
    )
    # Below the tolerance: 1e-6 would go unseen.
    assert model.norm_eps == config["layer_norm_eps"] == 1e-12
    return golden, model, table


def ours(model, table, theirs):
    found = convert.to_ours(table, theirs, {"num_heads": model.num_heads})
    assert (found.unexpected, found.incomplete) == ([], [])
    abstract = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"])
    wanted = [name for name, _ in tree.named_leaves(abstract)]
    assert sorted(wanted) == sorted(found.arrays)
    params = jax.tree.unflatten(jax.tree.structure(abstract), [jnp.asarray(found.arrays[n]) for n in wanted])
    assert tree.difference(abstract, params) == []
    return params


def outputs(kind, output, golden):
    """What transformers gives, of ours."""
    named = {"logits": output.logits, "features": output.features, **output.intermediates}
    if kind == "span":
        named |= {"start": output.logits[..., 0], "end": output.logits[..., 1]}
    return {name: named[name] for name in section(golden, "output/")}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind):
    golden, model, table = read(kind)
    params = ours(model, table, section(golden, "weight/"))
    directions = section(golden, "direction/")

    def loss(params):
        output = model.apply(
            {"params": params}, golden["tokens"], segment_ids=golden["mask"], token_types=golden["types"]
        )
        found = outputs(kind, output, golden)
        return sum((jnp.cos(x) * directions[name]).sum() for name, x in found.items()), found

    # A program that runs once: the compiler's optimiser would be most of the time.
    once = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options={"xla_backend_optimization_level": 0})
    (_, found), grads = once(params)
    for name, want in section(golden, "output/").items():
        # What stands at padding is nobody's business.
        real = directions[name] != 0
        assert error(found[name] * real, want * real) <= TOLERANCE, name
    theirs = {name: np.zeros_like(x) for name, x in section(golden, "weight/").items()} | section(golden, "gradient/")
    want = dict(tree.named_leaves(ours(model, table, theirs)))
    errors = gradient_errors(tree.named_leaves(grads), want)
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("kind", KINDS)
def test_names_convert_there_and_back(kind):
    golden, model, table = read(kind)
    weights, sizes = section(golden, "weight/"), {"num_heads": model.num_heads}
    back = convert.to_theirs(table, convert.to_ours(table, weights, sizes).arrays, sizes)
    assert back.arrays.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(back.arrays[name], weight)
