"""How fast a compiled step could run: compute, memory and network, op by op."""

import dataclasses
from collections.abc import Iterable

from vitax.cost.chips import Chip
from vitax.cost.hlo import Op

# What a chip may send to other slices. Not in any data sheet: 200 Gbit/s a host of four chips.
DCN_BYTES_PER_SECOND = 6.25e9
# Against the TPU compiler's own step time for unrolled ViTs on v2 and v3 (docs/accounting.md).
KNOWN_ERROR = 0.025


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Times of one step on one device, in seconds.

    Attributes:
      compute: all matrix products at peak.
      memory: all HBM traffic at full bandwidth.
      network: all collectives at full bandwidth of the links; None where it is unknown.
      per_op: the sum over ops of the larger of the three: what the step takes if every
        op reaches its own limit and none overlaps. Whole-program maxima are 14 to 41%
        lower than the TPU compiler's estimate, this sum is within ``KNOWN_ERROR`` of it.
    """

    compute: float
    memory: float
    network: float | None
    per_op: float


def wire_bytes(op: Op) -> float:
    """Bytes that a device sends within its slice for a collective by the ring algorithms."""
    within = op.group // op.slices
    share = (within - 1) / within
    factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(op.collective or "", share)
    return op.payload_bytes * factor


def network_seconds(op: Op, chip: Chip) -> float | None:
    """Time of one collective on the links alone; None where their speed is unknown.

    Between slices the payload is first split over a slice's chips, as Multislice does.
    """
    if chip.interconnect_bytes_per_second is None:
        return None
    # The table gives both directions together; sending has half.
    seconds = wire_bytes(op) / (chip.interconnect_bytes_per_second / 2 / chip.devices_per_chip)
    if op.slices > 1:
        part = op.payload_bytes / (op.group // op.slices)
        across = 2 * (op.slices - 1) / op.slices if op.collective == "all-reduce" else 1.0
        seconds += part * across / (DCN_BYTES_PER_SECOND / chip.devices_per_chip)
    return seconds


def roofline(ops: Iterable[Op], chip: Chip) -> Roofline:
    """The limits of a step.

    Args:
      ops: of ``hlo.Module.ops``.
      chip: the chip that runs them.
    """
    peak, bandwidth = chip.device_peak_bf16_flops, chip.device_hbm_bytes_per_second
    compute = memory = network = per_op = 0.0
    known = chip.interconnect_bytes_per_second is not None
    for op in ops:
        flops, moved = op.flops / peak, op.hbm_bytes / bandwidth
        sent = (network_seconds(op, chip) or 0.0) if op.collective else 0.0
        compute += flops * op.times
        memory += moved * op.times
        network += sent * op.times
        per_op += max(flops, moved, sent) * op.times
    return Roofline(compute, memory, network if known else None, per_op)
