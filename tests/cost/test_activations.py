"""What a network leaves for its backward pass, counted by hand for a small one."""

import jax
import jax.numpy as jnp
import pytest

from vitax import estimate, recipe
from vitax.cost import activations
from vitax.cost.activations import Activations, Traced
from vitax.cost.topology import Topology
from vitax.plan import plan

KERNEL, MATRIX = jnp.ones((3, 3, 4, 6)), jnp.ones((6, 8))


def net(variables, x):
    conv, matrix = variables
    y = jax.lax.conv_general_dilated(x, conv, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    block = jax.checkpoint(lambda y: jax.nn.relu(jnp.matmul(jax.nn.relu(y), matrix)) @ matrix.T)
    return block(block(y)).mean((1, 2))


def test_results_of_products_are_counted_once_a_place():
    found = activations.count(net, (KERNEL, MATRIX), jax.ShapeDtypeStruct((10, 8, 4), jnp.float32))
    places, wide, narrow = 5 * 4 * 4, 8, 6
    assert found == Activations(
        outside=places * narrow,
        inputs=2 * places * narrow,
        inside=2 * places * (wide + narrow),
        matrices=2 * places * (wide + narrow),
        largest_block=places * (wide + narrow),
        largest=places * wide,
        blocks=2,
    )


def test_remat_keeps_less_and_makes_again():
    found = Activations(outside=10, inputs=20, inside=100, matrices=60, largest_block=30, largest=15, blocks=3)
    kept, flying = {}, {}
    for remat in ("none", "full", "dots", "dots_with_no_batch_dims"):
        stack = Traced(found, 2, 2, remat, False)
        kept[remat], flying[remat] = stack.kept_bytes(), stack.in_flight_bytes()
        assert (stack.everything_bytes(), stack.stream_bytes(), stack.depth) == (220, 40, 3)
    assert kept == {"none": 220, "full": 60, "dots": 180, "dots_with_no_batch_dims": 180}
    assert flying == {"none": 60, "full": 120, "dots": 120, "dots_with_no_batch_dims": 120}


def test_l2_is_planned_by_arithmetic():
    built = recipe.load("configs/efficientnet_i1k.py:L2", ["--config.remat=full"])
    found = plan(built, Topology.parse("v3:16x16"), fast=True)
    assert found["fits"]
    # 170.9 GMACs x 2 x 3 x 1,281,167 images x 350 epochs at 40% of 61.5 TFLOP/s a core.
    assert found["core_days"] == pytest.approx(216.3, rel=0.01)
    assert found["hbm_split_bytes"]["averages"] == pytest.approx(4 * (480_309_308 + 800_000), rel=0.01)
    # Without remat the same trace says more: 8 images a core.
    program = built.program(estimate.abstract_mesh({"replica": 1, "data": 512, "fsdp": 1, "tensor": 1}), "tpu")
    stack = estimate.stack_of(built, program, remat="none")
    assert stack.examples == 8
    assert stack.kept_bytes() > 5 * found["hbm_split_bytes"]["activations"]


def test_settings_of_a_search_share_one_trace():
    built = recipe.load("configs/efficientnet_i1k.py:B0")
    program = built.program(estimate.abstract_mesh({"replica": 1, "data": 8, "fsdp": 1, "tensor": 1}), "tpu")
    stacks = [estimate.stack_of(built, program, remat=r, accumulate=a) for r in ("none", "full") for a in (1, 2)]
    assert all(stack.found is stacks[0].found for stack in stacks)
    assert [stack.examples for stack in stacks] == [512, 256, 512, 256]
    # The stem, 16 blocks of which 15 expand, the top and the head.
    assert stacks[0].found.blocks == 16
