"""The ledger: what a run has cost so far, across restarts and topologies.

Time. At any moment of a start exactly one part runs, so the parts of a run add up
to its wall time: the time between entering ``vitax.run.train`` and leaving the loop,
summed over all starts (importing Python modules and the time between starts are not
in it, nor is what a killed start spent after it last wrote ``ledger.json``).

- ``startup``: of the first start: devices, data, initialisation, building evaluators.
- ``restart``: the same of every later start, and restoring.
- ``compile``: tracing and compiling the train step (evaluators compile as they first run).
- ``productive``: stepping that was kept.
- ``data_wait``: waiting for a batch, for steps that were kept.
- ``evaluation``: evaluating, where the step evaluated was kept.
- ``checkpoint``: saving, and waiting for saves.
- ``lost``: stepping, data wait and evaluation that were rolled back: done after the
  checkpoint that a later start restored, whose copy of the ledger says how much came
  before it. Start-up, compilation and saving are never lost; they are what being able
  to go on costs.

Goodput is ``productive / wall``: neither waiting for data nor lost time counts as good,
and both count as time.

Work. ``steps``, ``examples``, ``model_flops`` and ``executed_flops`` are of every step
done, those rolled back later included: they were paid for. ``examples_per_second`` is
kept examples over kept stepping and data wait.

MFU and HFU are of the whole run: model or executed FLOPs over what the devices could
have done while stepping and waiting for data, summed over device kinds (seconds x peak).
Rolled-back steps are in both sums, so a crash does not move them; it moves goodput. They
are None where a kind that the run stepped on has no known peak.

Two copies are kept: ``ledger.json`` in the workdir, written as the run goes on, and one
in every checkpoint. A start goes on from the one that knows of more steps done, and of
more wall time where they know the same steps.

Reference: TPUv3-core-days: ViT, arXiv:2010.11929, section 4.1: cores times days.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitax.core.ramp import Ramp
from vitax.cost import chips

PARTS = ("startup", "restart", "compile", "productive", "data_wait", "evaluation", "checkpoint", "lost")
# What a rolled-back run has to do again.
PROGRESS = ("productive", "data_wait", "evaluation")
# What a v3 core is assumed to reach where a run on another device is converted: the
# ViT paper's own L/16 run on JFT reached 43% (Table 2 against Table 6).
V3_CORE_MFU = 0.4
SECONDS_A_DAY = 86400.0

_LIST_PRICE = f"list price, indicative, as of {chips.AS_OF}"
_GIVEN_PRICE = "at the price given"
_RATES = ("devices_per_chip", "peak_bf16_flops", "usd_per_hour")
_SPENT = ("device_seconds", "stepping_device_seconds", "model_flops", "executed_flops")


@dataclasses.dataclass
class Ledger:
    """Adds up the cost of a run; one object a process start.

    Attributes:
      device_kind: as JAX names it.
      num_devices: JAX devices in use.
      model_flops_per_example: 3 x forward, 2 a multiply-accumulate.
      batch_size: examples a step.
      before: what ``read`` last gave to an earlier start (``ledger.json``); {} for none.
      chip: fields of ``chips.Chip`` that replace the table's for this device kind.
      paper: ``paper``, ``row`` and ``core_days`` of the published run, or None.
      executed_flops_per_step: of the whole mesh, recomputation included; None until it
        is known.
      ramp: where the first batches are smaller.
    """

    device_kind: str
    num_devices: int
    model_flops_per_example: float
    batch_size: int
    before: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chip: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: Mapping[str, Any] | None = None
    executed_flops_per_step: float | None = None
    ramp: Ramp | None = None

    def __post_init__(self) -> None:
        self._past = _past(self.before)

    def restored(self, step: int, copy: Mapping[str, Any] | None = None) -> None:
        """Says where this start begins; what earlier ones did after that is lost.

        Args:
          step: the restored step; 0 for a fresh run.
          copy: the ledger in the checkpoint; None where nothing was restored.
        """
        kept = _past(copy or {})
        past = _past(max(self.before, copy or {}, key=_knowledge))
        rolled_back = sum(past["seconds"][part] - kept["seconds"][part] for part in PROGRESS)
        # Below zero only where ledger.json is of another run than the checkpoint.
        past["seconds"]["lost"] = max(past["seconds"]["lost"] + rolled_back, 0.0)
        past["seconds"].update({part: kept["seconds"][part] for part in PROGRESS})
        past["last_step"] = step
        self._past = past

    def read(self, seconds: Mapping[str, float], steps: int) -> dict[str, Any]:
        """The cumulative ledger.

        Args:
          seconds: part -> seconds of this start (see ``train.clock``).
          steps: steps that this start has done.

        Returns:
          Plain data: counts; ``seconds`` by part, whose sum is ``wall_seconds``;
          ``goodput``, ``mfu``, ``hfu`` (fractions, None = not known); FLOPs;
          ``by_device_kind`` (what was spent where, and the rates it is reckoned at:
          ``device_seconds`` and FLOPs, FLOP/s and dollars an hour of a chip);
          ``device_hours``; TPUv3-core-days and dollars, each with their source.
        """
        past = self._past
        spent = dict(seconds)
        if past["starts"]:
            spent["restart"] = spent.pop("startup", 0.0) + spent.get("restart", 0.0)
        total = {part: past["seconds"][part] + spent.get(part, 0.0) for part in PARTS}
        wall = sum(total.values())
        all_steps, last_step = past["steps"] + steps, past["last_step"] + steps
        stepping = total["productive"] + total["data_wait"]
        account = {
            "starts": past["starts"] + 1,
            "last_step": last_step,
            "steps": all_steps,
            "rolled_back_steps": max(all_steps - last_step, 0),
            "examples": past["examples"] + self._examples(last_step) - self._examples(past["last_step"]),
            "wall_seconds": wall,
            "seconds": total,
            "goodput": total["productive"] / wall if wall else 0.0,
            "examples_per_second": self._examples(last_step) / stepping if stepping else 0.0,
            "device_kind": self.device_kind,
            "num_devices": self.num_devices,
            "paper": dict(self.paper) if self.paper else None,
            "by_device_kind": {**past["by_device_kind"], self.device_kind: self._here(seconds, steps)},
        }
        return account | _sums(account["by_device_kind"])

    def _here(self, seconds: Mapping[str, float], steps: int) -> dict[str, Any]:
        """Spent on this kind of device, earlier starts included, and its rates."""
        stepping = seconds.get("productive", 0.0) + seconds.get("data_wait", 0.0)
        first = self._past["last_step"]
        executed = self.executed_flops_per_step
        new = {
            "device_seconds": sum(seconds.values()) * self.num_devices,
            "stepping_device_seconds": stepping * self.num_devices,
            "model_flops": (self._examples(first + steps) - self._examples(first)) * self.model_flops_per_example,
            "executed_flops": 0.0 if not steps else None if executed is None else steps * executed,
        }
        old = self._past["by_device_kind"].get(self.device_kind, dict.fromkeys(_SPENT, 0.0))
        return {name: _add(old[name], new[name]) for name in _SPENT} | self._rates()

    def _examples(self, step: int) -> int:
        """Of all steps before this one."""
        return step * self.batch_size if self.ramp is None else self.ramp.before(step, self.batch_size)

    def _rates(self) -> dict[str, Any]:
        chip = chips.lookup(self.device_kind)
        rates: dict[str, Any] = {"devices_per_chip": 1, "peak_bf16_flops": None, "usd_per_hour": None}
        if chip is not None:
            rates = {name: getattr(chips.override(chip, self.chip), name) for name in _RATES}
        else:
            # A device that is not in the table: what the recipe says is all that is known.
            rates |= {name: value for name, value in self.chip.items() if name in _RATES}
        given = self.chip.get("usd_per_hour") is not None
        return rates | {"price": _GIVEN_PRICE if given else _LIST_PRICE if rates["usd_per_hour"] else None}


def priced(account: Mapping[str, Any], prices: Mapping[str, float]) -> dict[str, Any]:
    """The account at other prices.

    Args:
      account: as ``Ledger.read`` gives it.
      prices: device kind -> dollars an hour of a chip.
    """
    kinds = {
        kind: {**spent, "usd_per_hour": prices[kind], "price": _GIVEN_PRICE} if kind in prices else spent
        for kind, spent in account["by_device_kind"].items()
    }
    return {**account, "by_device_kind": kinds} | _sums(kinds)


def _past(account: Mapping[str, Any]) -> dict[str, Any]:
    """What a later start needs of an account; zeros where there is none."""
    seconds = account.get("seconds", {})
    counts = {name: account.get(name, 0) for name in ("starts", "steps", "last_step", "examples")}
    by_device_kind = dict(account.get("by_device_kind", {}))
    return {**counts, "seconds": {part: seconds.get(part, 0.0) for part in PARTS}, "by_device_kind": by_device_kind}


def _knowledge(account: Mapping[str, Any]) -> tuple[int, float]:
    return account.get("steps", 0), account.get("wall_seconds", 0.0)


def _add(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _sums(kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What follows from the account of each device kind."""
    executed: float | None = 0.0
    for spent in kinds.values():
        executed = _add(executed, spent["executed_flops"])
    core_days, core_days_source = _core_days(kinds)
    usd, usd_source = _dollars(kinds)
    return {
        "model_flops": sum(spent["model_flops"] for spent in kinds.values()),
        "executed_flops": executed,
        "mfu": _utilisation(kinds, "model_flops"),
        "hfu": _utilisation(kinds, "executed_flops"),
        "device_hours": {kind: spent["device_seconds"] / 3600 for kind, spent in kinds.items()},
        "tpu_v3_core_days": core_days,
        "tpu_v3_core_days_source": core_days_source,
        "usd": usd,
        "usd_source": usd_source,
    }


