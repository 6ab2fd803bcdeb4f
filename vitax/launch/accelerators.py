"""Names of TPU slices: one table from what the clouds call them to the topology that they are.

Sources: cloud.google.com/tpu/docs (pages of v2, v3, v4, v5e, v5p, v6e, "TPU configurations";
"TPU software versions") and cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus, read in 2025.
The number in a name counts cores (two a chip) on v2, v3, v4 and v5p, and chips on v5e and v6e.
"""

import dataclasses
import math

from vitax.core.errors import UserError, suggest
from vitax.cost.topology import Topology


@dataclasses.dataclass(frozen=True)
class Family:
    """What the names of one generation have in common.

    Attributes:
      generation: as in ``cost.topology``: ``v5e``.
      counts: what the number in a name counts, per chip: 2 = cores, 1 = chips.
      runtime: the software version that a TPU VM is made with by default.
      gke: the node label ``cloud.google.com/gke-tpu-accelerator``; None where GKE has no such nodes.
      shapes: shapes of the slices on offer, in chips.
    """

    generation: str
    counts: int
    runtime: str
    gke: str | None
    shapes: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
# prefix of the name -> family
FAMILIES: dict[str, Family] = {
    "v2": Family("v2", 2, "tpu-ubuntu2204-base", None, ("2x2", "4x4", "8x8", "8x16", "16x16")),
    "v3": Family(
        "v3", 2, "tpu-ubuntu2204-base", "tpu-v3-slice", ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32")
    ),
    "v4": Family("v4", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", _CUBES[:-1]),
    "v5litepod": Family("v5e", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", _FLAT),
    "v5p": Family("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", (*_CUBES, "16x16x24")),
    "v6e": Family("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", _FLAT),
}


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One kind of slice.

    Attributes:
      name: as the cloud takes it: ``v5litepod-256``.
      family: of the table.
      topology: the same slice in ``cost.topology``'s words.
    """

    name: str
    family: Family
    topology: Topology

    @property
    def shape(self) -> str:
        """``16x16``, the node label ``cloud.google.com/gke-tpu-topology``."""
        return "x".join(map(str, self.topology.shape))

    @property
    def chips_per_host(self) -> int:
        """Four, but for the slices of one host of v5e and v6e, which have all their chips (1, 4 or 8) on it."""
        chips = math.prod(self.topology.shape)
        return chips if self.family.generation in ("v5e", "v6e") and chips <= 8 else min(chips, 4)

    @property
    def hosts(self) -> int:
        """Virtual machines, hence processes, of one slice."""
        return math.prod(self.topology.shape) // self.chips_per_host


def table() -> dict[str, Accelerator]:
    """Every name on offer -> accelerator."""
    found = {}
    for prefix, family in FAMILIES.items():
        for shape in family.shapes:
            topology = Topology.parse(f"{family.generation}:{shape}")
            name = f"{prefix}-{math.prod(topology.shape) * family.counts}"
            found[name] = Accelerator(name, family, topology)
    return found


def parse(text: str, slices: int = 1) -> Accelerator:
    """Reads ``v5litepod-256``, or the same as a topology: ``v5e:16x16``.

    Raises:
      UserError: names the nearest.
    """
    known = table()
    by_topology = {str(a.topology): a for a in known.values()}
    found = known.get(text) or by_topology.get(text)
    if found is None:
        prefix = text.partition("-")[0].replace("v5e", "v5litepod").partition(":")[0]
        family = [n for n in known if n.startswith(f"{prefix}-")]
        of_it = f" Of that generation: {', '.join(family)}." if family else f" Generations: {', '.join(FAMILIES)}."
        raise UserError(f"--accelerator {text}: no such slice.{suggest(text, [*known, *by_topology])}{of_it}")
    return dataclasses.replace(found, topology=dataclasses.replace(found.topology, slices=slices))
