"""Logits and gradients of torch's encoder and decoder with the paper's embedding around them, to 1e-5 in float32.

The files come from scripts/make_transformer_golden.py, where torch computes in float64.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.timm_weights import TOLERANCE, error, gradient_errors, load, section
from vitax.core import tree
from vitax.models.transformer import Transformer
from vitax.parallel.rules import unbox

GOLDEN = Path(__file__).parents[1] / "golden"
# Ours -> torch's, within a block.
NORMS = {
    "encoder": {"norm_1": "norm1", "norm_2": "norm2"},
    "decoder": {"norm_1": "norm1", "cross_norm": "norm2", "norm_2": "norm3"},
}
ATTENTION = {"attention": "self_attn", "cross_attention": "multihead_attn"}


def from_torch(theirs, name, heads):
    """The array of one of our parameters, of weights or of gradients."""
    if name == "embedding":
        return theirs["embedding.weight"]
    stack, block, *rest = name.split("/")
    leaf = {"scale": "weight", "kernel": "weight", "bias": "bias"}[rest[-1] if rest else name.split("/")[-1]]
    if block == "norm":
        return theirs[f"{stack}.norm.{leaf}"]
    there = f"{stack}.layers.{int(block.removeprefix('block_'))}"
    part = rest[0]
    if part in NORMS[stack]:
        return theirs[f"{there}.{NORMS[stack][part]}.{leaf}"]
    if part == "mlp":
        value = theirs[f"{there}.linear{'12'[rest[1] == 'out']}.{leaf}"]
        return value.T if leaf == "weight" else value
    if rest[1] == "out":
        value = theirs[f"{there}.{ATTENTION[part]}.out_proj.{leaf}"]
        return value.T.reshape(heads, -1, value.shape[0]) if leaf == "weight" else value
    all_three = theirs[f"{there}.{ATTENTION[part]}.in_proj_{leaf}"]
    value = np.split(all_three, 3)[("query", "key", "value").index(rest[1])]
    return value.T.reshape(value.shape[1], heads, -1) if leaf == "weight" else value.reshape(heads, -1)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_equals_torch(norm):
    golden = load(GOLDEN / f"transformer_torch_{norm}.npz")
    config = json.loads(str(golden["config"]))
    model = Transformer(**config)
    source, tokens, segments = golden["source"], golden["tokens"], golden["source_segments"]
    inputs = {"source_segments": segments, "segment_ids": jnp.ones_like(tokens)}
    abstract = jax.eval_shape(model.init, jax.random.key(0), source, tokens)["params"]
    names = [name for name, _ in tree.named_leaves(unbox(abstract))]
    structure = jax.tree.structure(unbox(abstract))

    def ours(prefix):
        theirs = section(golden, prefix)
        return [jnp.asarray(from_torch(theirs, name, config["num_heads"])) for name in names]

    def loss(params):
        logits = model.apply({"params": params}, source, tokens, **inputs).logits
        return (jnp.cos(logits) * golden["direction"]).sum(), logits

    params = jax.tree.unflatten(structure, ours("weight/"))
    assert tree.difference(unbox(abstract), params) == []
    (_, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert error(logits, golden["logits"]) <= TOLERANCE
    errors = gradient_errors(tree.named_leaves(grads), dict(zip(names, ours("gradient/"))))
    assert max(errors.values()) <= TOLERANCE, errors
