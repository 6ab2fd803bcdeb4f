"""The fused kernels, in Pallas' interpreter, against attention in XLA; and where they refuse."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding

from vitax.core import axes
from vitax.core.errors import UserError
from vitax.cost.topology import Topology
from vitax.layers import flat_attention as flat
from vitax.layers.attention import Attention, attend
from vitax.layers.kernels import interpreting
from vitax.parallel.mesh import MeshSpec, build_mesh
from vitax.parallel.rules import Rules

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan` (libtpu)"
)
# tokens, heads, head_dim: B/16 and H/14 (two blocks each), several heads of a small one.
SHAPES = [(197, 4, 64), (257, 16, 80), (5, 3, 4), (17, 8, 32)]


def arrays(tokens, heads, head_dim, dtype=jnp.float32, batch=2, source=None):
    lengths = (tokens, source or tokens, source or tokens)
    return [
        2 * jax.random.normal(jax.random.key(i), (batch, n, heads * head_dim), jnp.float32).astype(dtype)
        for i, n in enumerate(lengths)
    ]


def plain(query, key, value, heads):
    split = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    return attend(*split)[0].reshape(query.shape)


def outputs(fn, arrays):
    """[result, gradients of three inputs], float32."""

    @jax.jit
    def run(*arrays):
        y, pull = jax.vjp(fn, *arrays)
        return y, *pull(jnp.cos(3 * jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))

    return [np.asarray(x, np.float32) for x in run(*arrays)]


def close(have, want, tolerance):
    for a, b in zip(have, want, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("tokens", "heads", "head_dim"), SHAPES)
def test_equals_attention_in_float32(tokens, heads, head_dim):
    inputs = arrays(tokens, heads, head_dim)
    kernel = lambda *a: flat.flat_attention(*a, heads, interpret=True)  # noqa: E731
    close(outputs(kernel, inputs), outputs(lambda *a: plain(*a, heads), inputs), 1e-5)


@pytest.mark.parametrize("operands", ["float32", "bfloat16"])
@pytest.mark.parametrize(("tokens", "heads", "head_dim"), SHAPES[:2])
def test_bfloat16_is_as_near_the_truth_as_attention_in_bfloat16(tokens, heads, head_dim, operands):
    inputs = arrays(tokens, heads, head_dim, jnp.bfloat16)
    truth = outputs(lambda *a: plain(*a, heads), [x.astype(jnp.float32) for x in inputs])
    kernel = lambda *a: flat.flat_attention(*a, heads, operands=operands, interpret=True)  # noqa: E731
    have, xla = outputs(kernel, inputs), outputs(lambda *a: plain(*a, heads), inputs)
    close(have, truth, 0.02)
    for a, b, c in zip(have, xla, truth):
        assert np.sqrt(np.mean((a - c) ** 2)) < 1.05 * np.sqrt(np.mean((b - c) ** 2))


def test_another_memory():
    inputs = arrays(5, 2, 64, source=9)
    kernel = lambda *a: flat.flat_attention(*a, 2, interpret=True)  # noqa: E731
    close(outputs(kernel, inputs), outputs(lambda *a: plain(*a, 2), inputs), 1e-5)


def test_large_scores_do_not_overflow():
    inputs = [50 * x for x in arrays(17, 2, 64)]
    have = outputs(lambda *a: flat.flat_attention(*a, 2, interpret=True), inputs)
    assert all(np.isfinite(x).all() for x in have)
    close(have[:1], outputs(lambda *a: plain(*a, 2), inputs)[:1], 1e-4)


def test_the_backward_pass_is_left_the_inputs_alone():
    inputs = arrays(17, 2, 64)
    kernel = lambda *a: flat.flat_attention(*a, 2, interpret=True)  # noqa: E731
    kept = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(kernel, *a)[1], *inputs))
    assert sorted(x.shape for x in kept) == [(2, 17, 128)] * 3


# ---- blocks and memory --------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "head_dim", "width"),
    [(12, 64, 128), (16, 64, 128), (16, 80, 640), (16, 112, 896), (3, 64, 192), (2, 16, 32), (16, 72, 1152)],
)
def test_blocks_are_whole_heads_in_whole_tiles(heads, head_dim, width):
    assert flat.block_width(heads, head_dim) == width
    assert heads * head_dim % width == width % head_dim == 0


def test_a_width_without_a_block_is_refused():
    with pytest.raises(UserError, match="multiple of 1152.*20 heads of 72 = 1440.*Set model.attention_kernel"):
        flat.block_width(20, 72)


@needs_compiler
def test_scores_that_do_not_fit_v3_are_refused():
    mesh = build_mesh(MeshSpec(), Topology.parse("v3:2x2").devices())
    x = jax.ShapeDtypeStruct((8, 1025, 128), "bfloat16")
    with (
        axes.resolving(Rules.build().resolver(mesh)),
        pytest.raises(UserError, match="1025 x 1025 tokens.*at least 17.* MiB of vector memory.*Take smaller images"),
    ):
        jax.eval_shape(lambda *a: flat.flat_attention_on_mesh(*a, 2), x, x, x)


# ---- on a mesh ----------------------------------------------------------------


def on_mesh(inputs, heads, rules=None, **sizes):
    mesh = build_mesh(MeshSpec(**sizes), jax.devices())
    rules = Rules.build(rules)
    with axes.resolving(rules.resolver(mesh)), interpreting():
        sharding = rules.batch(inputs[0].shape, mesh)
        return outputs(lambda *a: flat.flat_attention_on_mesh(*a, heads), [jax.device_put(x, sharding) for x in inputs])


@pytest.mark.parametrize(
    "sizes", [{"data": 8}, {"data": 2, "fsdp": 4}, {"data": 2, "tensor": 4}, {"data": 4, "tensor": 2}]
)
def test_sharded_is_single(sizes):
    inputs = arrays(17, 4, 64, batch=8)
    close(on_mesh(inputs, 4, **sizes), outputs(lambda *a: plain(*a, 4), inputs), 1e-5)


def test_heads_that_the_mesh_does_not_divide_stay_whole():
    inputs = arrays(5, 3, 64, batch=4)
    close(on_mesh(inputs, 3, data=4, tensor=2), outputs(lambda *a: plain(*a, 3), inputs), 1e-5)


def test_each_device_runs_its_own_share():
    mesh, x = build_mesh(MeshSpec(data=4, tensor=2), jax.devices()), arrays(5, 4, 64, batch=8)
    with axes.resolving(Rules.build().resolver(mesh)), interpreting():
        text = str(jax.make_jaxpr(lambda *a: flat.flat_attention_on_mesh(*a, 4))(*x))
    assert "f32[2,5,128]" in text
    assert "shard_map" in text


def test_sharded_tokens_are_refused():
    with pytest.raises(UserError, match='the rules shard tokens over mesh axis "tensor"'):
        on_mesh(arrays(8, 4, 64, batch=4), 4, {"tokens": "tensor", "heads": None}, data=4, tensor=2)


def test_devices_that_are_no_tpus_are_refused():
    mesh, x = build_mesh(MeshSpec(), jax.devices()), arrays(5, 2, 64, batch=8)
    want = 'kernel for TPUs, and the devices are of platform "cpu". Set model.attention_kernel to "xla"'
    with axes.resolving(Rules.build().resolver(mesh)), pytest.raises(UserError, match=want):
        jax.eval_shape(lambda *a: flat.flat_attention_on_mesh(*a, 2), *x)
    with pytest.raises(UserError, match=want):
        flat.flat_attention_on_mesh(*x, 2)


# ---- in the layer -------------------------------------------------------------


def test_the_layer_has_one_set_of_parameters_and_the_same_results():
    x = jax.random.normal(jax.random.key(0), (2, 5, 32))
    xla, pallas = Attention(2), Attention(2, kernel="pallas")
    params = jax.jit(xla.init)(jax.random.key(1), x, x)
    with interpreting():
        assert jax.tree.map(jnp.shape, jax.eval_shape(pallas.init, jax.random.key(1), x, x)) == jax.tree.map(
            jnp.shape, params
        )
        have, none = pallas.apply(params, x, x)
        seen, weights = pallas.apply(params, x, x, return_weights=True)
    want, want_weights = xla.apply(params, x, x, return_weights=True)
    assert none is None
    np.testing.assert_allclose(have, want, atol=1e-6)
    np.testing.assert_allclose(seen, want, atol=1e-6)
    np.testing.assert_allclose(weights, want_weights, atol=1e-6)


def test_masks_and_dropout_are_refused():
    x = jnp.ones((2, 5, 32))
    with interpreting():
        with pytest.raises(UserError, match="cannot take a mask"):
            Attention(2, kernel="pallas").init(jax.random.key(0), x, x, mask=jnp.ones((1, 1, 1, 5), bool))
        with pytest.raises(UserError, match=r"cannot take attention_dropout 0\.1"):
            Attention(2, dropout=0.1, kernel="pallas").init(jax.random.key(0), x, x)


# ---- the compiler -------------------------------------------------------------


@pytest.fixture
def uncached():
    """What is compiled for other machines cannot be read back from the cache here."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX looks at the setting once a process
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


