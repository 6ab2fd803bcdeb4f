"""Devices that nobody here holds: TPU slices described by libtpu, to compile for."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import MutableMapping
from typing import Any

import jax

from vitax.core.errors import UserError, suggest
from vitax.cost.chips import CHIPS, Chip

# How libtpu calls the generations, and what it must be told so that v4 and v5p show one
# device a chip, as they do to every real job (without it v4 shows two).
_LIBTPU: dict[str, dict[str, str]] = {
    "v2": {},
    "v3": {},
    "v4": {"chip_config_name": "megacore"},
    "v5e": {},
    "v5p": {"chip_config_name": "megacore"},
    "v6e": {},
}
# Read from the compiler's own refusals (libtpu 0.0.52): what a program may use of a
# device's memory, in bytes.
USABLE_HBM_BYTES: dict[str, int] = {
    "v2": int(7.48 * 2**30),
    "v3": int(15.48 * 2**30),
    "v4": int(30.75 * 2**30),
    "v5e": int(15.75 * 2**30),
    "v5p": int(95.73 * 2**30),
    "v6e": int(31.24 * 2**30),
}
# Axes of a slice, and chips in the largest that can be had; libtpu describes larger ones too.
_LARGEST: dict[str, tuple[int, int]] = {
    "v2": (2, 256),
    "v3": (2, 1024),
    "v4": (3, 4096),
    "v5e": (2, 256),
    "v5p": (3, 8960),
    "v6e": (2, 256),
}
_HOW = "Write GENERATION:SHAPE in chips, such as v3:8x8, v4:4x4x4 or v5e:16x16"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A kind of slice, and how many of them.

    Attributes:
      generation: a key of ``cost.chips.CHIPS``: v2, v3, v4, v5e, v5p, v6e.
      shape: chips along each axis of the slice.
      slices: how many slices, joined by the data-centre network.
    """

    generation: str
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Topology":
        """Reads ``v3:8x8``.

        Raises:
          UserError: an unknown generation or another form.
        """
        generation, _, shape = text.partition(":")
        if generation not in _LIBTPU:
            raise UserError(
                f'--topology {text}: unknown generation "{generation}".{suggest(generation, _LIBTPU)} '
                f"Known: {', '.join(_LIBTPU)}. {_HOW}."
            )
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
            raise UserError(f'--topology {text}: "{shape}" is no shape of a slice. {_HOW}.')
        if slices < 1:
            raise UserError(f"--slices {slices}: expected at least 1.")
        sizes, (axes, most) = tuple(int(n) for n in shape.split("x")), _LARGEST[generation]
        if len(sizes) > axes:
            raise UserError(f"--topology {text}: slices of {generation} have {axes} axes, not {len(sizes)}. {_HOW}.")
        if math.prod(sizes) > most:
            raise UserError(
                f"--topology {text}: {math.prod(sizes)} chips, and a slice of {generation} has at most {most}. "
                "Join several with --slices."
            )
        return cls(generation, sizes, slices)

    def __str__(self) -> str:
        name = f"{self.generation}:{'x'.join(map(str, self.shape))}"
        return name if self.slices == 1 else f"{self.slices} x {name}"

    @property
    def chip(self) -> Chip:
        """What the table says of the chip."""
        return CHIPS[self.generation]

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def num_devices(self) -> int:
        """JAX devices: two a chip on v2 and v3, else one."""
        return self.num_chips * self.chip.devices_per_chip

    @property
    def compiler_states_time(self) -> bool:
        """Whether libtpu's cost model gives a step time: on others it sums up placeholders."""
        return self.generation in ("v2", "v3", "v5p")

    def devices(self) -> list[Any]:
        """The devices as JAX describes them, without holding any.

        Raises:
          UserError: no libtpu, its lock is taken, or there is no such slice.
        """
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                "plan needs the TPU compiler, which runs on any x86-64 Linux machine: install the extra with "
                "pip install -e '.[plan]' (or: pip install libtpu)."
            )
        prepare(os.environ)
        from jax.experimental import topologies

        name = f"{self.generation}:{'x'.join(map(str, self.shape))}"
        several = {"num_slices": self.slices} if self.slices > 1 else {}
        try:
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=name, **_LIBTPU[self.generation], **several
            ).devices
        except Exception as error:
            raise UserError(_explain(str(error), self)) from error
        if len(found) != self.num_devices:
            raise UserError(f"--topology {self}: libtpu shows {len(found)} devices, expected {self.num_devices}.")
        return list(found)


def quiet(env: MutableMapping[str, str]) -> None:
    """Keeps libtpu calm on a machine without TPUs: no questions to the cloud, no lock, no complaints.

    What is set already stays. Must run before libtpu is loaded.
    """
    defaults = {
        "TPU_SKIP_MDS_QUERY": "1",  # else it asks the cloud's metadata server, for minutes
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a second process aborts at a lock file
        "TPU_ACCELERATOR_TYPE": "v3-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    for name, value in defaults.items():
        env.setdefault(name, value)


def prepare(env: MutableMapping[str, str]) -> None:
    """``quiet``, and no attempt to start a TPU: for processes that only compile for one."""
    quiet(env)
    # Without a platform named, JAX would try to start a TPU with the libtpu that it finds.
    if not jax.config.values["jax_platforms"]:
        jax.config.update("jax_platforms", "cpu")


def _explain(message: str, topology: Topology) -> str:
    first = message.strip().splitlines()[0]
    if "lockfile" in message:
        return (
            "Another process on this machine holds libtpu's lock. Leave ALLOW_MULTIPLE_LIBTPU_LOAD unset or set it "
            "to 1 (it only compiles here), or delete /tmp/libtpu_lockfile if no such process is left."
        )
    if "divisible" in message:
        return (
            f"--topology {topology}: hosts of this generation hold 2x2 chips, and the shape does not divide into "
            f"them. Use even sizes. (libtpu: {first})"
        )
    return f"--topology {topology}: libtpu knows no such slice: {first} {_HOW}."
