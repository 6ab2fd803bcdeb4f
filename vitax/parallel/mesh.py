"""Meshes: four named axes over the devices, every device used."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from vitax.core.errors import UserError

AXES = ("replica", "data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """Sizes of the mesh axes; one may be -1 (inferred from the number of devices).

    Attributes:
      replica: copies across slices, joined by the data-centre network.
      data: data parallelism with replicated parameters.
      fsdp: data parallelism with parameters and optimiser sharded.
      tensor: parallelism within a layer (heads, MLP).
    """

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def sizes(self, num_devices: int) -> dict[str, int]:
        """Axis -> size, with -1 filled in.

        Raises:
          UserError: more than one -1, or a product that leaves devices unused.
        """
        sizes = {name: getattr(self, name) for name in AXES}
        bad = [n for n, s in sizes.items() if s == 0 or s < -1]
        if bad:
            raise UserError(f"mesh.{bad[0]}: expected a positive size or -1 (inferred), got {sizes[bad[0]]}.")
        open_axes = [n for n, s in sizes.items() if s == -1]
        if len(open_axes) > 1:
            raise UserError(f"mesh: only one axis may be -1; {' and '.join(open_axes)} are.")
        known = math.prod(s for s in sizes.values() if s != -1)
        if open_axes and num_devices % known == 0:
            sizes[open_axes[0]] = num_devices // known
        if math.prod(sizes.values()) != num_devices:
            shape = " x ".join(f"{n} {s}" for n, s in sizes.items())
            raise UserError(
                f"mesh: {shape} does not use the {num_devices} devices that are there exactly. "
                "Set one axis to -1 or choose sizes whose product is the number of devices."
            )
        return sizes

    def over_slices(self, slices: int) -> "MeshSpec":
        """The same with one replica a slice, where nothing was said of replicas."""
        return dataclasses.replace(self, replica=slices) if self.replica == 1 else self


def build_mesh(spec: MeshSpec, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Lays the devices (all of ``jax.devices()`` by default) out on the four axes.

    ``jax.make_mesh`` is avoided: it silently drops devices when the product is too
    small, fails on several slices, and makes axes explicit, under which Flax's
    modules raise.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = spec.sizes(len(devices))
    shape = tuple(sizes[name] for name in AXES)
    slices = {getattr(d, "slice_index", 0) for d in devices}
    if devices[0].platform != "tpu":
        grid = np.asarray(devices).reshape(shape)
    elif len(slices) > 1:
        if shape[0] % len(slices):
            raise UserError(
                f"mesh.replica: {shape[0]} must be a multiple of the {len(slices)} slices, so that only the "
                "replica axis crosses the data-centre network."
            )
        inner = (shape[0] // len(slices), *shape[1:])
        outer = (len(slices), 1, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