@needs_compiler
@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize(
    ("topology", "sharding", "tokens", "heads", "head_dim"),
    [
        ("v2:2x2", "data", 197, 12, 64),
        ("v3:2x2", "data", 197, 12, 64),
        ("v3:2x2", "fsdp", 257, 16, 80),
        ("v4:2x2x2", "fsdp", 197, 12, 64),
        ("v5e:2x4", "fsdp", 197, 12, 64),
        ("v5e:2x4", "data", 257, 16, 80),
        ("v5p:2x2x2", "data", 197, 12, 64),
        ("v6e:2x4", "fsdp", 197, 12, 64),
    ],
)
def test_compiles_for_tpus(topology, sharding, tokens, heads, head_dim):
    mesh = build_mesh(MeshSpec(**{"data": 1, sharding: 8}), Topology.parse(topology).devices())
    rules = Rules.build()
    batch = NamedSharding(mesh, rules.spec(("batch", None, None), (16, 1, 1), mesh, "x"))
    x = jax.ShapeDtypeStruct((16, tokens, heads * head_dim), jnp.bfloat16, sharding=batch)

    def step(*arrays):
        y, pull = jax.vjp(lambda *a: flat.flat_attention_on_mesh(*a, heads), *arrays)
        return y, pull(y)

    with axes.resolving(rules.resolver(mesh)):
        text = jax.jit(step).lower(x, x, x).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2
    assert "all-gather" not in text
    assert "all-reduce" not in text
