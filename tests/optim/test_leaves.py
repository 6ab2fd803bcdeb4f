"""Which rule acts on which leaf: masks, multipliers, freezing, layer-wise rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.optim.leaves import layer_decay_factors
from vitax.optim.optimizers import OPTIMIZERS

DEPTH = 12


def vit(depth=2, width=8):
    """A ViT's names with small shapes."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def block():
        heads = {"kernel": draw(width, 2, 4), "bias": draw(2, 4)}
        return {
            "norm_1": {"scale": draw(width), "bias": draw(width)},
            "attention": {
                **{n: dict(heads) for n in ("query", "key", "value")},
                "out": {"kernel": draw(2, 4, width), "bias": draw(width)},
            },
            "mlp": {"in": {"kernel": draw(width, 16), "bias": draw(16)}, "out": {"kernel": draw(16, width)}},
        }

    return {
        "embedding": {"kernel": draw(4, 4, 3, width), "bias": draw(width)},
        "cls": draw(1, 1, width),
        "registers": draw(1, 2, width),
        "pos_embedding": draw(1, 5, width),
        "encoder": {
            **{f"block_{i:02d}": block() for i in range(depth)},
            "norm": {"scale": draw(width), "bias": draw(width)},
        },
        "head": {"kernel": draw(width, 3), "bias": draw(3)},
    }


