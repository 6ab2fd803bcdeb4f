"""Reading compiled programs: by hand here, against the TPU compiler in tests/test_plan.py."""

import jax
import jax.numpy as jnp
import pytest

from vitax.cost import hlo
from vitax.cost.chips import CHIPS
from vitax.cost.roofline import network_seconds, roofline, wire_bytes

TEXT = """HloModule step

%body.1 (p.1: (s32[], bf16[4,256,128])) -> (s32[], bf16[4,256,128]) {
  %p.1 = (s32[], bf16[4,256,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%p.1), index=0
  %x = bf16[4,256,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p.1), index=1
  %y = bf16[4,256,128]{2,1,0:T(8,128)(2,1)} copy(%x)
  ROOT %t = (s32[], bf16[4,256,128]{2,1,0:T(8,128)(2,1)}) tuple(%i, %y)
}

%cond.1 (p.2: (s32[], bf16[4,256,128])) -> pred[] {
  %n.2 = s32[]{:T(256)} constant(5)
  %p.2 = (s32[], bf16[4,256,128]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.2), index=0
  ROOT %lt = pred[]{:T(1024)} compare(%i.2, %n.2), direction=LT
}

%fused (a: bf16[197,64], b: bf16[64,3]) -> bf16[197,3] {
  %a = bf16[197,64]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[64,3]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %d = bf16[197,3]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf
}

%sliced (s: f32[12,256,128], n: s32[]) -> f32[1,256,128] {
  %s = f32[12,256,128]{2,1,0:T(8,128)} parameter(0)
  %n = s32[] parameter(1)
  ROOT %part = f32[1,256,128]{2,1,0:T(8,128)} dynamic-slice(%s, %n, %n, %n), dynamic_slice_sizes={1,256,128}
}

ENTRY %main (a.1: bf16[197,64], b.1: bf16[64,3], s.1: f32[12,256,128], g: f32[1024]) -> bf16[197,3] {
  %a.1 = bf16[197,64]{1,0:T(8,128)(2,1)} parameter(0)
  %b.1 = bf16[64,3]{1,0:T(8,128)(2,1)} parameter(1)
  %s.1 = f32[12,256,128]{2,1,0:T(8,128)} parameter(2)
  %g = f32[1024]{0:T(1024)} parameter(3)
  %n.1 = s32[] constant(0)
  %w.0 = (s32[], bf16[4,256,128]{2,1,0:T(8,128)(2,1)}) tuple(%n.1, %n.1)
  %w = (s32[], bf16[4,256,128]{2,1,0:T(8,128)(2,1)}) while(%w.0), condition=%cond.1, body=%body.1
  %q = f32[1,256,128]{2,1,0:T(8,128)} fusion(%s.1, %n.1), kind=kLoop, calls=%sliced
  %r = f32[1024]{0:T(1024)} all-reduce(%g), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %f = bf16[197,3]{1,0:T(8,128)(2,1)} fusion(%a.1, %b.1), kind=kOutput, calls=%fused, metadata={op_name="jit(step)/dot"}, backend_config={"estimated_cycles":"77"}
}
"""  # noqa: E501


def ops(text=TEXT, **kwargs):
    return {op.name: op for op in hlo.Module(text, **kwargs).ops()}


def test_products_bytes_and_cycles_of_a_fusion():
    op = ops()["f"]
    assert op.flops == 2 * 197 * 64 * 3
    # 197 rows pad to 200, 64 and 3 columns to 128.
    assert op.hbm_bytes == 2 * (200 * 128 + 64 * 128 + 200 * 128)
    assert (op.cycles, op.scope) == (77, "jit(step)/dot")


KERNEL = (
    '%k = bf16[197,64]{1,0:T(8,128)(2,1)} custom-call(%a.1), custom_call_target="tpu_custom_call", '
    'operand_layout_constraints={bf16[197,64]{1,0}}, metadata={op_name="jit(step)/pallas_call"}, '
    'backend_config={"custom_call_config":{"body":"TUzv","cost_estimate":{"flops":"12345","transcendentals":"7",'
    '"bytes_accessed":"9"},"needs_layout_passes":true}}'
)


def test_a_hand_written_kernel_has_the_flops_that_it_declares_and_the_bytes_of_its_arrays():
    text = TEXT.replace("  ROOT %f", f"  {KERNEL}\n  ROOT %f")
    op = ops(text)["k"]
    assert (op.kernel, op.flops, op.cycles) == (True, 12345, None)
    assert op.hbm_bytes == 2 * 2 * 200 * 128
    silent = ops(text.replace('"cost_estimate":{"flops":"12345","transcendentals":"7","bytes_accessed":"9"},', ""))["k"]
    assert (silent.kernel, silent.flops) == (True, 0)
    other = ops(text.replace("tpu_custom_call", "AllocateBuffer"))["k"]
    assert (other.kernel, other.flops) == (False, 0)
    assert not ops()["f"].kernel


