import pytest

from vitax.core.errors import UserError
from vitax.cost import chips


@pytest.mark.parametrize(
    ("kind", "name", "device_tflops", "device_gib"),
    [
        ("TPU v2", "v2", 23, 8),
        ("TPU v3", "v3", 61.5, 16),
        ("TPU v4", "v4", 275, 32),
        ("TPU v5 lite", "v5e", 197, 16),
        ("TPU v5", "v5p", 459, 95),
        ("TPU v5p", "v5p", 459, 95),
        ("TPU v6 lite", "v6e", 918, 32),
        ("NVIDIA A100-SXM4-40GB", "a100-40", 312, 40),
        ("NVIDIA A100-SXM4-80GB", "a100-80", 312, 80),
        ("NVIDIA H100 80GB HBM3", "h100", 989, 80),
        ("NVIDIA H200", "h200", 989, 141),
    ],
)
def test_a_jax_device(kind, name, device_tflops, device_gib):
    chip = chips.lookup(kind)
    assert chip is chips.CHIPS[name]
    assert chip.device_peak_bf16_flops == pytest.approx(device_tflops * 1e12)
    assert chip.device_hbm_bytes == device_gib * 2**30


@pytest.mark.parametrize("kind", ["cpu", "", "TPU v4 lite", "NVIDIA H100 PCIe", "Tesla T4", "TPU v3 pro"])
def test_no_guess(kind):
    assert chips.lookup(kind) is None


def test_every_chip_has_a_kind_and_every_kind_a_chip():
    assert set(chips.DEVICE_KINDS.values()) == set(chips.CHIPS)


def test_arithmetic_intensity_is_of_this_world():
    # A wrong unit is off by a factor of 1000; real ridge points are 50 to 600 FLOPs a byte.
    for chip in chips.CHIPS.values():
        assert 50 < chip.peak_bf16_flops / chip.hbm_bytes_per_second < 600, chip
        assert chip.usd_per_hour is None or 1 < chip.usd_per_hour < 10
        assert chip.device_hbm_bytes_per_second * chip.devices_per_chip == chip.hbm_bytes_per_second


def test_only_v2_and_v3_show_cores():
    assert {name for name, chip in chips.CHIPS.items() if chip.devices_per_chip == 2} == {"v2", "v3"}


def test_v3_core_days_of_the_papers_largest_runs():
    # ViT Table 6 (exaFLOPs) at the MFU implied by Table 2 gives Table 2's core-days.
    for exaflops, mfu, core_days in ((1567, 0.434, 680), (4262, 0.321, 2500)):
        assert chips.v3_core_seconds(exaflops * 1e18, mfu) / 86400 == pytest.approx(core_days, rel=0.01)


def test_numbers_can_be_replaced():
    v3 = chips.CHIPS["v3"]
    got = chips.override(v3, {"usd_per_hour": 0, "peak_bf16_flops": 100e12, "hbm_bytes": 1e9})
    assert (got.usd_per_hour, got.device_peak_bf16_flops, got.hbm_bytes) == (0, 50e12, 10**9)
    assert isinstance(got.hbm_bytes, int)
    assert chips.override(v3, {"usd_per_hour": None}).usd_per_hour is None
    assert chips.override(v3, {}) == v3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"usd_per_hr": 1}, 'chip.usd_per_hr: unknown field. Did you mean "usd_per_hour"'),
        ({"usd_per_hour": "1"}, "chip.usd_per_hour: expected a number above 0, got '1'"),
        ({"usd_per_hour": -1}, "chip.usd_per_hour: expected a number above 0, got -1"),
        ({"peak_bf16_flops": 0}, "chip.peak_bf16_flops: expected a number above 0"),
        ({"peak_bf16_flops": None}, "chip.peak_bf16_flops: expected a number above 0"),
        ({"usd_per_hour": float("nan")}, "chip.usd_per_hour: expected a number above 0"),
        ({"hbm_bytes": 1.5}, "chip.hbm_bytes: expected a whole number above 0"),
        ({"devices_per_chip": True}, "chip.devices_per_chip: expected a whole number above 0"),
        ({"name": 3}, "chip.name: expected a text"),
    ],
)
def test_a_wrong_override_names_the_field(fields, message):
    with pytest.raises(UserError, match=message):
        chips.override(chips.CHIPS["v3"], fields)


@pytest.mark.parametrize("mfu", [0.0, -0.1, 1.1, float("nan")])
def test_mfu_is_a_fraction(mfu):
    with pytest.raises(ValueError, match="mfu"):
        chips.v3_core_seconds(1e18, mfu)
