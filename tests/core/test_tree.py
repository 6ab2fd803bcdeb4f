import jax
import jax.numpy as jnp
import numpy as np

from vitax.core import tree


def params():
    return {
        "head": {"kernel": jnp.zeros((8, 3)), "bias": jnp.zeros(3)},
        "encoder": {"block_00": {"kernel": jnp.zeros((4, 2, 4), jnp.bfloat16)}},
    }


def test_names_follow_the_order_of_leaves():
    p = params()
    named = tree.named_leaves(p)
    assert [n for n, _ in named] == ["encoder/block_00/kernel", "head/bias", "head/kernel"]
    assert all(a is b for (_, a), b in zip(named, jax.tree.leaves(p)))


def test_map_named_sees_name_and_leaves():
    p = params()
    assert tree.map_named(lambda n, a, b: (n, a.shape == b.shape), p, p)["head"]["bias"] == ("head/bias", True)


def test_sizes():
    assert tree.size(params()) == 24 + 3 + 32
    assert tree.num_bytes(params()) == 4 * 27 + 2 * 32
    assert tree.size(jax.eval_shape(params)) == tree.size(params())


def test_matches_searches():
    assert tree.matches("head/kernel", ["^head/"])
    assert tree.matches("encoder/head/kernel", ["nothing", "kernel$"])
    assert not tree.matches("encoder/head/kernel", ["^head/"])
    assert not tree.matches("head/kernel", [])


def test_no_difference_with_itself_or_its_shapes():
    assert tree.difference(params(), params()) == []
    assert tree.difference(jax.eval_shape(params), params()) == []


def test_difference_names_each_kind():
    other = params()
    del other["head"]["bias"]
    other["head"]["scale"] = np.zeros(3, np.float32)
    other["head"]["kernel"] = jnp.zeros((8, 4))
    other["encoder"]["block_00"]["kernel"] = jnp.zeros((4, 2, 4))
    assert tree.difference(params(), other) == [
        "missing     head/bias: expected float32[3]",
        "unexpected  head/scale: found float32[3]",
        "mismatched  encoder/block_00/kernel: expected bfloat16[4,2,4], found float32[4,2,4]",
        "mismatched  head/kernel: expected float32[8,3], found float32[8,4]",
    ]
