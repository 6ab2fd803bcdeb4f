"""Before anything is created: does the recipe go on the devices that it is to be launched on?"""

import sys

from vitax import config_files, estimate, plan, recipe
from vitax.core import paths
from vitax.core.errors import UserError
from vitax.cost.topology import Topology
from vitax.launch.settings import Settings
from vitax.recipe import Recipe
from vitax.train.terminal import size

_ANYWAY = "(--no-plan launches without this check.)"


def check(settings: Settings, devices: int = 0, topology: Topology | None = None, platform: str = "tpu") -> None:
    """Checks mesh and batch against the devices and, on a TPU topology, memory by arithmetic.

    Args:
      settings: of the launch; ``plan`` switches the check off.
      devices: how many there will be, all together; of ``topology`` where that is given.
      topology: the slices, where they are TPUs.
      platform: of the devices.

    Raises:
      UserError: a bad recipe, or one that does not go on these devices.
    """
    overrides = list(settings.overrides)
    if settings.kind in ("tpu-vm", "queued", "gke") and not paths.is_url(settings.workdir):
        _say(f"--workdir {settings.workdir} must be on a disk that all hosts share and that outlives them; else gs://")
    if not settings.plan:
        config_files.parse_overrides(overrides)
        return
    checked = recipe.load(settings.config, overrides)
    where = f"{topology}" if topology else f"{devices} devices"
    try:
        if topology is None:
            mesh = estimate.abstract_mesh(checked.mesh_spec.sizes(devices))
            shape = {k: v for k, v in checked.program(mesh, platform).mesh.shape.items() if v > 1}
            _say(
                f"{where}, mesh {_text(shape)}, batch {checked.data.batch_size} in {checked.accumulate} microbatch(es)"
            )
        else:
            _plan(checked, topology)
    except UserError as error:
        raise UserError(
            f"launch {settings.kind}: {settings.config} does not go on {where}: {error} {_ANYWAY}"
        ) from error


def _plan(checked: Recipe, topology: Topology) -> None:
    found = plan.plan(checked, topology, fast=True)
    used, limit = found["hbm_bytes_per_core"], found["hbm_limit_bytes"]
    if not found["fits"]:
        raise UserError(
            f"by arithmetic a core needs {size(used)} of {size(limit)}: {size(found['missing_bytes'])} too much. "
            f"See vitax plan --search --topology {topology.generation}:{'x'.join(map(str, topology.shape))}"
            + (f" --slices {topology.slices}." if topology.slices > 1 else ".")
        )
    usd = "" if found["usd"] is None else f", ${found['usd']:,.0f} at list price"
    _say(
        f"{topology}, {found['devices']} devices, mesh {_text(found['mesh'])}; {size(used)} of {size(limit)} a core; "
        f"{found['hours']:,.1f} h at {found['mfu']:.0%} MFU{usd} (by arithmetic; vitax plan asks the compiler)"
    )


def _text(mesh: dict[str, int]) -> str:
    return " x ".join(f"{k} {v}" for k, v in mesh.items()) or "of one device"


def _say(line: str) -> None:
    print(f"plan: {line}", file=sys.stderr, flush=True)
