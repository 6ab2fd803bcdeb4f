"""The FLOP walk against hand counts and the papers' tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec

from vitax.core.errors import UserError
from vitax.cost import flops, vit_paper
from vitax.layers.flat_attention import flat_attention
from vitax.models import vit_sizes
from vitax.models.vit import ViT

# Without the rows of models that vitax does not have yet.
TABLE_6 = [(model, epochs) for model, epochs in vit_paper.TABLE_6 if model.startswith("ViT-")]


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def abstract(model, size=224):
    images = shape(1, size, size, 3)
    return jax.eval_shape(model.init, jax.random.key(0), images), images


def small(**fields):
    model = ViT(width=32, depth=5, mlp_dim=64, num_heads=2, patch_size=8, num_classes=3, zero_head=False, **fields)
    return model, *abstract(model, 32)


def step(model, images):
    return jax.grad(lambda params: jnp.cos(model.apply(params, images).logits).sum())


@pytest.mark.parametrize(("name", "epochs"), TABLE_6)
def test_table_6_of_the_paper(name, epochs):
    jft = vit_paper.PRETRAINING["JFT-300M"]
    model = ViT(**vit_sizes.fields(name), num_classes=jft.num_classes, pre_logits=True, unroll=False)
    exaflops = flops.model_flops(model, *abstract(model)) * jft.num_examples * epochs / 1e18
    printed = vit_paper.TABLE_6[name, epochs].exaflops
    assert exaflops == pytest.approx(printed, rel=0.025 if name == "ViT-B/32" else 0.005)


def test_scanned_counts_as_unrolled():
    for remat in ("none", "full"):
        counts = {}
        for unroll in (True, False):
            model, params, images = small(unroll=unroll, remat=remat)
            forward = flops.forward_flops(model, params, images)
            backward = flops.count(lambda p, x, model=model: step(model, x)(p), params, images)
            counts[unroll] = forward, backward
        assert counts[True] == counts[False]


def test_recomputation_shows_in_the_executed_count():
    model, params, images = small()
    forward = flops.forward_flops(model, params, images).flops
    executed = {}
    for remat in ("none", "dots_with_no_batch_dims", "full"):
        model, params, images = small(remat=remat)
        assert flops.forward_flops(model, params, images).flops == forward
        executed[remat] = flops.count(lambda p, x, model=model: step(model, x)(p), params, images).flops
    # No gradient of the images: the patch embedding costs two of three.
    embedding = 2 * 16 * 8 * 8 * 3 * 32
    assert executed["none"] == 3 * forward - embedding
    head = 2 * 32 * 3
    # "full" runs the blocks' forward pass once more, not the embedding, the head or
    # the last product of a block, whose result no gradient reads.
    last_product = 5 * 2 * 17 * 64 * 32
    assert executed["full"] == executed["none"] + forward - embedding - head - last_product
    assert executed["none"] < executed["dots_with_no_batch_dims"] < executed["full"]


def test_products_by_hand():
    assert flops.count(jnp.matmul, shape(2, 3), shape(3, 5)).macs == 2 * 3 * 5
    batched = flops.count(lambda a, b: jnp.einsum("btnk,bsnk->bnts", a, b), shape(2, 7, 3, 5), shape(2, 11, 3, 5))
    assert batched.macs == 2 * 7 * 11 * 3 * 5
    assert batched.flops == 2 * batched.macs
    assert flops.count(lambda x: jnp.exp(x) + x.sum(), shape(100, 100)).macs == 0


def test_convolutions_by_hand():
    def conv(x, kernel, **kwargs):
        return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **kwargs)

    full = flops.count(
        lambda x, k: conv(x, k, window_strides=(2, 2), padding="SAME"), shape(2, 8, 8, 6), shape(3, 3, 6, 4)
    )
    assert full.macs == 2 * 4 * 4 * 4 * 3 * 3 * 6
    grouped = flops.count(
        lambda x, k: conv(x, k, window_strides=(1, 1), padding="VALID", feature_group_count=6),
        *(shape(1, 8, 8, 6), shape(3, 3, 1, 6)),
    )
    assert grouped.macs == 6 * 6 * 6 * 3 * 3


def test_control_flow():
    one = 4 * 4 * 4
    square = shape(4, 4)
    scan = lambda x: jax.lax.scan(lambda c, _: (jax.jit(jnp.dot)(c, x), None), x, length=6)[0]  # noqa: E731
    assert flops.count(scan, square).macs == 6 * one
    fixed = lambda x: jax.lax.fori_loop(0, 3, lambda _, c: c @ x, x)  # noqa: E731
    assert flops.count(fixed, square).macs == 3 * one
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y @ y @ y, x)  # noqa: E731
    assert flops.count(branch, square).macs == 2 * one
    idle = lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x)  # noqa: E731
    assert flops.count(idle, square).macs == 0
    busy = lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ x, x)  # noqa: E731
    with pytest.raises(UserError, match="how often it runs is not known"):
        flops.count(busy, square)


def test_custom_derivatives_count_once():
    @jax.custom_vjp
    def product(a, b):
        return a @ b

    product.defvjp(lambda a, b: (a @ b, (a, b)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    square = shape(4, 4)
    assert flops.count(product, square, square).macs == 64
    assert flops.count(jax.grad(lambda a, b: jnp.cos(product(a, b)).sum(), (0, 1)), square, square).macs == 3 * 64

    @jax.custom_jvp
    def twice(a):
        return a @ a

    twice.defjvp(lambda p, t: (twice(*p), t[0] @ p[0] + p[0] @ t[0]))
    assert flops.count(twice, square).macs == 64


def test_what_nothing_reads_is_not_counted():
    square = shape(4, 4)
    assert flops.count(lambda x: (x @ x, x)[1], square).macs == 0
    pair = jax.jit(lambda x: (x @ x, x @ x @ x))
    assert flops.count(lambda x: pair(x)[0], square).macs == 64
    # A round of a scan reads what the last one carried, whether or not the result is read.
    carried = lambda x: jax.lax.scan(lambda c, _: ((c[0] @ x, c[0]), None), (x, x), length=6)[0][1]  # noqa: E731
    assert flops.count(carried, square).macs == 6 * 64


def test_kernels_count_each_step_of_their_grid():
    def kernel(x, y, out):
        out[...] = x[...] @ y[...]

    def product(x, y):
        block, whole = pl.BlockSpec((8, 16), lambda i, j: (i, 0)), pl.BlockSpec((16, 8), lambda i, j: (0, j))
        out = pl.BlockSpec((8, 8), lambda i, j: (i, j))
        result = jax.ShapeDtypeStruct((24, 32), jnp.float32)
        return pl.pallas_call(kernel, grid=(3, 4), in_specs=[block, whole], out_specs=out, out_shape=result)(x, y)

    assert flops.count(product, shape(24, 16), shape(16, 32)).macs == 24 * 16 * 32
    assert flops.count(lambda *a: (product(*a), a[0])[1], shape(24, 16), shape(16, 32)).macs == 0


def test_the_pallas_attention_multiplies_what_it_declares():
    x, one = shape(2, 17, 256), 2 * 4 * 17 * 17 * 64
    attend = lambda *a: flat_attention(*a, 4)  # noqa: E731
    assert flops.count(attend, x, x, x).macs == 2 * one
    both = jax.make_jaxpr(lambda *a: jax.vjp(attend, *a)[1](a[0]))(x, x, x)
    # Nothing but the inputs is kept, and the result is not read: the backward pass alone.
    assert flops.count_jaxpr(both).macs == 5 * one
    calls = [e for e in both.jaxpr.eqns if e.primitive.name == "pallas_call"]
    assert [int(e.params["cost_estimate"].flops) for e in calls][-1] == 2 * 5 * one


def test_both_attention_kernels_have_the_same_model_flops():
    counts = {name: flops.model_flops(*small(attention_kernel=name)) for name in ("xla", "pallas")}
    assert counts["pallas"] == counts["xla"]


def test_shards_count_as_often_as_there_are_devices():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "tensor"))
    spec = PartitionSpec("data")
    for extra, times in ({}, 2), ({"axis_names": {"data"}}, 1):
        sharded = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False, **extra)
        # Four shards of [2, 3]; with "tensor" manual too, two devices make each product.
        assert flops.count(jax.jit(sharded), shape(8, 3)).macs == 4 * 2 * 3 * 2 * times
