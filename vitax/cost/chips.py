"""What a chip can do and what it costs: one table, with its date.

Peaks are for dense bfloat16 matrix products. Prices are public list prices on demand
and indicative: look them up before money depends on them.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from vitax.core.errors import UserError, suggest

AS_OF = "2025"

_TERA = 1e12
_GIGA = 1e9
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: what people call it.
      devices_per_chip: JAX devices that one chip shows: 2 on TPU v2 and v3 (a device is
        a core, the unit of "TPUv3-core-days"), 1 on all others.
      peak_bf16_flops: FLOP/s of the chip (not of a device), 2 a multiply-accumulate.
      hbm_bytes: memory of the chip.
      hbm_bytes_per_second: its bandwidth.
      usd_per_hour: list price of a chip-hour, None where it has no single one.
      interconnect_bytes_per_second: between chips, both directions, of one chip; None
        where it is not in the table.
    """

    name: str
    devices_per_chip: int
    peak_bf16_flops: float
    hbm_bytes: int
    hbm_bytes_per_second: float
    usd_per_hour: float | None = None
    interconnect_bytes_per_second: float | None = None

    @property
    def device_peak_bf16_flops(self) -> float:
        """FLOP/s of one JAX device."""
        return self.peak_bf16_flops / self.devices_per_chip

    @property
    def device_hbm_bytes(self) -> int:
        """Memory of one JAX device."""
        return self.hbm_bytes // self.devices_per_chip

    @property
    def device_hbm_bytes_per_second(self) -> float:
        """Memory bandwidth of one JAX device."""
        return self.hbm_bytes_per_second / self.devices_per_chip


# Sources: the vendors' public pages (cloud.google.com/tpu/docs and its price list, NVIDIA's
# data sheets for the SXM forms, without sparsity), read in the year of AS_OF. Links of v2 and
# v3 (four of 496 and 656 Gbit/s each way): Norrie et al., IEEE Micro 41(2), 2021; of v4 (six of
# 50 GB/s each way): Jouppi et al., arXiv:2304.01433, table 4.
CHIPS: dict[str, Chip] = {
    "v2": Chip("TPU v2", 2, 46 * _TERA, 16 * _GIB, 700 * _GIGA, 1.13, 496 * _GIGA),
    "v3": Chip("TPU v3", 2, 123 * _TERA, 32 * _GIB, 900 * _GIGA, 2.00, 656 * _GIGA),
    "v4": Chip("TPU v4", 1, 275 * _TERA, 32 * _GIB, 1200 * _GIGA, 3.22, 600 * _GIGA),
    "v5e": Chip("TPU v5e", 1, 197 * _TERA, 16 * _GIB, 819 * _GIGA, 1.20, 400 * _GIGA),
    "v5p": Chip("TPU v5p", 1, 459 * _TERA, 95 * _GIB, 2765 * _GIGA, 4.20, 1200 * _GIGA),
    "v6e": Chip("TPU v6e", 1, 918 * _TERA, 32 * _GIB, 1640 * _GIGA, 2.70, 800 * _GIGA),
    "a100-40": Chip("A100 40 GB", 1, 312 * _TERA, 40 * _GIB, 1555 * _GIGA, None, 600 * _GIGA),
    "a100-80": Chip("A100 80 GB", 1, 312 * _TERA, 80 * _GIB, 2039 * _GIGA, None, 600 * _GIGA),
    "h100": Chip("H100 SXM", 1, 989 * _TERA, 80 * _GIB, 3350 * _GIGA, None, 900 * _GIGA),
    "h200": Chip("H200", 1, 989 * _TERA, 141 * _GIB, 4800 * _GIGA, None, 900 * _GIGA),
}

# `jax.Device.device_kind` -> chip. Exact names alone: a near miss is another chip ("NVIDIA
# H100 PCIe" has three quarters of the peak, "TPU v4 lite" is not a v4), and a wrong MFU is
# worse than none.
DEVICE_KINDS: dict[str, str] = {
    "TPU v2": "v2",
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "NVIDIA A100-SXM4-40GB": "a100-40",
    "NVIDIA A100-SXM4-80GB": "a100-80",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}

V3_CORE_PEAK_FLOPS = CHIPS["v3"].device_peak_bf16_flops  # 61.5e12


def lookup(device_kind: str) -> Chip | None:
    """The chip of a ``jax.Device.device_kind``; None for a CPU or a kind not in the table."""
    short = DEVICE_KINDS.get(device_kind)
    return None if short is None else CHIPS[short]


def override(chip: Chip, fields: Mapping[str, Any], where: str = "chip") -> Chip:
    """A chip with some of its numbers replaced: a negotiated price, a measured peak.

    Args:
      chip: from the table.
      fields: names of ``Chip``'s fields -> values, in the units of ``Chip``.
      where: what the fields are called where they were given, for messages.

    Raises:
      UserError: an unknown field, a wrong type, or a number that is not above zero.
    """
    hints = typing.get_type_hints(Chip)
    checked: dict[str, Any] = {}
    for key, value in fields.items():
        if key not in hints:
            raise UserError(f"{where}.{key}: unknown field.{suggest(key, hints)} Valid: {', '.join(hints)}.")
        if hints[key] is str:
            good = isinstance(value, str)
        elif value is None:
            good = type(None) in typing.get_args(hints[key])
        else:
            good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
            good = good and (value > 0 or key == "usd_per_hour")  # a chip may be free, not idle
            good = good and (hints[key] is not int or value == int(value))
        if not good:
            expected = {str: "a text", int: "a whole number above 0"}.get(hints[key], "a number above 0")
            raise UserError(f"{where}.{key}: expected {expected}, got {value!r}.")
        checked[key] = int(value) if hints[key] is int else value
    return dataclasses.replace(chip, **checked)


def v3_core_seconds(model_flops: float, mfu: float) -> float:
    """Converts work to seconds of one TPU v3 core: a conversion, not a measurement.

    For runs on other chips, to compare them with the papers' TPUv3-core-days (which are
    cores times training time, measured). Say so wherever the result is shown.

    Args:
      model_flops: 3 x forward, 2 a multiply-accumulate.
      mfu: fraction of its 61.5 TFLOP/s that the core is taken to reach, above 0 and at
        most 1. ViT's own runs on JFT reached 0.43 (L/16) and 0.32 (H/14).
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu: expected above 0 and at most 1, got {mfu!r}.")
    return model_flops / (V3_CORE_PEAK_FLOPS * mfu)