def test_a_loop_counts_as_often_as_it_runs():
    assert ops()["y"].times == 5
    assert ops()["y"].hbm_bytes == 2 * 2 * 4 * 256 * 128


def test_a_loop_of_unknown_length_with_products_is_refused():
    text = TEXT.replace("direction=LT", "direction=NE").replace(
        "copy(%x)", "fusion(%x, %x), kind=kOutput, calls=%fused"
    )
    with pytest.raises(ValueError, match="How often the loop w runs"):
        hlo.Module(text).ops()


def test_a_slice_of_a_stack_moves_the_slice_alone():
    assert ops()["q"].hbm_bytes == 2 * 4 * 256 * 128 + 4


def test_collectives_and_their_groups():
    op = ops()["r"]
    assert (op.collective, op.group, op.slices, op.payload_bytes) == ("all-reduce", 4, 1, 4096)
    assert hlo.collectives(hlo.Module(TEXT).ops()) == {"all-reduce": {"count": 1, "bytes": 4096}}
    assert ops(devices_per_slice=2)["r"].slices == 2


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x={}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, x={}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("source_target_pairs={{0,0},{2,1}}, x", [[0, 0], [2, 1]]),
    ],
)
def test_groups_in_every_spelling(text, groups):
    assert hlo._device_groups(text) == groups


def test_buffers_outside_hbm_move_nothing():
    assert hlo._shape("f32", "8,128", "1,0", ":T(8,128)S(1)").hbm_bytes == 0
    assert hlo._shape("bf16", "32,197,12,64", "1,3,2,0", ":T(8,128)(2,1)").hbm_bytes == 2 * 32 * 256 * 64 * 12


def test_batched_products_written_as_dilated_convolutions():
    # The TPU compiler's form of [32, 12] products of [197, 64] by [64, 197].
    positions = hlo._positions(32, 32, 32, stride=31, window_dilate=1, dilate=32, low=0)
    assert positions == 32
    # ... and of a projection to 12 heads: a window that slides over padding.
    assert hlo._positions(1, 12, 12, stride=1, window_dilate=1, dilate=1, low=11) == 12


def test_flops_agree_with_the_walk_of_the_jaxpr():
    from vitax.cost import flops

    def fn(x, w):
        y = jnp.einsum("btd,dnk->bntk", x, w)
        return (
            jnp.einsum("bntk,bnsk->bnts", y, y).sum()
            + jax.lax.scan(lambda c, _: (c @ c, None), x[0, :7, :7], None, 6)[0].sum()
        )

    args = jax.ShapeDtypeStruct((2, 7, 8), jnp.float32), jax.ShapeDtypeStruct((8, 3, 4), jnp.float32)
    compiled = jax.jit(fn).lower(*args).compile()
    assert sum(o.flops * o.times for o in hlo.Module(compiled.as_text()).ops()) == flops.count(fn, *args).flops


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.Module("not a module")


def collective(kind, group, payload, slices=1):
    return hlo.Op("c", kind, "", 0, 0, None, collective=kind, payload_bytes=payload, group=group, slices=slices)


def test_bytes_on_the_wire_are_those_of_rings():
    assert wire_bytes(collective("all-reduce", 4, 1000)) == 1500
    assert wire_bytes(collective("all-gather", 4, 1000)) == 750
    assert wire_bytes(collective("reduce-scatter", 4, 1000)) == 750
    assert wire_bytes(collective("collective-permute", 4, 1000)) == 1000
    assert wire_bytes(collective("all-reduce", 1, 1000)) == 0


def test_slices_are_joined_by_the_slower_network():
    chip = CHIPS["v4"]
    within = network_seconds(collective("all-reduce", 64, 10**9), chip)
    across = network_seconds(collective("all-reduce", 128, 10**9, slices=2), chip)
    assert across > within
    # The payload is split over the 64 chips of a slice before it crosses.
    assert across - within == pytest.approx(10**9 / 64 / 6.25e9, rel=0.01)


def test_roofline_takes_each_op_at_its_own_limit():
    chip = CHIPS["v3"]
    busy = hlo.Op("a", "fusion", "", flops=61_500_000_000, hbm_bytes=0, cycles=None)
    heavy = hlo.Op("b", "fusion", "", flops=0, hbm_bytes=450_000_000, cycles=None, times=2)
    limits = roofline([busy, heavy], chip)
    assert limits.compute == pytest.approx(1e-3)
    assert limits.memory == pytest.approx(2e-3)
    assert limits.per_op == pytest.approx(3e-3)