def _utilisation(kinds: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    done = possible = 0.0
    for spent in kinds.values():
        if spent["stepping_device_seconds"]:
            if spent["peak_bf16_flops"] is None or spent[name] is None:
                return None
            done += spent[name]
            possible += spent["stepping_device_seconds"] * spent["peak_bf16_flops"] / spent["devices_per_chip"]
    return done / possible if possible else None


def _core_days(kinds: Mapping[str, Mapping[str, Any]]) -> tuple[float, str]:
    """Core-days: device time on TPU v3 (a JAX device is a core there), model FLOPs elsewhere."""
    measured = kinds["TPU v3"]["device_seconds"] / SECONDS_A_DAY if "TPU v3" in kinds else 0.0
    others = [spent["model_flops"] for kind, spent in kinds.items() if kind != "TPU v3"]
    if not others:
        return measured, "measured"
    converted = chips.v3_core_seconds(sum(others), V3_CORE_MFU) / SECONDS_A_DAY
    how = f"from model FLOPs at {V3_CORE_MFU:.0%} of 61.5 TFLOP/s a core"
    if "TPU v3" not in kinds:
        return converted, f"converted {how}"
    return measured + converted, f"partly converted: {measured:.3g} measured on TPU v3, {converted:.3g} {how}"


def _dollars(kinds: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, str]:
    unknown = [kind for kind, spent in kinds.items() if spent["usd_per_hour"] is None]
    if unknown:
        return None, f"no price known for {', '.join(unknown)}: set chip.usd_per_hour or --usd-per-hour"
    usd = sum(s["device_seconds"] / 3600 / s["devices_per_chip"] * s["usd_per_hour"] for s in kinds.values())
    return usd, " and ".join(sorted({spent["price"] for spent in kinds.values()}, reverse=True))
