"""The ledger: what a run has cost so far, across restarts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitax.cost import chips

# What a v3 core is assumed to reach where a run on another device is converted: the
# ViT paper's own L/16 run on JFT reached 43% (Table 2 against Table 6).
V3_CORE_MFU = 0.4
SECONDS_A_DAY = 86400.0


@dataclasses.dataclass
class Ledger:
    """Adds up the cost of a run; one object a process start.

    Attributes:
      device_kind: as JAX names it.
      num_devices: JAX devices in use.
      model_flops_per_example: 3 x forward, 2 a multiply-accumulate.
      batch_size: examples a step.
      before: the ledger of earlier starts ({} for the first).
    """

    device_kind: str
    num_devices: int
    model_flops_per_example: float
    batch_size: int
    before: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def read(self, seconds: Mapping[str, float], steps: int, last_step: int) -> dict[str, Any]:
        """The cumulative ledger.

        Args:
          seconds: part -> seconds of this start (see ``train.clock``).
          steps: steps done by this start, those later rolled back included.
          last_step: the step that the run has reached.

        Returns:
          Plain data: counts, seconds by part (their sum is ``wall_seconds``),
          examples a second of the train and data-wait time, model FLOPs, MFU (None
          where the chip is unknown), device-hours by kind, TPUv3-core-days with
          their source.
        """
        old = self.before
        old_seconds = old.get("seconds", {})
        total = {part: s + old_seconds.get(part, 0.0) for part, s in seconds.items()}
        all_steps = steps + old.get("steps", 0)
        examples = steps * self.batch_size + old.get("examples", 0)
        flops = steps * self.batch_size * self.model_flops_per_example + old.get("model_flops", 0.0)
        hours = dict(old.get("device_hours", {}))
        here = sum(seconds.values()) * self.num_devices / 3600
        hours[self.device_kind] = hours.get(self.device_kind, 0.0) + here
        productive = total.get("train", 0.0) + total.get("data_wait", 0.0)
        core_days, source = self._core_days(hours, flops)
        return {
            "starts": old.get("starts", 0) + 1,
            "last_step": last_step,
            "steps": all_steps,
            "rolled_back_steps": all_steps - last_step,
            "examples": examples,
            "wall_seconds": sum(total.values()),
            "seconds": total,
            "examples_per_second": examples / productive if productive else 0.0,
            "model_flops": flops,
            "mfu": self._mfu(seconds, steps),
            "device_kind": self.device_kind,
            "num_devices": self.num_devices,
            "device_hours": hours,
            "tpu_v3_core_days": core_days,
            "tpu_v3_core_days_source": source,
        }

    def _mfu(self, seconds: Mapping[str, float], steps: int) -> float | None:
        """Model FLOPs of this start's steps over what its devices could do in their time."""
        chip = chips.lookup(self.device_kind)
        spent = seconds.get("train", 0.0) + seconds.get("data_wait", 0.0)
        if chip is None or not spent:
            return None
        peak = chip.device_peak_bf16_flops * self.num_devices
        return steps * self.batch_size * self.model_flops_per_example / spent / peak

    def _core_days(self, hours: Mapping[str, float], flops: float) -> tuple[float, str]:
        if set(hours) == {"TPU v3"}:
            return hours["TPU v3"] / 24, "measured"
        core_seconds = chips.v3_core_seconds(flops, V3_CORE_MFU)
        return core_seconds / SECONDS_A_DAY, f"converted from model FLOPs at {V3_CORE_MFU:.0%} of 61.5 TFLOP/s a core"
