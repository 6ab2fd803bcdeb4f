"""The launchers by name."""

from collections.abc import Callable

from vitax.launch import gke, local, slurm, tpu
from vitax.launch.settings import Settings

LAUNCHERS: dict[str, Callable[[Settings], int]] = {
    "tpu-vm": tpu.launch,
    "queued": tpu.launch,
    "gke": gke.launch,
    "slurm": slurm.launch,
    "local": local.launch,
}
