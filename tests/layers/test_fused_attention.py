"""Splash and cuDNN: parity with attention in XLA, masks, meshes, and where they refuse."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax import recipe
from vitax.core import axes
from vitax.core.errors import UserError
from vitax.cost.topology import Topology
from vitax.layers import fused_attention as fused
from vitax.layers import kernels
from vitax.layers.attention import Attention, attend
from vitax.layers.kernels import interpreting
from vitax.layers.masks import Mask
from vitax.models.bert import BERT
from vitax.models.gpt import GPT
from vitax.models.transformer import Transformer
from vitax.parallel.mesh import MeshSpec, build_mesh
from vitax.parallel.rules import Rules

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan` (libtpu)"
)
IDS = np.array([[1] * 50 + [2] * 60 + [0] * 20, [1] * 130], np.int32)
MASKS = {
    "none": None,
    "causal": Mask.causal(),
    "segments": Mask.segments(IDS),
    "causal segments": Mask.causal() & Mask.segments(IDS),
    "padding": Mask.padding(IDS > 0),
    "all": Mask.segments(IDS) & Mask.causal() & Mask.padding(IDS > 0),
}


def arrays(length=130, source=None, heads=2, head_dim=16, batch=2):
    lengths = (length, source or length, source or length)
    return [2 * jax.random.normal(jax.random.key(i), (batch, n, heads, head_dim)) for i, n in enumerate(lengths)]


def plain(mask):
    def attention(q, k, v):
        dense = None if mask is None else mask.dense(fused.places(q), fused.places(k))
        return attend(q, k, v, mask=dense)[0]

    return attention


def outputs(fn, arrays, counted):
    """[result, gradients of three inputs] of the rows that count."""
    weights = jnp.cos(3 * jnp.arange(arrays[0].size)).reshape(arrays[0].shape) * counted[:, :, None, None]

    @jax.jit
    def run(*arrays):
        y, pull = jax.vjp(fn, *arrays)
        return y * counted[:, :, None, None], *pull(weights)

    with interpreting():
        return run(*arrays)


def close(have, want, tolerance=1e-5):
    for a, b in zip(have, want, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("name", MASKS)
def test_splash_equals_attention_in_float32(name):
    mask, inputs = MASKS[name], arrays()
    counted = jnp.asarray(IDS > 0)
    have = outputs(lambda *a: fused.fused_attention("splash", *a, mask), inputs, counted)
    close(have, outputs(plain(mask), inputs, counted))


def test_splash_crosses_to_a_memory_of_another_length():
    of_source = IDS[:, :40] * (np.arange(40) < 35)
    mask, inputs = Mask.segments(np.minimum(IDS, 1), np.asarray(of_source)), arrays(source=40)
    counted = jnp.asarray(IDS > 0)
    have = outputs(lambda *a: fused.fused_attention("splash", *a, mask), inputs, counted)
    close(have, outputs(plain(mask), inputs, counted))


@pytest.mark.parametrize("sizes", [{"data": 2, "tensor": 4}, {"data": 4, "tensor": 2}])
def test_sharded_is_single(sizes):
    ids = np.repeat(IDS[:1], 4, 0)
    mask, inputs, counted = Mask.causal() & Mask.segments(ids), arrays(heads=4, batch=4), jnp.asarray(ids > 0)
    mesh, rules = build_mesh(MeshSpec(**sizes), jax.devices()), Rules.build()
    with axes.resolving(rules.resolver(mesh)):
        placed = [jax.device_put(x, rules.batch(x.shape, mesh)) for x in inputs]
        have = outputs(lambda *a: fused.fused_attention("splash", *a, mask), placed, counted)
    close(have, outputs(plain(mask), inputs, counted))


MODELS = {
    "gpt": (GPT, {"vocab_size": 40, "context": 24}, ("segment_ids",)),
    "bert": (BERT, {"vocab_size": 40, "context": 24, "head": "none"}, ("segment_ids",)),
    "transformer": (Transformer, {"vocab_size": 40, "context": 24}, ("source_segments", "segment_ids")),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_have_one_set_of_parameters_and_the_same_results(name):
    cls, fields, segments = MODELS[name]
    fields |= {"width": 32, "depth": 2, "mlp_dim": 48, "num_heads": 2}
    tokens = jax.random.randint(jax.random.key(0), (2, 24), 0, 40)
    ids = np.array([[1] * 9 + [2] * 12 + [0] * 3, [1] * 24], np.int32)
    inputs = (tokens,) * (2 if name == "transformer" else 1)
    options = dict.fromkeys(segments, ids)
    xla, splash = cls(**fields), cls(**fields, attention_kernel="splash")
    with interpreting():
        params = jax.jit(splash.init)(jax.random.key(1), *inputs)
        have = jax.jit(lambda p: splash.apply(p, *inputs, **options))(params)
        seen = jax.jit(lambda p: splash.apply(p, *inputs, **options, return_attention=True))(params)
    want = jax.jit(lambda p: xla.apply(p, *inputs, **options, return_attention=True))(params)
    real = ids > 0
    np.testing.assert_allclose(have.features[real], want.features[real], atol=2e-5)
    for key, weights in want.intermediates.items():
        np.testing.assert_allclose(seen.intermediates[key], weights, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "mask", "message"),
    [
        ("splash", Mask.prefix(np.array([3, 4])), "it cannot take Prefix in a mask of 1"),
        ("splash", Mask.segments(IDS) & Mask.segments(IDS), "one sort of segments; it cannot take Segments"),
        ("cudnn", None, r'"cudnn" multiplies in bfloat16, and dtype is float32. Set --config.dtype=bfloat16'),
    ],
)
def test_what_a_kernel_has_not_is_refused(kernel, mask, message):
    with interpreting(), pytest.raises(UserError, match=message):
        fused.fused_attention(kernel, *arrays(), mask)


@pytest.mark.parametrize(("kernel", "devices"), [("splash", "TPUs"), ("cudnn", "GPUs")])
def test_other_devices_are_refused_and_nothing_else_is_taken(kernel, devices):
    x = arrays()
    want = f'"{kernel}" is a kernel for {devices}, and the devices are of platform "cpu". Set model.attention_kernel to'
    with pytest.raises(UserError, match=want):
        fused.fused_attention(kernel, *x, None)
    mesh = build_mesh(MeshSpec(), jax.devices())
    with axes.resolving(Rules.build().resolver(mesh)), pytest.raises(UserError, match=want):
        jax.eval_shape(lambda *a: fused.fused_attention(kernel, *a, None), *arrays(batch=8))


def test_dropout_old_chips_sharded_tokens_and_dense_masks_are_refused(monkeypatch):
    x = jnp.ones((2, 5, 32))
    with interpreting():
        with pytest.raises(UserError, match=r'"splash" cannot take attention_dropout 0\.1'):
            Attention(2, dropout=0.1, kernel="splash").init(jax.random.key(0), x, x)
        with pytest.raises(TypeError, match="expected the mask as its conditions"):
            Attention(2, kernel="splash").init(jax.random.key(0), x, x, mask=jnp.ones((1, 1, 1, 5), bool))
        rules = Rules.build({"tokens": "tensor", "heads": None})
        mesh = build_mesh(MeshSpec(data=4, tensor=2), jax.devices())
        with axes.resolving(rules.resolver(mesh)), pytest.raises(UserError, match="the rules shard tokens"):
            fused.fused_attention("splash", *arrays(batch=4), None)
    with pytest.raises(UserError, match=r"for TPUs from v4 on, and these are TPU v3\..*Or take \"pallas\""):
        fused._check_chip("TPU v3")


@pytest.mark.parametrize("kernel", ["splash", "cudnn"])
def test_a_recipe_is_built_where_its_kernel_cannot_run(kernel):
    # Shapes and counts are those of float32 on a CPU, whatever will train.
    built = recipe.load("gpt_shakespeare", [f"--config.model.attention_kernel={kernel}"])
    assert built.forward_flops_per_example == recipe.load("gpt_shakespeare").forward_flops_per_example
    with pytest.raises(UserError, match='and the devices are of platform "cpu"'):
        built.program().abstract_state  # noqa: B018


def test_the_program_for_cuda_calls_cudnn(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as library

    monkeypatch.setattr(library, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(library, "check_compute_capability", lambda *capability: True)
    monkeypatch.setattr(kernels, "devices_of", lambda *given: [])
    inputs = [x.astype(jnp.bfloat16) for x in arrays()]
    for mask in (None, Mask.causal(), MASKS["all"]):
        traced = jax.jit(lambda *a, mask=mask: fused.fused_attention("cudnn", *a, mask)).trace(*inputs)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert "__cudnn$fmha" in text
        assert ("CAUSAL" in text) == (mask is not None)
        assert ("xi1>" in text) == (mask is MASKS["all"])


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_splash_compiles_for(topology):
    device = Topology.parse(topology).devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((2, 1000, 4, 64), jnp.bfloat16, sharding=sharding)
    ids = jax.ShapeDtypeStruct((2, 1000), jnp.int32, sharding=sharding)

    def loss(q, k, v, ids):
        return fused.fused_attention("splash", q, k, v, Mask.causal() & Mask.segments(ids)).astype(jnp.float32).sum()

    assert jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x, ids).compile().as_text().count("tpu_custom_call") >= 3