def update(optimizer, params, steps=3, schedule=lambda step: jnp.float32(0.1)):
    tx = optimizer.make(schedule, params)
    state, step = tx.init(params), jax.jit(tx.update)
    for t in range(steps):
        updates, state = step(jax.tree.map(lambda x, t=t: x + t, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def row(rows, name):
    return next(r for r in rows if r.name == name)


def test_only_kernels_decay_by_default():
    rows = OPTIMIZERS["adamw"](lr=0.1, weight_decay=0.1).describe(vit())
    assert {r.name for r in rows if r.decays} == {r.name for r in rows if r.name.endswith("kernel")}
    assert not any(row(rows, n).decays for n in ("cls", "registers", "pos_embedding"))
    assert [r.name for r in rows] == [n for n, _ in tree.named_leaves(vit())]


def test_no_decay_is_described_as_none():
    assert not any(r.decays for r in OPTIMIZERS["adamw"](lr=0.1).describe(vit()))


def test_decay_mask_acts_where_it_says():
    still = OPTIMIZERS["sgd"](lr=0.1, weight_decay=0.5, momentum=0.0, decay_mask=("^head/", "^cls$"))
    p = vit()
    tx = still.make(lambda step: jnp.float32(0.1), p)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    moved = {n for n, u in tree.named_leaves(updates) if np.abs(u).max() > 0}
    assert moved == {"head/kernel", "head/bias", "cls"}
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * 0.5 * p["head"]["kernel"], rtol=1e-6)


def test_multipliers_first_match_wins_and_scale_decay_as_stated():
    p = vit()
    zeros = jax.tree.map(jnp.zeros_like, p)
    for scale, factor in (("lr", 10.0), ("schedule", 1.0 / 0.1)):
        optimizer = OPTIMIZERS["sgd"](
            lr=0.1,
            momentum=0.0,
            weight_decay=0.5,
            weight_decay_scale=scale,
            lr_multipliers=(("^head/kernel", 10.0), ("^head/", 2.0), ("kernel", 3.0)),
        )
        rows = optimizer.describe(p)
        got = [row(rows, n).lr_multiplier for n in ("head/kernel", "head/bias", "embedding/kernel", "cls")]
        assert got == [10.0, 2.0, 3.0, 1.0]
        tx = optimizer.make(lambda step: jnp.float32(0.1), p)
        by_gradient, _ = tx.update(jax.tree.map(jnp.ones_like, p), tx.init(zeros), zeros)
        np.testing.assert_allclose(by_gradient["head"]["kernel"], -1.0, rtol=1e-6)
        np.testing.assert_allclose(by_gradient["head"]["bias"], -0.2, rtol=1e-6)
        by_decay, _ = tx.update(zeros, tx.init(p), p)
        np.testing.assert_allclose(by_decay["head"]["kernel"], -0.1 * 0.5 * factor * p["head"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_stays_to_the_bit_and_has_no_state(kind):
    p = vit()
    # The sign of zero is a bit too. (Subnormals are not here: the adder of some chips flushes them.)
    p["embedding"]["bias"] = jnp.array([-0.0, 0.0, 2e-38, -2e-38, 1.0, -1.0, 3e38, np.inf], jnp.float32)
    optimizer = OPTIMIZERS[kind](lr=0.1, weight_decay=0.1, clip_norm=1.0, frozen=("^embedding/", "block_00"))
    new, state = update(optimizer, p)
    still = {n for n, _ in tree.named_leaves(p) if n.startswith("embedding") or "block_00" in n}
    old_leaves, new_leaves = dict(tree.named_leaves(p)), dict(tree.named_leaves(new))
    for name, old in old_leaves.items():
        same = np.asarray(old).tobytes() == np.asarray(new_leaves[name]).tobytes()
        assert same == (name in still), name
    assert not [n for n, _ in tree.named_leaves(state) if "block_00" in n or "embedding/" in n]
    rows = optimizer.describe(p)
    assert {r.name for r in rows if r.frozen} == still
    assert all((r.decays, r.lr_multiplier, r.method) == (False, 0.0, "-") for r in rows if r.frozen)


def test_frozen_gradients_are_not_in_the_norm():
    p = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
    g = {"a": {"kernel": jnp.full((2, 2), 1e6)}, "b": {"kernel": jnp.full((2, 2), 0.25)}}
    tx = OPTIMIZERS["sgd"](lr=1.0, momentum=0.0, clip_norm=1.0, frozen=("^a/",)).make(lambda s: jnp.float32(1), p)
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_array_equal(updates["b"]["kernel"], -g["b"]["kernel"])


def test_layer_decay_golden_depth_12():
    names = [n for n, _ in tree.named_leaves(vit(DEPTH))]
    factors = layer_decay_factors(names, 0.75)
    # BEiT's published code: 0.75 ** (13 - layer), layers 0 (patches) to 13 (norm, head).
    golden = {
        "embedding/kernel": 0.023757264018058777,
        "embedding/bias": 0.023757264018058777,
        "cls": 0.023757264018058777,
        "registers": 0.023757264018058777,
        "pos_embedding": 0.023757264018058777,
        "encoder/block_00/attention/query/kernel": 0.03167635202407837,
        "encoder/block_05/norm_1/scale": 0.1334838867187500,
        "encoder/block_10/mlp/in/kernel": 0.5625,
        "encoder/block_11/mlp/out/kernel": 0.75,
        "encoder/norm/scale": 1.0,
        "head/kernel": 1.0,
    }
    for name, factor in golden.items():
        assert factors[name] == pytest.approx(factor, rel=1e-12), name
    assert len(set(factors.values())) == DEPTH + 2


def test_layer_decay_multiplies_multipliers_and_acts():
    p = vit()
    optimizer = OPTIMIZERS["sgd"](lr=1.0, momentum=0.0, layer_decay=0.5, lr_multipliers=(("^head/", 10.0),))
    rows = optimizer.describe(p)
    want = {"embedding/kernel": 0.125, "encoder/block_00/mlp/out/kernel": 0.25, "encoder/norm/bias": 1.0}
    want |= {"encoder/block_01/mlp/out/kernel": 0.5, "head/bias": 10.0}
    assert {n: row(rows, n).lr_multiplier for n in want} == want
    tx = optimizer.make(lambda s: jnp.float32(1.0), p)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p)
    for r, (name, u) in zip(rows, tree.named_leaves(updates)):
        np.testing.assert_allclose(u, -r.lr_multiplier, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "params",
    [
        {"head": {"kernel": np.zeros((2, 2))}},
        {s: {"block_00": {"kernel": np.zeros((2, 2))}} for s in ("encoder", "decoder")},
    ],
)
def test_layer_decay_needs_one_stack(params):
    with pytest.raises(UserError, match="one stack of blocks"):
        OPTIMIZERS["adamw"](lr=0.1, layer_decay=0.75).describe(params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frozen": ("encoder/blok_00",)}, r'optimizer\.frozen.*Did you mean "encoder/block_00"'),
        ({"lr_multipliers": (("^hed/", 10.0),)}, r"optimizer\.lr_multipliers.*head"),
        ({"decay_mask": ("kernels$",)}, r"optimizer\.decay_mask.*kernel"),
        ({"frozen": ("block_(",)}, "not a regular expression"),
        ({"frozen": (".",)}, "nothing is left to train"),
    ],
)
def test_patterns_that_cannot_be_meant(fields, message):
    with pytest.raises(UserError, match=message):
        OPTIMIZERS["adamw"](lr=0.1, **fields).make(lambda s: 0.1, vit())


def test_default_mask_need_not_match_without_decay():
    p = {"scale": jnp.ones(3)}
    OPTIMIZERS["adamw"](lr=0.1).make(lambda s: 0.1, p)
    with pytest.raises(UserError, match="decay_mask"):
        OPTIMIZERS["adamw"](lr=0.1, weight_decay=0.1).make(lambda s: 0.1, p)
